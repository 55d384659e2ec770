//! Any resource: its JSON passes through the queue into a reconciliation.

use crate::document::document;
use crate::invariants::{ProtocolCheck, now, timing};
use futures::FutureExt;
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use personalize_operator::api::{DatasetImportJob, created_at};
use personalize_operator::import::{Effect, LocalState, Trust};
use personalize_operator::personalize::{ErrorKind, ServiceError};
use personalize_operator::queue::Queue;
use personalize_operator::reconciliation::{Executor, Observation, Reconciliation, drive};
use personalize_operator::testing::{active_dataset, status_applied, status_written};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Mutex;

pub(crate) fn template() -> Value {
    let name = "nightly-8f1ba9c618943263";
    json!({
        "apiVersion": "personalize-operator.io/v1alpha1",
        "kind": "DatasetImportJob",
        "metadata": {
            "name": "nightly", "namespace": "shop", "uid": "u", "generation": 2, "resourceVersion": "7",
            "creationTimestamp": "2025-06-15T00:00:00Z", "deletionTimestamp": null,
            "annotations": {
                "personalize-operator.io/adopt": "false",
                "personalize-operator.io/retry-requested-at": "1",
                "personalize-operator.io/reconcile-requested-at": "1",
            },
            "managedFields": [{ "manager": "personalize-operator", "subresource": "status", "operation": "Update" }],
        },
        "spec": {
            "datasetArn": "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS",
            "dataSource": { "dataLocation": "s3://bucket/interactions.csv" },
            "roleArn": "arn:aws:iam::123456789012:role/Reader",
            "importMode": "FULL", "jobName": null, "publishAttributionMetricsToS3": null,
            "tags": [{ "tagKey": "team", "tagValue": "a" }], "suspend": false, "backoffLimit": 1,
        },
        "status": {
            "observedGeneration": 1, "status": "CREATE IN_PROGRESS", "failureReason": null, "jobName": name,
            "datasetImportJobArn": format!("arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/{name}"),
            "creationDateTime": "2025-06-15T00:00:00Z", "lastUpdatedDateTime": "2025-06-15T00:00:00Z",
            "startTime": "2025-06-15T00:00:00Z", "completionTime": null, "attempts": 1,
            "submission": { "jobName": name, "attempt": 1, "generation": 1, "time": "2025-06-15T00:00:00Z",
                "requestHash": "8f1ba9c618943263a98667ac7ec11e8409f4546e99cbc271a6f8b5998a34df68" },
            "lastHandledReconcileAt": "1", "lastHandledRetryAt": "1",
            "conditions": [{ "type": "Ready", "status": "Unknown", "reason": "Importing", "message": "m",
                "observedGeneration": 1, "lastTransitionTime": "2025-06-15T00:00:00Z" }],
        },
    })
}

/// A service that has no jobs and accepts every import.
struct EmptyService {
    protocol: ProtocolCheck,
}

impl Executor for EmptyService {
    type Error = Infallible;

    fn now(&self) -> Timestamp {
        now(0)
    }

    fn jitter(&self) -> f64 {
        0.5
    }

    async fn perform(&mut self, reconciliation: &Reconciliation, effect: Effect) -> Result<Observation, Infallible> {
        self.protocol.check(reconciliation, &effect);
        let not_found = || ServiceError::unanswered(ErrorKind::NotFound, "ResourceNotFoundException", "");
        Ok(match effect {
            Effect::ReadResource => Observation::Resource(Some(Box::new(reconciliation.resource().clone()))),
            Effect::CheckNamespace => Observation::Namespace(Ok(())),
            Effect::DescribeJob { attempt, .. } => Observation::Job { attempt, job: Err(not_found()) },
            Effect::DescribeDataset => Observation::Dataset(Ok(active_dataset())),
            Effect::ListJobs => Observation::Jobs(Ok(Vec::new())),
            Effect::ListDataDeletions => Observation::DataDeletions(Ok(Vec::new())),
            Effect::ListTags { job_name } => Observation::Tags { job_name, tags: Err(not_found()) },
            Effect::CheckData => Observation::Data(None),
            Effect::ListData => Observation::DataListed(Ok(personalize_operator::api::ImportedData::default())),
            Effect::WriteStatus { status, then } => status_written(reconciliation, *status, then),
            Effect::ApplyStatus => status_applied(reconciliation),
            Effect::CreateJob { attempt } => Observation::Created { attempt, answer: Ok(()) },
        })
    }
}

#[test]
fn resources() {
    let template = template();
    bolero::check!(name = "resources").with_iterations(2000).for_each(|input: &[u8]| {
        let json = document(&template, input);
        let Ok(DeserializeGuard(Ok(resource))) = serde_json::from_slice::<DeserializeGuard<DatasetImportJob>>(&json)
        else {
            return;
        };
        let queue = Mutex::new(Queue::new(5, timing()));
        queue.lock().unwrap().observe(&resource, Trust::Trusted);
        let _ = created_at(&resource);
        if resource.metadata.uid.is_some() {
            let mut reconciliation = Reconciliation::new(resource, LocalState::default());
            let mut service = EmptyService { protocol: ProtocolCheck::default() };
            let result = drive(&mut reconciliation, &mut service, &queue, &timing()).now_or_never();
            result.expect("no effect waits").expect("the reconciliation finishes");
        }
        let mut queue = queue.into_inner().unwrap();
        for pool in queue.stats().into_keys() {
            let _ = queue.admissible(&pool, now(1));
        }
    });
}
