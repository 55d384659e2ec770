//! The command line: flags, their environment variables `PERSONALIZE_OPERATOR_…`, and the settings made from them.

use crate::accounts::Accounts;
use crate::api::{ImportMode, Preflight};
use crate::aws::{AwsOptions, RateLimits};
use crate::controller::Options;
use crate::controller::leader_election::LeaderElectionOptions;
use crate::controller::namespace_policy::DefaultPolicy;
use crate::import::timing::Timing;
use crate::preflight::{DatasetType, Domain};
use crate::queue::QueueOrder;
pub use crate::telemetry::logging::LogFormat;
use clap::builder::{NonEmptyStringValueParser, PossibleValue};
use clap::{Args, Parser, Subcommand, ValueEnum};
use humantime::parse_duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The maximum of a duration flag.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// The end of the help of `run`.
const RUN_AFTER_HELP: &str = "Durations have a unit: 500ms, 30s, 5m or 1h. A flag takes precedence over its environment \
variable.";

/// Imports data into Amazon Personalize datasets, as Kubernetes resources.
#[derive(Debug, Parser)]
#[command(name = "personalize-operator", version, about, max_term_width = 100)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    #[command(after_help = RUN_AFTER_HELP)]
    Run(Box<RunArgs>),
    /// Print the CustomResourceDefinition as YAML.
    Crd,
    /// Check that a running operator is ready; exits with 0 if it is.
    Probe(ProbeArgs),
    /// Check the data of an import; exits with 0 if no documented rule is broken, 1 if one is, and 2 if the data can't be
    /// checked.
    Check(CheckArgs),
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A CSV file, a directory of CSV files, or a location in S3 such as s3://bucket/folder/.
    #[arg(value_name = "FILE|DIR|s3://…")]
    pub location: String,

    /// The schema of the dataset: a file with its Avro JSON, the ARN of the schema, or the ARN of the dataset.
    #[arg(long, value_name = "FILE|ARN")]
    pub schema: String,

    /// The type of the dataset [default: as the schema says].
    #[arg(long = "type")]
    pub dataset_type: Option<DatasetType>,

    /// The domain of the dataset group: ECOMMERCE or VIDEO_ON_DEMAND [default: none, or that of the schema in AWS].
    #[arg(long)]
    pub domain: Option<Domain>,

    /// The import mode.
    #[arg(long, default_value = "FULL", ignore_case = true)]
    pub import_mode: ImportMode,

    /// Read the first and last rows of each file and a sample in between, as the operator does; the default for S3.
    #[arg(long, conflicts_with = "full")]
    pub sample: bool,

    /// Read every byte; the default for local files.
    #[arg(long)]
    pub full: bool,

    /// The format of the output.
    #[arg(long, default_value = "text")]
    pub output: OutputFormat,
}

/// A format of the output of `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people; coloured on a terminal.
    Text,
    /// One JSON object.
    Json,
}

impl ValueEnum for ImportMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Full, Self::Incremental]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

impl ValueEnum for Preflight {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Off, Self::Warn, Self::Enforce]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Off => PossibleValue::new("off").help("It is not checked"),
            Self::Warn => PossibleValue::new("warn").help("It is imported whatever the check finds"),
            Self::Enforce => PossibleValue::new("enforce").help("It is not imported while it breaks a rule"),
        })
    }
}

/// Flags of `probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// The URL to request; any status but 2xx is a failure.
    #[arg(default_value = "http://127.0.0.1:8080/readyz")]
    pub url: http::Uri,

    /// How long to repeat the request until it succeeds.
    #[arg(long, env = "PERSONALIZE_OPERATOR_PROBE_TIMEOUT", default_value = "5s", value_parser = probe_timeout)]
    pub timeout: Duration,
}

impl ValueEnum for DefaultPolicy {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Allow, Self::Deny]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Allow => PossibleValue::new("open").help("Everything"),
            Self::Deny => PossibleValue::new("closed").help("Nothing"),
        })
    }
}

impl ValueEnum for QueueOrder {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::OldestFirst, Self::FairShares]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::OldestFirst => PossibleValue::new("oldest-first").help("The oldest, whatever its namespace"),
            Self::FairShares => {
                PossibleValue::new("namespaces-in-turn").help("Each namespace gets its share, by weight")
            }
        })
    }
}

/// Flags of `run`.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct RunArgs {
    /// Namespaces to watch, separated by commas [default: all].
    #[arg(long, env = "PERSONALIZE_OPERATOR_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// The address of the listener for /healthz, /readyz, /metrics and /queue.
    #[arg(long, env = "PERSONALIZE_OPERATOR_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// The log level, in the syntax of tracing's EnvFilter, such as info or personalize_operator=debug.
    #[arg(long, env = "PERSONALIZE_OPERATOR_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// The format of the log.
    #[arg(long, env = "PERSONALIZE_OPERATOR_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,

    /// The maximum number of resources of one account and region reconciled at once; half of it for one namespace.
    #[arg(long, env = "PERSONALIZE_OPERATOR_CONCURRENCY", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub concurrency: u16,

    /// Whether namespaces without allow-list annotations may import everything (open) or nothing (closed).
    #[arg(long, env = "PERSONALIZE_OPERATOR_UNLISTED_NAMESPACES", default_value = "open")]
    pub unlisted_namespaces: DefaultPolicy,

    /// How long reconciles in progress may take to finish after SIGTERM; keep it below the pod's grace period.
    #[arg(long, env = "PERSONALIZE_OPERATOR_DRAIN_TIMEOUT", default_value = "20s", value_parser = duration)]
    pub drain_timeout: Duration,

    /// Flags for leader election.
    #[command(flatten)]
    pub election: ElectionArgs,

    /// Flags for imports.
    #[command(flatten)]
    pub imports: ImportArgs,

    /// Flags for Kubernetes.
    #[command(flatten)]
    pub kube: KubeArgs,

    /// Flags for AWS.
    #[command(flatten)]
    pub aws: AwsArgs,
}

/// Flags for leader election.
#[derive(Debug, Args)]
#[command(next_help_heading = "Leader election")]
pub struct ElectionArgs {
    /// Whether replicas elect a leader; disable it only if there is never more than one replica.
    #[arg(long, env = "PERSONALIZE_OPERATOR_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// The namespace of the Lease [default: the pod's namespace, or that of the kubeconfig context].
    #[arg(long, env = "PERSONALIZE_OPERATOR_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// The name of the Lease.
    #[arg(long, env = "PERSONALIZE_OPERATOR_LEASE_NAME", default_value = "personalize-operator", value_parser = NonEmptyStringValueParser::new())]
    pub lease_name: String,

    /// How long the Lease is valid after a renewal, in whole seconds.
    #[arg(long, env = "PERSONALIZE_OPERATOR_LEASE_DURATION", default_value = "15s", value_parser = lease_duration)]
    pub lease_duration: Duration,

    /// The unique name of this replica [default: $POD_NAME, or the host name with a number].
    #[arg(long, env = "PERSONALIZE_OPERATOR_IDENTITY")]
    pub identity: Option<String>,
}

/// Flags for imports.
#[derive(Debug, Args)]
#[command(next_help_heading = "Imports")]
pub struct ImportArgs {
    /// The maximum number of running imports per AWS account and region; the service's quota is 5.
    #[arg(long, env = "PERSONALIZE_OPERATOR_MAX_IN_FLIGHT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_in_flight: u16,

    /// In which order waiting imports of an account and region are submitted; per dataset it is always by age.
    #[arg(long, env = "PERSONALIZE_OPERATOR_QUEUE_ORDER", default_value = "oldest-first")]
    pub queue_order: QueueOrder,

    /// Whether data is checked before its import, unless spec.preflight says otherwise; it needs to read S3.
    #[arg(long, env = "PERSONALIZE_OPERATOR_PREFLIGHT", default_value = "warn", ignore_case = true)]
    pub preflight: Preflight,

    /// The minimum interval between two polls of a running import.
    #[arg(long, env = "PERSONALIZE_OPERATOR_POLL_MIN", default_value = "15s", value_parser = duration)]
    pub poll_min: Duration,

    /// The maximum interval between two polls of a running import.
    #[arg(long, env = "PERSONALIZE_OPERATOR_POLL_MAX", default_value = "5m", value_parser = duration)]
    pub poll_max: Duration,

    /// How long after a submission without an answer its job may still appear; at least 2s.
    #[arg(long, env = "PERSONALIZE_OPERATOR_GRACE", default_value = "60s", value_parser = grace)]
    pub grace: Duration,

    /// The first delay after a transient failure; it doubles with each further failure.
    #[arg(long, env = "PERSONALIZE_OPERATOR_BACKOFF_MIN", default_value = "5s", value_parser = duration)]
    pub backoff_min: Duration,

    /// The maximum delay after transient failures.
    #[arg(long, env = "PERSONALIZE_OPERATOR_BACKOFF_MAX", default_value = "5m", value_parser = duration)]
    pub backoff_max: Duration,

    /// The first delay after the service rejected an import; it doubles with each further rejection.
    #[arg(long, env = "PERSONALIZE_OPERATOR_REJECTED_MIN", default_value = "2m", value_parser = duration)]
    pub rejected_min: Duration,

    /// The maximum delay after rejections.
    #[arg(long, env = "PERSONALIZE_OPERATOR_REJECTED_MAX", default_value = "1h", value_parser = duration)]
    pub rejected_max: Duration,

    /// The delay between a failed job and its first retry within backoffLimit; it doubles with each retry.
    #[arg(long, env = "PERSONALIZE_OPERATOR_RETRY_MIN", default_value = "10s", value_parser = duration)]
    pub retry_min: Duration,
}

/// Flags for Kubernetes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct KubeArgs {
    /// The timeout of each call to the Kubernetes API.
    #[arg(long, env = "PERSONALIZE_OPERATOR_KUBE_TIMEOUT", default_value = "15s", value_parser = duration)]
    pub kube_timeout: Duration,

    /// The duration of a watch before it is renewed; a dead connection is detected soon after.
    #[arg(long, env = "PERSONALIZE_OPERATOR_WATCH_TIMEOUT", default_value = "60s", value_parser = watch_timeout)]
    pub watch_timeout: Duration,
}

/// Flags for AWS.
#[derive(Debug, Args)]
#[command(next_help_heading = "AWS (credentials and endpoint come from the SDK's default chain)")]
pub struct AwsArgs {
    /// The timeout of connecting to AWS.
    #[arg(long, env = "PERSONALIZE_OPERATOR_AWS_CONNECT_TIMEOUT", default_value = "5s", value_parser = duration)]
    pub aws_connect_timeout: Duration,

    /// The timeout of waiting for an answer of AWS.
    #[arg(long, env = "PERSONALIZE_OPERATOR_AWS_READ_TIMEOUT", default_value = "20s", value_parser = duration)]
    pub aws_read_timeout: Duration,

    /// The timeout of a whole call to AWS.
    #[arg(long, env = "PERSONALIZE_OPERATOR_AWS_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub aws_timeout: Duration,

    /// The maximum number of calls per second to each account and region; throttling lowers it for a while.
    #[arg(long, env = "PERSONALIZE_OPERATOR_AWS_CALLS_PER_SECOND", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub aws_calls_per_second: u16,

    /// Roles to assume for other accounts than the operator's, as ACCOUNT=ROLE_ARN, separated by commas.
    #[arg(long, env = "PERSONALIZE_OPERATOR_ACCOUNT_ROLES", value_parser = account_roles)]
    pub account_roles: Vec<AccountRoles>,

    /// The ConfigMap with the roles and settings of accounts, in the namespace of the Lease; its changes act at once, and its accounts override --account-roles.
    #[arg(long, env = "PERSONALIZE_OPERATOR_ACCOUNTS_CONFIG_MAP")]
    pub accounts_config_map: Option<String>,
}

/// Accounts and their roles.
#[derive(Debug, Clone)]
pub struct AccountRoles(Vec<(String, String)>);

/// A duration in a range, or else this error.
fn duration_in(text: &str, range: RangeInclusive<Duration>, error: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|e| e.to_string())?;
    if range.contains(&duration) { Ok(duration) } else { Err(error.into()) }
}

/// Rejects a zero delay, which would be a busy loop, and one that overflows when it is doubled.
fn duration(text: &str) -> Result<Duration, String> {
    let error = "must be a duration from 1ms to 366days, such as 500ms, 30s or 5m";
    duration_in(text, Duration::from_millis(1)..=MAX_DURATION, error)
}

/// An intent has whole seconds, and its create is sent within half of the grace period: with less than 2 s that may be
/// over before it begins.
fn grace(text: &str) -> Result<Duration, String> {
    let error = "must be a duration from 2s to 366days, such as 60s: an import is submitted in the first half of it";
    duration_in(text, Duration::from_secs(2)..=MAX_DURATION, error)
}

/// Zero means one request.
fn probe_timeout(text: &str) -> Result<Duration, String> {
    duration_in(text, Duration::ZERO..=MAX_DURATION, "must be a duration of at most 366days, such as 5s")
}

fn lease_duration(text: &str) -> Result<Duration, String> {
    let error = "must be 1 to 3600 whole seconds, such as 15s";
    let duration = duration_in(text, Duration::from_secs(1)..=Duration::from_secs(3600), error)?;
    if duration.subsec_nanos() == 0 { Ok(duration) } else { Err(error.into()) }
}

fn watch_timeout(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|e| e.to_string())?;
    if (1..=290).contains(&duration.as_secs()) {
        Ok(duration)
    } else {
        Err("must be a duration from 1s to 290s".into())
    }
}

/// An empty variable means the same as one that is not set: no roles.
fn account_roles(text: &str) -> Result<AccountRoles, String> {
    text.split(',')
        .map(str::trim)
        .filter(|role| !role.is_empty())
        .map(account_role)
        .collect::<Result<_, _>>()
        .map(AccountRoles)
}

fn account_role(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((account, role))
            if account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) && role.starts_with("arn:") =>
        {
            Ok((account.into(), role.into()))
        }
        _ => Err("must be like 123456789012=arn:aws:iam::123456789012:role/Importer".into()),
    }
}

/// The trimmed text; `None` if it is empty.
fn non_empty(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

impl RunArgs {
    /// Checks what no single flag shows.
    ///
    /// # Errors
    /// What is wrong, with the flag.
    pub fn check(&self) -> Result<(), String> {
        let mut roles = BTreeMap::new();
        for (account, role) in self.aws.account_roles.iter().flat_map(|roles| &roles.0) {
            if let Some(other) = roles.insert(account, role).filter(|other| *other != role) {
                return Err(format!(
                    "--account-roles names two roles of account {account}: {other} and {role}; remove one"
                ));
            }
        }
        Ok(())
    }

    /// The settings of the controller. The Lease is in `own_namespace` unless a flag names another.
    #[must_use]
    pub fn options(&self, own_namespace: &str) -> Options {
        let identity = self.identity();
        let namespace = non_empty(self.election.lease_namespace.as_deref()).unwrap_or(own_namespace);
        let election = self.election.leader_elect.then(|| LeaderElectionOptions {
            namespace: namespace.into(),
            name: self.election.lease_name.clone(),
            identity: identity.clone(),
            duration: self.election.lease_duration,
        });
        Options {
            namespaces: self.watch_namespaces.iter().filter_map(|n| non_empty(Some(n))).map(String::from).collect(),
            concurrency: self.concurrency,
            quota: self.imports.max_in_flight.into(),
            queue_order: self.imports.queue_order,
            timing: self.imports.timing(self.kube.watch_timeout),
            default_policy: self.unlisted_namespaces,
            kube_timeout: self.kube.kube_timeout,
            watch_timeout: self.kube.watch_timeout,
            drain_timeout: self.drain_timeout,
            preflight: self.imports.preflight,
            election,
            instance: identity,
            accounts: self.aws.accounts(namespace),
        }
    }

    /// The settings of the AWS client, which uses the roles of these accounts.
    #[must_use]
    pub fn aws_options(&self, accounts: Accounts) -> AwsOptions {
        let (aws, timing) = (&self.aws, self.imports.timing(self.kube.watch_timeout));
        AwsOptions {
            connect_timeout: aws.aws_connect_timeout,
            read_timeout: aws.aws_read_timeout,
            operation_timeout: aws.aws_timeout,
            accounts,
            limits: RateLimits {
                calls_per_second: aws.aws_calls_per_second.into(),
                max_wait: aws.aws_timeout,
                pause_min: timing.backoff_min,
                pause_max: timing.backoff_max,
                ..RateLimits::default()
            },
        }
    }

    fn identity(&self) -> String {
        let pod = || std::env::var("POD_NAME").ok().and_then(|name| non_empty(Some(&name)).map(String::from));
        let unique = || {
            let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".into());
            format!("{host}-{}-{}", std::process::id(), jiff::Timestamp::now().as_millisecond())
        };
        // Replicas with the same name, even an empty one, would all act as the leader.
        non_empty(self.election.identity.as_deref()).map(String::from).or_else(pod).unwrap_or_else(unique)
    }
}

impl AwsArgs {
    fn accounts(&self, namespace: &str) -> Accounts {
        let roles = self.account_roles.iter().flat_map(|roles| roles.0.iter().cloned()).collect();
        let config_map = non_empty(self.accounts_config_map.as_deref()).map(|name| format!("{namespace}/{name}"));
        Accounts::new(roles, config_map)
    }
}

impl ImportArgs {
    fn timing(&self, watch_timeout: Duration) -> Timing {
        Timing {
            poll_min: self.poll_min,
            poll_max: self.poll_max.max(self.poll_min),
            grace: self.grace,
            backoff_min: self.backoff_min,
            backoff_max: self.backoff_max.max(self.backoff_min),
            rejected_min: self.rejected_min,
            rejected_max: self.rejected_max.max(self.rejected_min),
            retry_min: self.retry_min,
            // The watch triggers waiting resources; this is in case an event is missing.
            waiting: watch_timeout * 10,
        }
    }
}

#[cfg(test)]
mod tests;
