//! Kubernetes events: what happened to an import, told once each when its status tells it.

use crate::api::{DatasetImportJob, DatasetImportJobStatus};
use crate::conditions::{READY, Reason, State};
use crate::text::{sanitize, told};
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};
use std::time::Duration;
use tracing::debug;

/// The most bytes of an event's note.
const LONGEST_NOTE: usize = 1000;

/// How long an event may take; none is worth holding up an import.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something worth telling.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tale {
    warning: bool,
    reason: &'static str,
    action: &'static str,
    note: String,
}

/// What the step from one status to the next is worth telling. `created` tells that this pass called
/// CreateDatasetImportJob and the service took it.
pub(crate) fn tales(before: &DatasetImportJobStatus, after: &DatasetImportJobStatus, created: bool) -> Vec<Tale> {
    let mut tales = Vec::new();
    if after.dataset_import_job_arn != before.dataset_import_job_arn
        && let Some(name) = &after.job_name
    {
        // An own intent was recorded: its call came through though its answer was lost, or its sender died.
        let sent = before.submission.as_ref().is_some_and(|intent| intent.job_name == *name);
        tales.push(if created {
            Tale {
                warning: false,
                reason: "Submitted",
                action: "CreateDatasetImportJob",
                note: format!("the service has taken the job {name}"),
            }
        } else if sent {
            Tale {
                warning: false,
                reason: "Submitted",
                action: "DescribeDatasetImportJob",
                note: format!("the service has the job {name}: its submission came through, and its answer was lost"),
            }
        } else {
            Tale {
                warning: false,
                reason: "Adopted",
                action: "DescribeDatasetImportJob",
                note: format!("the job {name} exists already and is this resource's; nothing was submitted"),
            }
        });
    }
    let (Some(reason), was) = (Reason::of(after), Reason::of(before)) else { return tales };
    let message = |status: &DatasetImportJobStatus| {
        status.conditions.iter().find(|c| c.type_ == READY).map(|c| c.message.clone()).unwrap_or_default()
    };
    let (new, old) = (message(after), message(before));
    let turned = was != Some(reason);
    let told = match reason {
        // Said by Submitted, or too brief to be worth a line.
        Reason::Submitting | Reason::Pending => !turned && new != old,
        // The wait goes on for another cause; the status tells which.
        Reason::Queued | Reason::DatasetNotReady => turned,
        _ => turned || new != old,
    };
    if told {
        let troubled = matches!(reason, Reason::Throttled | Reason::ServiceUnavailable | Reason::CredentialsRefused);
        let hindered =
            !turned && matches!(reason, Reason::Pending | Reason::Importing) && new.contains("can't be followed");
        tales.push(Tale {
            warning: reason.state() == State::Failed || reason == Reason::Retrying || troubled || hindered,
            reason: reason.as_str(),
            action: "Reconcile",
            note: new,
        });
    }
    tales
}

/// Publishes without waiting: an API server that takes no events must not hold up an import.
pub(crate) fn publish(recorder: &Recorder, job: &DatasetImportJob, tales: Vec<Tale>) {
    if tales.is_empty() {
        return;
    }
    let (recorder, reference) = (recorder.clone(), job.object_ref(&()));
    tokio::spawn(async move {
        for tale in tales {
            let note: String = sanitize(&tale.note);
            let end = (0..=LONGEST_NOTE.min(note.len())).rev().find(|i| note.is_char_boundary(*i)).unwrap_or(0);
            let event = Event {
                type_: if tale.warning { EventType::Warning } else { EventType::Normal },
                reason: tale.reason.into(),
                note: Some(note[..end].to_owned()),
                action: tale.action.into(),
                secondary: None,
            };
            match tokio::time::timeout(PATIENCE, recorder.publish(&event, &reference)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(error = told(&error), "an event could not be published"),
                Err(_) => debug!("an event could not be published in time"),
            }
        }
    });
}
