//! The seed: accounts, datasets and jobs that exist at the start, from the YAML file in `--seed`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::job::{ACTIVE, FAILED, IN_PROGRESS, PENDING, Tag};
use crate::{
    Operation, StartError,
    api::constraints,
    arn::Arn,
    data::schema::{self, Columns, DatasetType},
};

/// The seed file. Unknown keys are errors, so that typos are found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Seed {
    /// The accounts that can sign requests.
    pub accounts: Vec<Account>,
    /// The datasets that exist.
    pub datasets: Vec<Dataset>,
    /// The import jobs that exist.
    pub jobs: Vec<SeedJob>,
    /// How long a job stays in each state.
    pub durations: Durations,
    /// Access that is denied.
    pub refusals: Refusals,
    /// The rate limit; no limit if absent.
    pub throttle: Option<Throttle>,
}

/// An AWS account.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Account {
    /// Twelve digits (quote them in YAML).
    pub id: String,
    /// Its access keys.
    #[serde(default)]
    pub access_keys: Vec<AccessKey>,
}

/// A long-term or a temporary access key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessKey {
    /// The access key ID.
    pub id: String,
    /// The secret access key.
    pub secret: String,
    /// The session token of temporary credentials; requests must send it.
    #[serde(default)]
    pub session_token: Option<String>,
    /// When temporary credentials expire (RFC 3339).
    #[serde(default)]
    pub expires_at: Option<jiff::Timestamp>,
}

/// A dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dataset {
    /// `arn:aws:personalize:REGION:ACCOUNT:dataset/GROUP/TYPE`
    pub arn: String,
    /// `Interactions`, `Users`, `Items`, `Actions` or `Action_Interactions`; default: from the last part of the ARN.
    #[serde(default, rename = "type")]
    pub dataset_type: Option<String>,
    /// Default: `ACTIVE`.
    #[serde(default = "default_status")]
    pub status: String,
    /// The Avro schema, as a YAML mapping or a JSON string; default: a minimal schema of the type.
    #[serde(default)]
    pub schema: Option<serde_json::Value>,
    /// The ARN of the schema; default: derived from the dataset group and type.
    #[serde(default)]
    pub schema_arn: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// When it was created (RFC 3339); default: now.
    #[serde(default)]
    pub created_at: Option<jiff::Timestamp>,
}

impl Dataset {
    /// An ACTIVE dataset with this ARN and a minimal schema.
    pub fn new(arn: impl Into<String>) -> Self {
        Self {
            arn: arn.into(),
            dataset_type: None,
            status: default_status(),
            schema: None,
            schema_arn: None,
            tags: Vec::new(),
            created_at: None,
        }
    }

    /// Its type, as API responses spell it.
    pub(crate) fn type_name(&self) -> String {
        let from_arn = || schema::type_name(self.arn.rsplit('/').next().unwrap_or_default());
        self.dataset_type.clone().unwrap_or_else(from_arn)
    }

    /// Its Avro schema as JSON.
    pub(crate) fn schema_text(&self) -> String {
        match &self.schema {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => schema::minimal(&self.type_name()),
        }
    }
}

/// An import job that exists at the start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeedJob {
    /// The job's name.
    pub name: String,
    /// The dataset it imports into; also determines the region and the account.
    pub dataset_arn: String,
    /// A running job continues from this status. Default: `ACTIVE`.
    #[serde(default = "default_status")]
    pub status: String,
    /// The S3 location of its data.
    #[serde(default = "default_location")]
    pub data_location: String,
    /// The role that the service assumes to read the data.
    #[serde(default)]
    pub role_arn: Option<String>,
    /// Default: `FULL`.
    #[serde(default)]
    pub import_mode: Option<String>,
    /// The `failureReason` of a failed job.
    #[serde(default)]
    pub failure_reason: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// When it was created (RFC 3339); default: now.
    #[serde(default)]
    pub created_at: Option<jiff::Timestamp>,
    /// Stays in its status until released or finished.
    #[serde(default)]
    pub hold: bool,
}

impl SeedJob {
    /// An ACTIVE job with this name, and defaults for the rest.
    pub fn new(name: impl Into<String>, dataset_arn: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            dataset_arn: dataset_arn.into(),
            status: default_status(),
            data_location: default_location(),
            role_arn: None,
            import_mode: None,
            failure_reason: None,
            tags: Vec::new(),
            created_at: None,
            hold: false,
        }
    }

    /// Checks the constraints of a create request, and the status.
    fn validate(&self) -> Result<(), String> {
        let body = serde_json::json!({
            "jobName": self.name, "datasetArn": self.dataset_arn, "dataSource": {"dataLocation": self.data_location},
            "roleArn": self.role_arn, "importMode": self.import_mode, "tags": self.tags,
        });
        let input = Operation::find("CreateDatasetImportJob").map_or(&[][..], |operation| operation.input);
        let violations = constraints::check(input, &body).map_err(|wrong| wrong.0)?;
        if let Some(violation) = violations.first() {
            return Err(violation.to_string());
        }
        if ![PENDING, IN_PROGRESS, ACTIVE, FAILED].contains(&self.status.as_str()) {
            return Err(format!("{:?} is not a status of an import job", self.status));
        }
        Ok(())
    }
}

/// How long a job stays in `CREATE PENDING` and in `CREATE IN_PROGRESS`, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Durations {
    /// Milliseconds in `CREATE PENDING`.
    pub pending_ms: u64,
    /// Milliseconds in `CREATE IN_PROGRESS`.
    pub in_progress_ms: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { pending_ms: 1_000, in_progress_ms: 2_000 }
    }
}

/// Access that is denied.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Refusals {
    /// ARNs of roles that callers may not pass: AccessDeniedException on create.
    pub pass_role: Vec<String>,
    /// Buckets that the service can't read: the import fails.
    pub buckets: Vec<String>,
    /// Buckets that the service can't read, detected on create: InvalidInputException.
    pub buckets_at_create: Vec<String>,
    /// Whether roles of other accounts are rejected: AccessDeniedException on create.
    pub roles_of_other_accounts: bool,
    /// By the ARN of a role: the external ID that its trust policy demands of AssumeRole.
    pub external_ids: BTreeMap<String, String>,
    /// ARNs of roles whose trust policy does not allow session tags.
    pub session_tags: Vec<String>,
}

/// The rate limit, per account and region.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Throttle {
    /// Sustained requests per second.
    pub per_second: f64,
    /// Burst size; at least 1.
    pub burst: f64,
    /// The error code of a throttled request. Default: `ThrottlingException`. The service model also describes
    /// `LimitExceededException` as this error.
    #[serde(default = "default_throttle_code")]
    pub code: String,
}

impl Throttle {
    fn is_valid(&self) -> bool {
        let Self { per_second, burst, .. } = self;
        per_second.is_finite() && burst.is_finite() && *per_second >= 0.0 && *burst >= 1.0
    }
}

fn default_throttle_code() -> String {
    "ThrottlingException".to_owned()
}

fn default_status() -> String {
    "ACTIVE".to_owned()
}

fn default_location() -> String {
    "s3://elsewhere/data.csv".to_owned()
}

impl Seed {
    /// Parses and validates a seed.
    ///
    /// # Errors
    /// If the YAML is not a seed, or its content is invalid.
    pub fn from_yaml(text: &str) -> Result<Self, StartError> {
        let seed: Self = serde_yaml::from_str(text)?;
        seed.validate()?;
        Ok(seed)
    }

    pub(crate) fn validate(&self) -> Result<(), StartError> {
        let mut keys: Vec<&str> = Vec::new();
        for key in self.accounts.iter().flat_map(|account| &account.access_keys) {
            if keys.contains(&key.id.as_str()) {
                return Err(StartError::SeedContent(format!("access key {} is declared twice", key.id)));
            }
            keys.push(&key.id);
        }
        for account in &self.accounts {
            if account.id.len() != 12 || !account.id.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(StartError::SeedContent(format!(
                    "account id {:?} does not have twelve digits",
                    account.id
                )));
            }
        }
        let arns = self.datasets.iter().map(|d| &d.arn).chain(self.jobs.iter().map(|j| &j.dataset_arn));
        for arn in arns {
            let parsed = Arn::parse(arn)
                .filter(|parsed| parsed.resource.starts_with("dataset/"))
                .ok_or_else(|| StartError::SeedContent(format!("{arn:?} is not a dataset ARN")))?;
            if !self.accounts.iter().any(|account| account.id == parsed.account) {
                return Err(StartError::SeedContent(format!(
                    "{arn:?} is in an account that the seed does not declare"
                )));
            }
        }
        for job in &self.jobs {
            job.validate().map_err(|problem| StartError::SeedContent(format!("job {:?}: {problem}", job.name)))?;
        }
        if !self.throttle.as_ref().is_none_or(Throttle::is_valid) {
            let problem = "throttle: perSecond must be at least 0, and burst at least 1";
            return Err(StartError::SeedContent(problem.to_owned()));
        }
        for dataset in &self.datasets {
            let invalid = |problem| StartError::SeedContent(format!("schema of {}: {problem}", dataset.arn));
            Columns::parse(&dataset.schema_text(), DatasetType::from_name(&dataset.type_name())).map_err(invalid)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Seed;

    #[test]
    fn seed_with_unknown_key_is_rejected() {
        assert!(Seed::from_yaml("acounts: []").is_err());
    }

    #[test]
    fn access_key_in_two_accounts_is_rejected() {
        let account = |id: &str| format!("{{id: '{id}', accessKeys: [{{id: K, secret: s}}]}}");
        let seed = format!("accounts: [{}, {}]", account("111122223333"), account("444455556666"));
        assert!(Seed::from_yaml(&seed).unwrap_err().to_string().contains("access key K is declared twice"));
    }

    #[test]
    fn seed_job_that_breaks_a_constraint_is_rejected() {
        let with = |job: &str| {
            let arn = "arn:aws:personalize:eu-west-1:111122223333:dataset/shop/ITEMS";
            Seed::from_yaml(&format!("accounts: [{{id: '111122223333'}}]\njobs: [{{datasetArn: '{arn}', {job}}}]"))
        };
        assert!(with("name: a, status: CREATE PENDING, importMode: INCREMENTAL").is_ok());
        for (job, message) in [
            ("name: 'bad name!'", "at 'jobName' failed to satisfy constraint"),
            ("name: a, importMode: BULK", "enum value set: [FULL, INCREMENTAL]"),
            ("name: a, status: WHATEVER", "\"WHATEVER\" is not a status of an import job"),
            ("name: a, dataLocation: 'ftp://x'", "at 'dataSource.dataLocation'"),
            ("name: a, roleArn: me", "at 'roleArn'"),
        ] {
            let error = with(job).unwrap_err().to_string();
            assert!(error.contains(message), "{job}: {error}");
        }
    }

    #[test]
    fn throttle_that_admits_no_request_is_rejected() {
        let with = |rule: &str| Seed::from_yaml(&format!("throttle: {rule}"));
        assert!(with("{perSecond: 0.5, burst: 1}").is_ok());
        for rule in ["{perSecond: 5, burst: 0.5}", "{perSecond: -1, burst: 1}", "{perSecond: .nan, burst: 1}"] {
            assert!(with(rule).unwrap_err().to_string().contains("burst at least 1"), "{rule}");
        }
    }

    #[test]
    fn dataset_in_undeclared_account_is_rejected() {
        let seed = "datasets: [{arn: 'arn:aws:personalize:eu-west-1:111122223333:dataset/shop/ITEMS'}]";
        assert!(Seed::from_yaml(seed).unwrap_err().to_string().contains("seed does not declare"));
    }
}
