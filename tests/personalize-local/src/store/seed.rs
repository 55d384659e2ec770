//! What the stand-in knows when it starts: the YAML file given as `--seed`.

use serde::{Deserialize, Serialize};

use crate::{
    Operation, StartError,
    arn::Arn,
    constraints,
    job::{ACTIVE, FAILED, IN_PROGRESS, PENDING, Tag},
    schema::{self, Columns, Kind},
};

/// The seed file. Unknown keys are errors, so that a typo can't pass unnoticed.
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
    /// Permissions that are missing.
    pub refusals: Refusals,
    /// The request rate that an account is allowed; none unless given.
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
    /// Present for temporary credentials: the token that must come with each request.
    #[serde(default)]
    pub session_token: Option<String>,
    /// When temporary credentials end (RFC 3339).
    #[serde(default)]
    pub expires_at: Option<jiff::Timestamp>,
}

/// A dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dataset {
    /// `arn:aws:personalize:REGION:ACCOUNT:dataset/GROUP/TYPE`
    pub arn: String,
    /// `Interactions`, `Users`, `Items`, `Actions`; the last part of the ARN unless given.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// `ACTIVE` unless given.
    #[serde(default = "active")]
    pub status: String,
    /// The Avro schema, as a YAML mapping or a JSON string. Without one, a minimal schema of the type.
    #[serde(default)]
    pub schema: Option<serde_json::Value>,
    /// The schema's ARN; derived from the group and type unless given.
    #[serde(default)]
    pub schema_arn: Option<String>,
    /// Tags of the dataset.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// When it was created (RFC 3339); the start of the stand-in unless given.
    #[serde(default)]
    pub created_at: Option<jiff::Timestamp>,
}

impl Dataset {
    /// A dataset of this ARN, ACTIVE, with a minimal schema.
    pub fn new(arn: impl Into<String>) -> Self {
        Self {
            arn: arn.into(),
            kind: None,
            status: active(),
            schema: None,
            schema_arn: None,
            tags: Vec::new(),
            created_at: None,
        }
    }

    /// Its type as answers spell it: given, or the last part of the ARN.
    pub(crate) fn type_name(&self) -> String {
        let last = || schema::type_name(self.arn.rsplit('/').next().unwrap_or_default());
        self.kind.clone().unwrap_or_else(last)
    }

    /// Its Avro schema: given, or the least that its type may have.
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
    /// The dataset it imports into; gives the region and the account.
    pub dataset_arn: String,
    /// A job in `CREATE PENDING` goes on from there. `ACTIVE` unless given.
    #[serde(default = "active")]
    pub status: String,
    /// Where its data lies.
    #[serde(default = "elsewhere")]
    pub data_location: String,
    /// The role it reads with.
    #[serde(default)]
    pub role_arn: Option<String>,
    /// `FULL` unless given.
    #[serde(default)]
    pub import_mode: Option<String>,
    /// Why it failed.
    #[serde(default)]
    pub failure_reason: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// When it was created (RFC 3339); the start of the stand-in unless given.
    #[serde(default)]
    pub created_at: Option<jiff::Timestamp>,
    /// Stays where it is until told.
    #[serde(default)]
    pub hold: bool,
}

impl SeedJob {
    /// A finished job of this name, with defaults for the rest.
    pub fn new(name: impl Into<String>, dataset_arn: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            dataset_arn: dataset_arn.into(),
            status: active(),
            data_location: elsewhere(),
            role_arn: None,
            import_mode: None,
            failure_reason: None,
            tags: Vec::new(),
            created_at: None,
            hold: false,
        }
    }
}

impl SeedJob {
    /// A job in the seed is one that the service could have: the constraints of a request, and a status that it has.
    fn check(&self) -> Result<(), String> {
        let body = serde_json::json!({
            "jobName": self.name, "datasetArn": self.dataset_arn, "dataSource": {"dataLocation": self.data_location},
            "roleArn": self.role_arn, "importMode": self.import_mode, "tags": self.tags,
        });
        let input = Operation::named("CreateDatasetImportJob").map_or(&[][..], |operation| operation.input);
        let violations = constraints::check(input, &body).map_err(|wrong| wrong.0)?;
        if let Some(violation) = violations.first() {
            return Err(violation.to_string());
        }
        if ![PENDING, IN_PROGRESS, ACTIVE, FAILED].contains(&self.status.as_str()) {
            return Err(format!("{:?} is no status of an import job", self.status));
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

/// Permissions that are missing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Refusals {
    /// Roles (ARN) that callers may not pass: AccessDeniedException on create.
    pub pass_role: Vec<String>,
    /// Buckets whose policy does not let the service read: the import fails.
    pub buckets: Vec<String>,
    /// Buckets of this kind that are found out at once: InvalidInputException on create.
    pub buckets_at_create: Vec<String>,
    /// Whether a role of another account than the caller's is refused: AccessDeniedException on create.
    pub roles_of_other_accounts: bool,
}

/// The request rate that one account and region is allowed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Throttle {
    /// Requests per second in the long run.
    pub per_second: f64,
    /// Requests at once.
    pub burst: f64,
    /// The error that one too many meets: `ThrottlingException` unless given. The service model describes
    /// `LimitExceededException` as this, too.
    #[serde(default = "throttling")]
    pub code: String,
}

impl Throttle {
    fn lets_pass(&self) -> bool {
        let Self { per_second, burst, .. } = self;
        per_second.is_finite() && burst.is_finite() && *per_second >= 0.0 && *burst >= 1.0
    }
}

fn throttling() -> String {
    "ThrottlingException".to_owned()
}

fn active() -> String {
    "ACTIVE".to_owned()
}

fn elsewhere() -> String {
    "s3://elsewhere/data.csv".to_owned()
}

impl Seed {
    /// Reads a seed and checks that it hangs together: twelve-digit accounts, ARNs of the service, known accounts.
    ///
    /// # Errors
    /// When the YAML is not a seed, or contradicts itself.
    pub fn from_yaml(text: &str) -> Result<Self, StartError> {
        let seed: Self = serde_yaml::from_str(text)?;
        seed.check()?;
        Ok(seed)
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let mut keys: Vec<&str> = Vec::new();
        for key in self.accounts.iter().flat_map(|account| &account.access_keys) {
            if keys.contains(&key.id.as_str()) {
                return Err(StartError::SeedContent(format!("access key {} is there twice", key.id)));
            }
            keys.push(&key.id);
        }
        for account in &self.accounts {
            if account.id.len() != 12 || !account.id.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(StartError::SeedContent(format!("account id {:?} is not twelve digits", account.id)));
            }
        }
        let arns = self.datasets.iter().map(|d| &d.arn).chain(self.jobs.iter().map(|j| &j.dataset_arn));
        for arn in arns {
            let parsed = Arn::parse(arn)
                .filter(|parsed| parsed.resource.starts_with("dataset/"))
                .ok_or_else(|| StartError::SeedContent(format!("{arn:?} is not a dataset ARN")))?;
            if !self.accounts.iter().any(|account| account.id == parsed.account) {
                return Err(StartError::SeedContent(format!("{arn:?} is in an account that the seed lacks")));
            }
        }
        for job in &self.jobs {
            job.check().map_err(|problem| StartError::SeedContent(format!("job {:?}: {problem}", job.name)))?;
        }
        if !self.throttle.as_ref().is_none_or(Throttle::lets_pass) {
            let problem = "throttle: perSecond is at least 0, and burst at least 1, or no request would ever pass";
            return Err(StartError::SeedContent(problem.to_owned()));
        }
        for dataset in &self.datasets {
            let refused = |problem| StartError::SeedContent(format!("schema of {}: {problem}", dataset.arn));
            Columns::parse(&dataset.schema_text(), Kind::of(&dataset.type_name())).map_err(refused)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Seed;

    #[test]
    fn a_typo_in_the_seed_is_an_error() {
        assert!(Seed::from_yaml("acounts: []").is_err());
    }

    #[test]
    fn an_access_key_belongs_to_one_account() {
        let account = |id: &str| format!("{{id: '{id}', accessKeys: [{{id: K, secret: s}}]}}");
        let seed = format!("accounts: [{}, {}]", account("111122223333"), account("444455556666"));
        assert!(Seed::from_yaml(&seed).unwrap_err().to_string().contains("access key K is there twice"));
    }

    #[test]
    fn a_job_in_the_seed_is_one_that_the_service_could_have() {
        let with = |job: &str| {
            let arn = "arn:aws:personalize:eu-west-1:111122223333:dataset/shop/ITEMS";
            Seed::from_yaml(&format!("accounts: [{{id: '111122223333'}}]\njobs: [{{datasetArn: '{arn}', {job}}}]"))
        };
        assert!(with("name: a, status: CREATE PENDING, importMode: INCREMENTAL").is_ok());
        for (job, words) in [
            ("name: 'bad name!'", "at 'jobName' failed to satisfy constraint"),
            ("name: a, importMode: BULK", "enum value set: [FULL, INCREMENTAL]"),
            ("name: a, status: WHATEVER", "\"WHATEVER\" is no status of an import job"),
            ("name: a, dataLocation: 'ftp://x'", "at 'dataSource.dataLocation'"),
            ("name: a, roleArn: me", "at 'roleArn'"),
        ] {
            let told = with(job).unwrap_err().to_string();
            assert!(told.contains(words), "{job}: {told}");
        }
    }

    #[test]
    fn a_throttle_lets_something_pass() {
        let with = |rule: &str| Seed::from_yaml(&format!("throttle: {rule}"));
        assert!(with("{perSecond: 0.5, burst: 1}").is_ok());
        for rule in ["{perSecond: 5, burst: 0.5}", "{perSecond: -1, burst: 1}", "{perSecond: .nan, burst: 1}"] {
            assert!(with(rule).unwrap_err().to_string().contains("burst at least 1"), "{rule}");
        }
    }

    #[test]
    fn a_dataset_needs_its_account() {
        let seed = "datasets: [{arn: 'arn:aws:personalize:eu-west-1:111122223333:dataset/shop/ITEMS'}]";
        assert!(Seed::from_yaml(seed).unwrap_err().to_string().contains("seed lacks"));
    }
}
