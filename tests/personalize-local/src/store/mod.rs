//! The state of the stand-in: accounts, datasets and jobs, plus faults and the ledger.

pub(crate) mod deletion;
pub(crate) mod job;
pub(crate) mod ledger;
pub(crate) mod seed;
pub(crate) mod state_file;

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    StartError,
    api::throttle::RateLimiter,
    arn::Arn,
    data::schema::{Columns, DatasetType},
    fault::Fault,
};
use deletion::{DELETION_PENDING, DeletionJob};
use job::{FAILED, Job, Outcome, Tag};
use ledger::Ledger;
use seed::{AccessKey, Dataset, Durations, Refusals, Seed, SeedJob};
use state_file::StateFile;

/// A dataset, with the defaults of the seed filled in.
#[derive(Debug, Clone)]
pub(crate) struct StoredDataset {
    pub(crate) arn: String,
    pub(crate) parsed_arn: Arn,
    /// `Interactions`, `Users`, `Items`, ...
    pub(crate) type_name: String,
    pub(crate) status: String,
    /// The Avro schema as JSON.
    pub(crate) schema: String,
    pub(crate) schema_arn: String,
    pub(crate) tags: Vec<Tag>,
    pub(crate) created_ms: i64,
    pub(crate) updated_ms: i64,
    /// The declaration of a dataset that was added after the seed; the state file needs it.
    pub(crate) added: Option<Dataset>,
}

/// An access key and the identity it belongs to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Principal {
    pub(crate) account: String,
    /// The ARN in error messages.
    pub(crate) arn: String,
    pub(crate) key: AccessKey,
    /// Issued by an STS while the stand-in ran, so not in the seed.
    #[serde(rename = "learnt")]
    pub(crate) issued_by_sts: bool,
    /// The tags of the session.
    #[serde(default)]
    pub(crate) session_tags: BTreeMap<String, String>,
}

/// The whole state of the stand-in.
#[derive(Debug)]
pub(crate) struct Store {
    /// By access key ID.
    pub(crate) principals: HashMap<String, Principal>,
    pub(crate) accounts: Vec<String>,
    pub(crate) datasets: Vec<StoredDataset>,
    /// In the order of creation.
    pub(crate) jobs: Vec<Job>,
    /// In the order of creation.
    pub(crate) deletions: Vec<DeletionJob>,
    /// ARNs of jobs that a fault removed, so that a restart does not add them again from the seed.
    pub(crate) vanished: Vec<String>,
    /// Jobs whose name contains one of these are held.
    pub(crate) holds: Vec<String>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) durations: Durations,
    pub(crate) refusals: Refusals,
    pub(crate) rate_limiter: RateLimiter,
    pub(crate) ledger: Ledger,
    /// Counts changes, so that the state file is written only after a change.
    pub(crate) revision: u64,
    pub(crate) state_file: Option<StateFile>,
    pub(crate) requests: u64,
}

impl Store {
    pub(crate) fn new(seed: &Seed, ledger: Ledger, now_ms: i64) -> Result<Self, StartError> {
        seed.validate()?;
        let mut store = Self {
            principals: HashMap::new(),
            accounts: seed.accounts.iter().map(|account| account.id.clone()).collect(),
            datasets: Vec::new(),
            jobs: Vec::new(),
            deletions: Vec::new(),
            vanished: Vec::new(),
            holds: Vec::new(),
            faults: Vec::new(),
            durations: seed.durations,
            refusals: seed.refusals.clone(),
            rate_limiter: RateLimiter::new(seed.throttle.clone()),
            ledger,
            revision: 0,
            state_file: None,
            requests: 0,
        };
        for account in &seed.accounts {
            for key in &account.access_keys {
                let arn = format!("arn:aws:iam::{}:user/{}", account.id, key.id);
                let principal = Principal {
                    account: account.id.clone(),
                    arn,
                    key: key.clone(),
                    issued_by_sts: false,
                    session_tags: BTreeMap::new(),
                };
                store.principals.insert(key.id.clone(), principal);
            }
        }
        for dataset in &seed.datasets {
            store.put_dataset(dataset, now_ms).map_err(StartError::SeedContent)?;
        }
        for job in &seed.jobs {
            store.start_job(job, now_ms).map_err(StartError::SeedContent)?;
        }
        Ok(store)
    }

    /// Registers temporary credentials that an STS issued.
    pub(crate) fn add_temporary_key(
        &mut self,
        account: &str,
        arn: Option<String>,
        session_tags: BTreeMap<String, String>,
        key: AccessKey,
    ) {
        let arn = arn.unwrap_or_else(|| format!("arn:aws:iam::{account}:user/{}", key.id));
        if !self.accounts.iter().any(|known| known == account) {
            self.accounts.push(account.to_owned());
        }
        let principal = Principal { account: account.to_owned(), arn, key, issued_by_sts: true, session_tags };
        self.principals.insert(principal.key.id.clone(), principal);
        self.revision += 1;
    }

    /// Expires the temporary credentials of an account that an STS issued; `false` if there are none.
    pub(crate) fn expire_sessions(&mut self, account: &str, now: Timestamp) -> bool {
        let of_account = |principal: &&mut Principal| principal.issued_by_sts && principal.account == account;
        let mut sessions = self.principals.values_mut().filter(of_account).peekable();
        let found = sessions.peek().is_some();
        sessions.for_each(|session| session.key.expires_at = Some(now));
        self.revision += 1;
        found
    }

    pub(crate) fn dataset(&self, arn: &str) -> Option<&StoredDataset> {
        self.datasets.iter().find(|dataset| dataset.arn == arn)
    }

    /// Finds a job by ARN or name.
    pub(crate) fn job_mut(&mut self, name_or_arn: &str) -> Option<&mut Job> {
        self.revision += 1;
        self.jobs.iter_mut().rev().find(|job| job.arn == name_or_arn || job.name == name_or_arn)
    }

    /// Adds a dataset of the seed, or replaces the dataset with the same ARN.
    pub(crate) fn put_dataset(&mut self, dataset: &Dataset, now_ms: i64) -> Result<(), String> {
        let parsed_arn = Arn::parse(&dataset.arn)
            .filter(|arn| arn.resource.starts_with("dataset/"))
            .ok_or_else(|| format!("{:?} is not a dataset ARN", dataset.arn))?;
        let (type_name, schema) = (dataset.type_name(), dataset.schema_text());
        Columns::parse(&schema, DatasetType::from_name(&type_name))
            .map_err(|problem| format!("schema of {}: {problem}", dataset.arn))?;
        let schema_arn = dataset.schema_arn.clone().unwrap_or_else(|| {
            let Arn { partition, region, account, resource } = &parsed_arn;
            let name = resource.replacen("dataset/", "", 1).replace('/', "-").to_lowercase();
            format!("arn:{partition}:personalize:{region}:{account}:schema/{name}")
        });
        let created_ms = dataset.created_at.map_or(now_ms, |time| time.as_millisecond());
        self.datasets.retain(|known| known.arn != dataset.arn);
        self.datasets.push(StoredDataset {
            arn: dataset.arn.clone(),
            parsed_arn,
            type_name,
            status: dataset.status.clone(),
            schema,
            schema_arn,
            tags: dataset.tags.clone(),
            created_ms,
            updated_ms: created_ms,
            added: None,
        });
        self.revision += 1;
        Ok(())
    }

    /// Adds or replaces a dataset while the stand-in runs, so that the state file must contain it.
    pub(crate) fn add_dataset(&mut self, dataset: &Dataset, now_ms: i64) -> Result<(), String> {
        self.put_dataset(dataset, now_ms)?;
        if let Some(known) = self.datasets.last_mut() {
            known.added = Some(dataset.clone());
        }
        Ok(())
    }

    /// Starts a job for the seed or for a test, without the quota and the other rules of a request.
    pub(crate) fn start_job(&mut self, job: &SeedJob, now_ms: i64) -> Result<String, String> {
        let dataset =
            Arn::parse(&job.dataset_arn).ok_or_else(|| format!("{:?} is not a dataset ARN", job.dataset_arn))?;
        let arn = Arn::import_job(&dataset.region, &dataset.account, &job.name);
        if self.jobs.iter().any(|known| known.arn == arn) {
            return Err(format!("{arn} already exists"));
        }
        let created_ms = job.created_at.map_or(now_ms, |time| time.as_millisecond());
        let default_reason = "Failed to create a data import job.".to_owned();
        self.vanished.retain(|vanished| *vanished != arn);
        self.jobs.push(Job {
            name: job.name.clone(),
            arn: arn.clone(),
            account: dataset.account,
            region: dataset.region,
            dataset_arn: job.dataset_arn.clone(),
            data_location: job.data_location.clone(),
            role_arn: job.role_arn.clone(),
            import_mode: job.import_mode.clone().unwrap_or_else(|| "FULL".to_owned()),
            publish_attribution_metrics_to_s3: false,
            tags: job.tags.clone(),
            status: job.status.clone(),
            failure_reason: job.failure_reason.clone().or((job.status == FAILED).then_some(default_reason)),
            created_ms,
            updated_ms: created_ms,
            hold: job.hold || self.is_held(&job.name),
            checking: false,
            hidden_until_ms: None,
            hidden_lookups: 0,
        });
        self.revision += 1;
        Ok(arn)
    }

    /// Starts a data deletion job for another client, without the checks of a request; it stays PENDING until it is
    /// finished. `None` if it exists, or if the dataset group is invalid.
    pub(crate) fn start_deletion(&mut self, name: &str, group_arn: &str, now_ms: i64) -> Option<String> {
        let group = Arn::parse(group_arn).filter(|arn| arn.resource.starts_with("dataset-group/"))?;
        let arn = Arn::deletion_job(&group.region, &group.account, name);
        if self.deletions.iter().any(|known| known.arn == arn) {
            return None;
        }
        self.deletions.push(DeletionJob {
            name: name.to_owned(),
            arn: arn.clone(),
            group_arn: group_arn.to_owned(),
            data_location: "s3://bucket/users.csv".to_owned(),
            role_arn: format!("arn:{}:iam::{}:role/Reader", group.partition, group.account),
            tags: Vec::new(),
            status: DELETION_PENDING.to_owned(),
            failure_reason: None,
            num_deleted: None,
            created_ms: now_ms,
            updated_ms: now_ms,
            hold: true,
        });
        self.revision += 1;
        Some(arn)
    }

    /// Finishes a data deletion job by name or ARN; `false` if it does not run.
    pub(crate) fn finish_deletion(&mut self, name_or_arn: &str, outcome: Outcome, now_ms: i64) -> bool {
        self.revision += 1;
        let named = |job: &&mut DeletionJob| job.arn == name_or_arn || job.name == name_or_arn;
        let job = self.deletions.iter_mut().rev().filter(|job| job.is_running()).find(named);
        job.map(|job| job.finish(outcome, now_ms)).is_some()
    }

    pub(crate) fn is_held(&self, job_name: &str) -> bool {
        self.holds.iter().any(|hold| job_name.contains(hold.as_str()))
    }

    /// Finishes a job by name or ARN; `false` if it does not exist.
    pub(crate) fn finish(&mut self, name_or_arn: &str, outcome: Outcome, now_ms: i64) -> bool {
        self.job_mut(name_or_arn).map(|job| job.finish(outcome, now_ms)).is_some()
    }

    /// Holds running and future jobs whose name contains `name`.
    pub(crate) fn hold(&mut self, name: &str) {
        self.revision += 1;
        self.holds.push(name.to_owned());
        for job in self.jobs.iter_mut().filter(|job| job.is_running() && job.name.contains(name)) {
            job.hold = true;
        }
        for job in self.deletions.iter_mut().filter(|job| job.is_running() && job.name.contains(name)) {
            job.hold = true;
        }
    }

    /// Releases jobs whose name contains `name`.
    pub(crate) fn release(&mut self, name: &str, now_ms: i64) {
        self.revision += 1;
        self.holds.retain(|hold| !hold.contains(name));
        for job in self.jobs.iter_mut().filter(|job| job.hold && job.name.contains(name)) {
            job.hold = false;
            job.updated_ms = now_ms;
        }
        for job in self.deletions.iter_mut().filter(|job| job.hold && job.name.contains(name)) {
            job.hold = false;
            job.updated_ms = now_ms;
        }
    }

    pub(crate) fn set_dataset_status(&mut self, arn: &str, status: &str, now_ms: i64) -> bool {
        let Some(dataset) = self.datasets.iter_mut().find(|dataset| dataset.arn == arn) else { return false };
        status.clone_into(&mut dataset.status);
        dataset.updated_ms = now_ms;
        self.revision += 1;
        true
    }

    /// Moves jobs from `CREATE PENDING` to `CREATE IN_PROGRESS`, and deletions to their end, when their time is over.
    pub(crate) fn advance(&mut self, now_ms: i64) {
        let durations = self.durations;
        for job in &mut self.deletions {
            while job.advance(now_ms, durations) {
                self.revision += 1;
                tracing::info!("data deletion job {}: {}", job.name, job.status);
            }
        }
        for job in &mut self.jobs {
            if job.advance(now_ms, durations) {
                // The state file must have the new status before a client sees it: a restart must not go back.
                self.revision += 1;
                tracing::info!("job {}: {}", job.name, job.status);
            }
        }
    }

    /// Removes a job as if it had never existed.
    pub(crate) fn vanish(&mut self, arn: &str) {
        self.revision += 1;
        self.jobs.retain(|job| job.arn != arn);
        self.vanished.push(arn.to_owned());
    }

    /// The tags of a job, a data deletion job or a dataset.
    pub(crate) fn tags_mut(&mut self, arn: &str) -> Option<&mut Vec<Tag>> {
        let job = self.jobs.iter_mut().find(|job| job.arn == arn).map(|job| &mut job.tags);
        let deletion = self.deletions.iter_mut().find(|job| job.arn == arn).map(|job| &mut job.tags);
        let job = job.or(deletion);
        job.or_else(|| self.datasets.iter_mut().find(|dataset| dataset.arn == arn).map(|dataset| &mut dataset.tags))
    }
}
