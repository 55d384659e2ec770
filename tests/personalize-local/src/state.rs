//! The service's memory, its clock-driven states and its operations.

use crate::fault::Fault;
use crate::import;
use crate::model::{Refusal, refusal, tags};
use crate::seed::{Dataset, Job, Seed};
use crate::signature::Caller;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The most imports that run at once per account and region.
const QUOTA: usize = 5;

/// All that the service knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) seed: Seed,
    pub(crate) jobs: Vec<Job>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) data: PathBuf,
}

impl State {
    /// Moves every job on to where the clock says it is.
    pub(crate) fn advance(&mut self, now: i64) {
        let durations = self.seed.durations;
        for job in &mut self.jobs {
            if job.held || !job.runs() {
                continue;
            }
            let begun = job.created_ms + durations.pending_ms;
            let ended = begun + durations.in_progress_ms;
            if now >= ended {
                let dataset = self.seed.datasets.iter().find(|d| d.arn == job.dataset_arn);
                let outcome = dataset
                    .map_or(Err("The dataset was deleted.".into()), |d| import::read(job, d, &self.seed, &self.data));
                job.status = if outcome.is_ok() { "ACTIVE" } else { "CREATE FAILED" }.into();
                job.failure_reason = outcome.err();
                job.updated_ms = ended;
            } else if now >= begun && job.status == "CREATE PENDING" {
                job.status = "CREATE IN_PROGRESS".into();
                job.updated_ms = begun;
            }
        }
    }

    /// Carries an operation out.
    pub(crate) fn call(
        &mut self,
        operation: &str,
        caller: &Caller,
        request: &Value,
        now: i64,
    ) -> Result<Value, Refusal> {
        let text = |name: &str| request[name].as_str().unwrap_or_default();
        match operation {
            "CreateDatasetImportJob" => self.create(caller, request, now),
            "DescribeDatasetImportJob" => {
                let job = self.job(caller, text("datasetImportJobArn"))?;
                Ok(json!({"datasetImportJob": job.tell(true)}))
            }
            "ListTagsForResource" => {
                let job = self.job(caller, text("resourceArn"))?;
                let tags: Vec<Value> = job.tags.iter().map(|(k, v)| json!({"tagKey": k, "tagValue": v})).collect();
                Ok(json!({"tags": tags}))
            }
            "ListDatasetImportJobs" => self.list(caller, request),
            "DescribeDataset" => {
                let dataset = self.dataset(caller, text("datasetArn"))?;
                let name = dataset.arn.split('/').next_back().unwrap_or_default().to_lowercase();
                Ok(
                    json!({"dataset": {"name": name, "datasetArn": dataset.arn, "datasetType": dataset.kind, "status": dataset.status}}),
                )
            }
            _ => Err(refusal("UnknownOperationException", "")),
        }
    }

    fn create(&mut self, caller: &Caller, request: &Value, now: i64) -> Result<Value, Refusal> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let dataset = self.dataset(caller, &text(&request["datasetArn"]))?;
        let job = Job {
            job_name: text(&request["jobName"]),
            dataset_arn: dataset.arn.clone(),
            data_location: text(&request["dataSource"]["dataLocation"]),
            role_arn: text(&request["roleArn"]),
            import_mode: request["importMode"].as_str().unwrap_or("FULL").to_owned(),
            publish_attribution_metrics_to_s3: request["publishAttributionMetricsToS3"].as_bool(),
            tags: tags(request)?,
            status: "CREATE PENDING".into(),
            failure_reason: None,
            created_ms: now,
            updated_ms: now,
            held: false,
        };
        if self.seed.refused_roles.contains(&job.role_arn) {
            return Err(refusal(
                "AccessDeniedException",
                format!(
                    "User: arn:aws:iam::{}:user/operator is not authorized to perform: iam:PassRole on resource: {}",
                    caller.account, job.role_arn
                ),
            ));
        }
        let arn = job.arn();
        if self.jobs.iter().any(|j| j.arn() == arn) {
            return Err(refusal(
                "ResourceAlreadyExistsException",
                format!("Another resource with Amazon Resource Name (ARN) {arn} already exists."),
            ));
        }
        if dataset.status != "ACTIVE" {
            return Err(refusal(
                "ResourceInUseException",
                format!("Resource {} is not ACTIVE: {}", dataset.arn, dataset.status),
            ));
        }
        let here = |j: &&Job| j.runs() && lives_in(&j.dataset_arn, caller);
        if self.jobs.iter().filter(here).count() >= QUOTA {
            return Err(refusal("LimitExceededException", "More than 5 resources with PENDING or IN_PROGRESS status."));
        }
        let full_before = |j: &Job| j.dataset_arn == job.dataset_arn && j.import_mode == "FULL" && j.status == "ACTIVE";
        if job.import_mode == "INCREMENTAL" && !self.jobs.iter().any(full_before) {
            return Err(refusal(
                "InvalidInputException",
                "An INCREMENTAL import needs an earlier FULL import into the dataset.",
            ));
        }
        self.jobs.push(job);
        Ok(json!({"datasetImportJobArn": arn}))
    }

    fn dataset(&self, caller: &Caller, arn: &str) -> Result<&Dataset, Refusal> {
        let found = self.seed.datasets.iter().find(|d| d.arn == arn && lives_in(&d.arn, caller));
        found.ok_or_else(|| {
            refusal("ResourceNotFoundException", format!("The given dataset ARN {arn} could not be found."))
        })
    }

    fn job(&self, caller: &Caller, arn: &str) -> Result<&Job, Refusal> {
        let found = self.jobs.iter().find(|j| j.arn() == arn && lives_in(arn, caller));
        found.ok_or_else(|| {
            refusal("ResourceNotFoundException", format!("The given dataset import job ARN {arn} could not be found."))
        })
    }

    fn list(&self, caller: &Caller, request: &Value) -> Result<Value, Refusal> {
        let dataset = request["datasetArn"].as_str();
        let most = match request["maxResults"].as_u64() {
            None => 100,
            Some(n @ 1..=100) => usize::try_from(n).unwrap_or(100),
            Some(_) => {
                return Err(refusal(
                    "ValidationException",
                    "1 validation error detected: Value at 'maxResults' failed to satisfy constraint: Member must have value between 1 and 100",
                ));
            }
        };
        let bad = || refusal("InvalidNextTokenException", "The token provided is not valid.");
        let from = match request["nextToken"].as_str() {
            None => 0,
            Some(token) => {
                token.strip_prefix("page-").and_then(|t| usize::from_str_radix(t, 16).ok()).ok_or_else(bad)?
            }
        };
        let mine =
            self.jobs.iter().filter(|j| lives_in(&j.dataset_arn, caller) && dataset.is_none_or(|d| j.dataset_arn == d));
        let jobs: Vec<Value> = mine.map(|j| j.tell(false)).collect();
        let page: Vec<&Value> = jobs.iter().skip(from).take(most).collect();
        let mut answer = json!({"datasetImportJobs": page});
        if from + most < jobs.len() {
            answer["nextToken"] = format!("page-{:x}", from + most).into();
        }
        Ok(answer)
    }
}

fn lives_in(arn: &str, caller: &Caller) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    parts.get(3) == Some(&caller.region.as_str()) && parts.get(4) == Some(&caller.account.as_str())
}
