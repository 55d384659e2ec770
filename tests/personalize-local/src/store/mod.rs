//! Everything the stand-in knows, behind one lock.

pub(crate) mod job;
pub(crate) mod ledger;
pub(crate) mod seed;
pub(crate) mod state_file;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    StartError,
    arn::Arn,
    fault::Fault,
    job::{FAILED, Job, Outcome, Tag},
    ledger::Ledger,
    schema,
    seed::{AccessKey, Dataset, Durations, Refusals, Seed, SeedJob},
    state_file::StateFile,
    throttle::Throttles,
};

/// A dataset with what the seed left to be derived.
#[derive(Debug, Clone)]
pub(crate) struct KnownDataset {
    pub(crate) arn: String,
    pub(crate) parts: Arn,
    /// `Interactions`, `Users`, `Items`, ...
    pub(crate) kind: String,
    pub(crate) status: String,
    /// Avro, as JSON.
    pub(crate) schema: String,
    pub(crate) schema_arn: String,
    pub(crate) tags: Vec<Tag>,
    pub(crate) created_ms: i64,
    pub(crate) updated_ms: i64,
    /// How it was declared, if that was after the seed.
    pub(crate) added: Option<Dataset>,
}

/// An access key and whom it stands for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Principal {
    pub(crate) account: String,
    /// As error messages name it.
    pub(crate) arn: String,
    pub(crate) key: AccessKey,
    /// Given out by an STS while the stand-in ran: the seed doesn't have it.
    pub(crate) learnt: bool,
}

/// Everything the stand-in knows.
#[derive(Debug)]
pub(crate) struct World {
    /// By access key ID.
    pub(crate) keys: HashMap<String, Principal>,
    pub(crate) accounts: Vec<String>,
    pub(crate) datasets: Vec<KnownDataset>,
    /// In the order of their creation.
    pub(crate) jobs: Vec<Job>,
    /// ARNs of jobs that are gone, so that a restart does not bring them back.
    pub(crate) vanished: Vec<String>,
    /// A new job whose name contains one of these is held.
    pub(crate) holds: Vec<String>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) durations: Durations,
    pub(crate) refusals: Refusals,
    pub(crate) throttles: Throttles,
    pub(crate) ledger: Ledger,
    /// Counts changes, so that the state file is written only when needed.
    pub(crate) revision: u64,
    pub(crate) state: Option<StateFile>,
    pub(crate) requests: u64,
}

impl World {
    pub(crate) fn new(seed: &Seed, ledger: Ledger, now_ms: i64) -> Result<Self, StartError> {
        seed.check()?;
        let mut world = Self {
            keys: HashMap::new(),
            accounts: seed.accounts.iter().map(|account| account.id.clone()).collect(),
            datasets: Vec::new(),
            jobs: Vec::new(),
            vanished: Vec::new(),
            holds: Vec::new(),
            faults: Vec::new(),
            durations: seed.durations,
            refusals: seed.refusals.clone(),
            throttles: Throttles::new(seed.throttle.clone()),
            ledger,
            revision: 0,
            state: None,
            requests: 0,
        };
        for account in &seed.accounts {
            for key in &account.access_keys {
                let arn = format!("arn:aws:iam::{}:user/{}", account.id, key.id);
                let principal = Principal { account: account.id.clone(), arn, key: key.clone(), learnt: false };
                world.keys.insert(key.id.clone(), principal);
            }
        }
        for dataset in &seed.datasets {
            world.put_dataset(dataset, now_ms).map_err(StartError::SeedContent)?;
        }
        for job in &seed.jobs {
            world.start_job(job, now_ms).map_err(StartError::SeedContent)?;
        }
        Ok(world)
    }

    /// Makes temporary credentials known that an STS gave out.
    pub(crate) fn learn_key(&mut self, account: &str, arn: Option<String>, key: AccessKey) {
        let arn = arn.unwrap_or_else(|| format!("arn:aws:iam::{account}:user/{}", key.id));
        if !self.accounts.iter().any(|known| known == account) {
            self.accounts.push(account.to_owned());
        }
        self.keys.insert(key.id.clone(), Principal { account: account.to_owned(), arn, key, learnt: true });
        self.revision += 1;
    }

    pub(crate) fn dataset(&self, arn: &str) -> Option<&KnownDataset> {
        self.datasets.iter().find(|dataset| dataset.arn == arn)
    }

    /// A job by its ARN or its name.
    pub(crate) fn job_mut(&mut self, name_or_arn: &str) -> Option<&mut Job> {
        self.revision += 1;
        self.jobs.iter_mut().rev().find(|job| job.arn == name_or_arn || job.name == name_or_arn)
    }

    /// Adds a dataset, or replaces the one of the same ARN.
    pub(crate) fn put_dataset(&mut self, dataset: &Dataset, now_ms: i64) -> Result<(), String> {
        let parts = Arn::parse(&dataset.arn)
            .filter(|parts| parts.resource.starts_with("dataset/"))
            .ok_or_else(|| format!("{:?} is not a dataset ARN", dataset.arn))?;
        let (kind, text) = (dataset.type_name(), dataset.schema_text());
        schema::Columns::parse(&text, schema::Kind::of(&kind))
            .map_err(|problem| format!("schema of {}: {problem}", dataset.arn))?;
        let schema_arn = dataset.schema_arn.clone().unwrap_or_else(|| {
            let name = parts.resource.replacen("dataset/", "", 1).replace('/', "-").to_lowercase();
            format!("arn:{}:personalize:{}:{}:schema/{name}", parts.partition, parts.region, parts.account)
        });
        let created_ms = dataset.created_at.map_or(now_ms, |time| time.as_millisecond());
        self.datasets.retain(|known| known.arn != dataset.arn);
        self.datasets.push(KnownDataset {
            arn: dataset.arn.clone(),
            parts,
            kind,
            status: dataset.status.clone(),
            schema: text,
            schema_arn,
            tags: dataset.tags.clone(),
            created_ms,
            updated_ms: created_ms,
            added: None,
        });
        self.revision += 1;
        Ok(())
    }

    /// A dataset that the seed doesn't have, or has differently.
    pub(crate) fn add_dataset(&mut self, dataset: &Dataset, now_ms: i64) -> Result<(), String> {
        self.put_dataset(dataset, now_ms)?;
        if let Some(known) = self.datasets.last_mut() {
            known.added = Some(dataset.clone());
        }
        Ok(())
    }

    /// A job that the seed or a test starts, past the quota and the other rules of a request.
    pub(crate) fn start_job(&mut self, job: &SeedJob, now_ms: i64) -> Result<String, String> {
        let parts =
            Arn::parse(&job.dataset_arn).ok_or_else(|| format!("{:?} is not a dataset ARN", job.dataset_arn))?;
        let arn = Arn::import_job(&parts.region, &parts.account, &job.name);
        if self.jobs.iter().any(|known| known.arn == arn) {
            return Err(format!("{arn} exists"));
        }
        let created_ms = job.created_at.map_or(now_ms, |time| time.as_millisecond());
        let failed = "Failed to create a data import job.".to_owned();
        self.vanished.retain(|gone| *gone != arn);
        self.jobs.push(Job {
            name: job.name.clone(),
            arn: arn.clone(),
            account: parts.account,
            region: parts.region,
            dataset_arn: job.dataset_arn.clone(),
            data_location: job.data_location.clone(),
            role_arn: job.role_arn.clone(),
            import_mode: job.import_mode.clone().unwrap_or_else(|| "FULL".to_owned()),
            publish_attribution_metrics_to_s3: false,
            tags: job.tags.clone(),
            status: job.status.clone(),
            failure_reason: job.failure_reason.clone().or((job.status == FAILED).then_some(failed)),
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

    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.holds.iter().any(|part| name.contains(part.as_str()))
    }

    pub(crate) fn finish(&mut self, name_or_arn: &str, outcome: Outcome, now_ms: i64) -> bool {
        self.job_mut(name_or_arn).map(|job| job.end(outcome, now_ms)).is_some()
    }

    /// Jobs of this part of the name are held from now on, those that run included.
    pub(crate) fn hold(&mut self, name: &str) {
        self.revision += 1;
        self.holds.push(name.to_owned());
        for job in self.jobs.iter_mut().filter(|job| job.is_running() && job.name.contains(name)) {
            job.hold = true;
        }
    }

    /// Jobs of this part of the name go on.
    pub(crate) fn release(&mut self, name: &str, now_ms: i64) {
        self.revision += 1;
        self.holds.retain(|held| !held.contains(name));
        for job in self.jobs.iter_mut().filter(|job| job.hold && job.name.contains(name)) {
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

    pub(crate) fn advance(&mut self, now_ms: i64) {
        let durations = self.durations;
        for job in &mut self.jobs {
            if job.advance(now_ms, durations) {
                // Whoever sees the new status must not see the old one after a restart.
                self.revision += 1;
                tracing::info!("job {}: {}", job.name, job.status);
            }
        }
    }

    /// A job is gone, as if it had never been.
    pub(crate) fn vanish(&mut self, arn: &str) {
        self.revision += 1;
        self.jobs.retain(|job| job.arn != arn);
        self.vanished.push(arn.to_owned());
    }

    /// The tags of a job or dataset.
    pub(crate) fn tags_mut(&mut self, arn: &str) -> Option<&mut Vec<Tag>> {
        let job = self.jobs.iter_mut().find(|job| job.arn == arn).map(|job| &mut job.tags);
        job.or_else(|| self.datasets.iter_mut().find(|dataset| dataset.arn == arn).map(|dataset| &mut dataset.tags))
    }
}
