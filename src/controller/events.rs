//! Kubernetes events: one for each change of the status that a user should know about.
//!
//! Each is a new event. Clients often increment the count of an earlier event instead, which would hide which attempt
//! failed and why.

mod publisher;

pub(crate) use publisher::EventPublisher;

use crate::api::DatasetImportJobStatus;
use crate::api::conditions::{self, Reason, State, ready_message};
use crate::import::{JOB_RUNNING, POLL_FAILED};
use crate::personalize::ServiceError;

/// An event to publish about a resource.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EventSpec {
    warning: bool,
    /// The cause is the same for all resources of an account and region.
    is_shared: bool,
    reason: &'static str,
    action: &'static str,
    note: String,
}

impl EventSpec {
    /// An event about the ConfigMap of accounts.
    pub(super) fn about_accounts(reason: &'static str, note: String) -> Self {
        Self { warning: reason == "AccountsRefused", is_shared: false, reason, action: "ReadAccounts", note }
    }
}

/// The events for a change from one status to another. `create` is the result of CreateDatasetImportJob, if this
/// reconcile called it.
pub(crate) fn events_for(
    before: &DatasetImportJobStatus,
    after: &DatasetImportJobStatus,
    create: Option<&Result<(), ServiceError>>,
) -> Vec<EventSpec> {
    let mut events = Vec::new();
    if after.dataset_import_job_arn != before.dataset_import_job_arn
        && let Some(name) = &after.job_name
    {
        let intended = before.submission.as_ref().is_some_and(|intent| intent.job_name == *name);
        let (reason, action, note) = if matches!(create, Some(Ok(()))) {
            ("Submitted", "CreateDatasetImportJob", format!("the service accepted the job {name}"))
        } else if intended {
            // The response was lost, or the operator crashed before it recorded the result.
            let note = format!("the service has the job {name}: it accepted the request, but its response was lost");
            ("Submitted", "DescribeDatasetImportJob", note)
        } else {
            let note = format!("the job {name} already exists and belongs to this resource; no job was submitted");
            ("Adopted", "DescribeDatasetImportJob", note)
        };
        events.push(EventSpec { warning: false, is_shared: false, reason, action, note });
    }
    // Data that is not submitted has the event of its reason.
    let invalid = conditions::data_invalid(after)
        .filter(|_| !matches!(Reason::of(after), Some(Reason::DataInvalid | Reason::GuardTripped)))
        .filter(|note| Some(*note) != conditions::data_invalid(before));
    let changed = conditions::data_changed(after).filter(|note| Some(*note) != conditions::data_changed(before));
    for (reason, note) in [("DataInvalid", invalid), ("DataChanged", changed)] {
        let event = |note: &str| EventSpec {
            warning: true,
            is_shared: false,
            reason,
            action: "CheckData",
            note: note.to_owned(),
        };
        events.extend(note.map(event));
    }
    let (Some(reason), old_reason) = (Reason::of(after), Reason::of(before)) else { return events };
    let (note, old_note) = (ready_message(after), ready_message(before));
    let (new_reason, new_note) = (old_reason != Some(reason), note != old_note);
    // A queued resource can be rejected with reason `Queued` again; publish that event although the reason is the same.
    let create_failed = matches!(create, Some(Err(_)));
    let publish = match reason {
        // Announced by `Submitted`, or too short-lived to be useful.
        Reason::Submitting | Reason::Pending => (create_failed || !new_reason) && new_note,
        // It has started as expected; the status shows it.
        Reason::Importing if note == JOB_RUNNING && old_reason == Some(Reason::Pending) => false,
        // The wait continues for another cause; the status shows it.
        Reason::Queued | Reason::DatasetNotReady => new_reason || create_failed && new_note,
        _ => new_reason || new_note,
    };
    if publish {
        let unavailable = matches!(reason, Reason::Throttled | Reason::ServiceUnavailable | Reason::CredentialsRefused);
        let poll_failed =
            !new_reason && matches!(reason, Reason::Pending | Reason::Importing) && note.starts_with(POLL_FAILED);
        let response_lost = create_failed && reason == Reason::Submitting;
        let failed = reason.state() == State::Failed || reason == Reason::Retrying;
        events.push(EventSpec {
            warning: failed || unavailable || poll_failed || response_lost,
            is_shared: unavailable,
            reason: reason.as_str(),
            action: "Reconcile",
            note: note.to_owned(),
        });
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Submission;
    use crate::personalize::ErrorKind;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn status(reason: Reason, message: &str) -> DatasetImportJobStatus {
        let mut status = DatasetImportJobStatus::default();
        conditions::set(&mut status, 1, reason, message, Timestamp::UNIX_EPOCH);
        status
    }

    fn with_job(job: &str, reason: Reason, message: &str) -> DatasetImportJobStatus {
        DatasetImportJobStatus {
            job_name: Some(job.into()),
            dataset_import_job_arn: Some(format!("arn:{job}")),
            ..status(reason, message)
        }
    }

    fn with_intent(job: &str, status: DatasetImportJobStatus) -> DatasetImportJobStatus {
        let submission = Submission {
            job_name: job.into(),
            attempt: 1,
            request_hash: String::new(),
            generation: 1,
            time: Time(Timestamp::UNIX_EPOCH),
        };
        DatasetImportJobStatus { submission: Some(submission), ..status }
    }

    #[test]
    fn each_status_change_makes_the_expected_events() {
        let accepted = Ok(());
        let rejected = Err(ServiceError::answered("ResourceInUseException", "", 400));
        let lost = Err(ServiceError::unanswered(ErrorKind::Indeterminate, "Timeout", ""));
        let none = DatasetImportJobStatus::default;
        let (pending, running) = (with_job("a", Reason::Pending, "p"), with_job("a", Reason::Importing, "i"));
        let submitting = with_intent("a", status(Reason::Submitting, "s"));
        let queued = with_intent("a", status(Reason::Queued, "waits"));
        let retrying = with_job("a", Reason::Retrying, "attempt 1 failed");
        let resubmitted = with_job("b", Reason::Pending, "p");
        let poll_failed = with_job("a", Reason::Importing, "the job can't be polled at the moment");
        let cases = [
            ("first reconcile", none(), status(Reason::Queued, "waits"), None, vec!["Normal Queued: waits"]),
            ("intent", none(), submitting.clone(), None, vec![]),
            (
                "accepted",
                submitting.clone(),
                pending.clone(),
                Some(&accepted),
                vec!["Normal Submitted: the service accepted the job a"],
            ),
            (
                "accepted, response lost",
                submitting.clone(),
                pending.clone(),
                None,
                vec!["Normal Submitted: the service has the job a: it accepted the request, but its response was lost"],
            ),
            (
                "job exists already",
                none(),
                with_job("a", Reason::ImportSucceeded, "done"),
                None,
                vec![
                    "Normal Adopted: the job a already exists and belongs to this resource; no job was submitted",
                    "Normal ImportSucceeded: done",
                ],
            ),
            (
                "response lost",
                submitting.clone(),
                status(Reason::Submitting, "was lost"),
                Some(&lost),
                vec!["Warning Submitting: was lost"],
            ),
            (
                "response lost after the resource was queued",
                queued.clone(),
                status(Reason::Submitting, "was lost"),
                Some(&lost),
                vec!["Warning Submitting: was lost"],
            ),
            ("queued for another cause", queued.clone(), status(Reason::Queued, "waits more"), None, vec![]),
            (
                "rejected after the resource was queued",
                queued.clone(),
                status(Reason::Queued, "in use"),
                Some(&rejected),
                vec!["Normal Queued: in use"],
            ),
            ("rejected again", queued, status(Reason::Queued, "waits"), Some(&rejected), vec![]),
            (
                "rejected",
                submitting,
                status(Reason::InvalidInput, "no"),
                Some(&rejected),
                vec!["Warning InvalidInput: no"],
            ),
            ("job started", pending.clone(), with_job("a", Reason::Importing, JOB_RUNNING), None, vec![]),
            ("job started in an unknown state", pending, running.clone(), None, vec!["Normal Importing: i"]),
            (
                "poll failed",
                running.clone(),
                poll_failed.clone(),
                None,
                vec!["Warning Importing: the job can't be polled at the moment"],
            ),
            ("poll succeeded again", poll_failed, running.clone(), None, vec!["Normal Importing: i"]),
            ("no change", running.clone(), running.clone(), None, vec![]),
            ("attempt failed", running.clone(), retrying.clone(), None, vec!["Warning Retrying: attempt 1 failed"]),
            (
                "next attempt",
                retrying,
                resubmitted,
                Some(&accepted),
                vec!["Normal Submitted: the service accepted the job b"],
            ),
            (
                "import failed",
                running.clone(),
                with_job("a", Reason::ImportFailed, "f"),
                None,
                vec!["Warning ImportFailed: f"],
            ),
            ("status removed", running, none(), None, vec![]),
        ];
        for (change, before, after, create, expected) in cases {
            let actual: Vec<String> = events_for(&before, &after, create)
                .iter()
                .map(|event| {
                    let type_ = if event.warning { "Warning" } else { "Normal" };
                    format!("{type_} {}: {}", event.reason, event.note)
                })
                .collect();
            assert_eq!(actual, expected, "{change}");
        }
    }
}
