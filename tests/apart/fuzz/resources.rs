//! A resource holds anything: from its JSON through the queue into a decision.

use crate::document::document;
use crate::judge::{Protocol, now, policy};
use kube::core::DeserializeGuard;
use personalize_operator::api::DatasetImportJob;
use personalize_operator::import::plan::Effect;
use personalize_operator::personalize::{ErrorKind, ServiceError};
use personalize_operator::queue::{Queue, created, version};
use personalize_operator::reconciliation::{Reconciliation, Remembered};
use serde_json::{Value, json};

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

/// Takes a pass in which the service knows nothing and takes everything.
fn pass(job: &DatasetImportJob, queue: &mut Queue) {
    let (mut pass, mut protocol) = (Reconciliation::new(job.clone(), Remembered::default()), Protocol::default());
    let unknown = || ServiceError::unanswered(ErrorKind::NotFound, "ResourceNotFoundException", "");
    let uid = job.metadata.uid.clone().unwrap_or_default();
    for _ in 0..1000 {
        let step = pass.next(now(0), &policy());
        protocol.step(&pass, &step);
        let mut write = |pass: &mut Reconciliation, status, intent| {
            let mut written = pass.with_status(status);
            written.metadata.resource_version = Some(version(&written).saturating_add(1).to_string());
            pass.recorded(written, intent, queue);
        };
        match step {
            Effect::Refresh => assert!(pass.refreshed(Some(pass.job().clone()), queue)),
            Effect::AskPermission => pass.permitted(Ok(())),
            Effect::TakeTurn => pass.turned(queue.try_admit(&uid, now(0))),
            Effect::DescribeJob { attempt, .. } => pass.looked_up(attempt, Err(unknown()), now(0)),
            Effect::DescribeDataset => pass.saw_dataset(Ok("ACTIVE".into())),
            Effect::ListJobs => pass.saw_jobs(Ok(Vec::new()), queue),
            Effect::ReadAge { job_name } => pass.saw_age(job_name, Err(unknown())),
            Effect::RecordIntent(status) => {
                let attempt = status.submission.as_ref().unwrap().attempt;
                write(&mut pass, *status, Some(attempt));
            }
            Effect::Create { attempt } => pass.created(attempt, Ok(()), queue),
            Effect::Outcome(rest) => {
                if let Some(status) = rest.status {
                    write(&mut pass, *status, None);
                }
                pass.rested(rest.again, now(0), &policy(), 0.5);
                return;
            }
        }
    }
    panic!("the pass does not come to rest");
}

#[test]
fn resources() {
    let template = template();
    bolero::check!(name = "resources").with_iterations(2000).for_each(|input: &[u8]| {
        let json = document(&template, input);
        let Ok(DeserializeGuard(Ok(job))) = serde_json::from_slice::<DeserializeGuard<DatasetImportJob>>(&json) else {
            return;
        };
        let mut queue = Queue::new(5, policy());
        queue.observe(&job, true);
        let _ = created(&job);
        if job.metadata.uid.is_some() {
            pass(&job, &mut queue);
        }
        for location in queue.tally(now(1)).into_keys() {
            let _ = queue.ready(&location, now(1));
        }
    });
}
