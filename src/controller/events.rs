//! Kubernetes events: what happened to an import, told once each when its status tells it.
//!
//! Each tale is an event of its own: one that is counted up in place of the one before, as clients
//! often do, would hide which attempt failed and why.

use crate::api::conditions::{READY, Reason, State};
use crate::api::{DatasetImportJob, DatasetImportJobStatus};
use crate::personalize::ServiceError;
use crate::redact::{sanitize, sanitize_display};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::runtime::events::Reporter;
use kube::{Api, Client, Resource};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{Instrument, Span, warn};

/// The most bytes of an event's note, a little below the API server's 1024.
const LONGEST_NOTE: usize = 1000;

/// The most bytes of the resource's name that an event's own name keeps: with what follows it stays below the 253 of a
/// Kubernetes name.
const LONGEST_STEM: usize = 230;

/// The most bytes of the reporting instance, by the API server's own rule.
const LONGEST_INSTANCE: usize = 128;

/// The most events that wait to be published; what comes on top is dropped.
const MOST_WAITING: usize = 4096;

/// How long an event may take; none is worth holding up an import.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long those that wait may take when the operator stops.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// Something worth telling.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EventSpec {
    warning: bool,
    reason: &'static str,
    action: &'static str,
    note: String,
}

/// What the step from one status to the next is worth telling. `create` is what CreateDatasetImportJob answered, if
/// this pass called it.
pub(crate) fn events_for(
    before: &DatasetImportJobStatus,
    after: &DatasetImportJobStatus,
    create: Option<&Result<(), ServiceError>>,
) -> Vec<EventSpec> {
    let mut events_for = Vec::new();
    if after.dataset_import_job_arn != before.dataset_import_job_arn
        && let Some(name) = &after.job_name
    {
        // An own intent was recorded: its call came through though its answer was lost, or its sender died.
        let sent = before.submission.as_ref().is_some_and(|intent| intent.job_name == *name);
        events_for.push(if matches!(create, Some(Ok(()))) {
            EventSpec {
                warning: false,
                reason: "Submitted",
                action: "CreateDatasetImportJob",
                note: format!("the service has taken the job {name}"),
            }
        } else if sent {
            EventSpec {
                warning: false,
                reason: "Submitted",
                action: "DescribeDatasetImportJob",
                note: format!("the service has the job {name}: its submission came through, and its answer was lost"),
            }
        } else {
            EventSpec {
                warning: false,
                reason: "Adopted",
                action: "DescribeDatasetImportJob",
                note: format!("the job {name} exists already and is this resource's; nothing was submitted"),
            }
        });
    }
    let (Some(reason), was) = (Reason::of(after), Reason::of(before)) else { return events_for };
    let message = |status: &DatasetImportJobStatus| {
        status.conditions.iter().find(|c| c.type_ == READY).map(|c| c.message.clone()).unwrap_or_default()
    };
    let (new, old) = (message(after), message(before));
    let (turned, other) = (was != Some(reason), new != old);
    // A resource that has waited may be refused under the reason that it has waited by.
    let refused = matches!(create, Some(Err(_)));
    let told = match reason {
        // Said by Submitted, or too brief to be worth a line.
        Reason::Submitting | Reason::Pending => (refused || !turned) && other,
        // The wait goes on for another cause; the status tells which.
        Reason::Queued | Reason::DatasetNotReady => turned || refused && other,
        _ => turned || other,
    };
    if told {
        let troubled = matches!(reason, Reason::Throttled | Reason::ServiceUnavailable | Reason::CredentialsRefused);
        let hindered =
            !turned && matches!(reason, Reason::Pending | Reason::Importing) && new.contains("can't be followed");
        let lost = refused && reason == Reason::Submitting;
        events_for.push(EventSpec {
            warning: reason.state() == State::Failed || reason == Reason::Retrying || troubled || hindered || lost,
            reason: reason.as_str(),
            action: "Reconcile",
            note: new,
        });
    }
    events_for
}

/// Hands over without waiting: an API server that takes no events must not hold up an import.
pub(crate) fn publish(recorder: &EventPublisher, job: &DatasetImportJob, events_for: Vec<EventSpec>) {
    for tale in events_for {
        let event = recorder.event(job, &tale);
        if recorder.waiting.try_send(Letter::Tell(Box::new(event), Span::current())).is_err() {
            warn!("an event was dropped: too many wait to be published");
        }
    }
}

/// What the one that publishes is given.
enum Letter {
    /// To be published, on behalf of a pass.
    Tell(Box<Event>, Span),
    /// To be answered when all before it was published.
    Answer(oneshot::Sender<()>),
}

/// Publishes events one after the other, in the order in which they were told.
pub(crate) struct EventPublisher {
    reporter: Reporter,
    waiting: mpsc::Sender<Letter>,
    /// The time in the name of the last event, in nanoseconds.
    last: AtomicI64,
}

impl EventPublisher {
    /// Publishes through this client, from a task that ends with the recorder.
    pub(crate) fn new(client: Client, reporter: Reporter) -> Self {
        let (waiting, letters) = mpsc::channel(MOST_WAITING);
        tokio::spawn(deliver(client, letters));
        Self { reporter, waiting, last: AtomicI64::new(0) }
    }

    /// Gives those that wait to be published a short while.
    pub(crate) async fn finish(&self) {
        let (answer, done) = oneshot::channel();
        let all = async { self.waiting.send(Letter::Answer(answer)).await.is_ok() && done.await.is_ok() };
        if timeout(LAST_PATIENCE, all).await.is_err() {
            warn!("some events could not be published before the end");
        }
    }

    fn event(&self, job: &DatasetImportJob, tale: &EventSpec) -> Event {
        let regarding = job.object_ref(&());
        let now = Timestamp::now();
        let stem = clip(regarding.name.as_deref().unwrap_or_default(), LONGEST_STEM);
        let instance = self.reporter.instance.as_deref().filter(|instance| !instance.is_empty());
        Event {
            metadata: ObjectMeta {
                namespace: regarding.namespace.clone(),
                // kubectl describe shows events by name, so the names are in the order of the story.
                name: Some(format!("{}.{:016x}", stem.trim_end_matches(['.', '-']), self.moment(now))),
                ..ObjectMeta::default()
            },
            regarding: Some(regarding),
            type_: Some(if tale.warning { "Warning" } else { "Normal" }.into()),
            reason: Some(tale.reason.into()),
            action: Some(tale.action.into()),
            note: Some(clip(&sanitize(&tale.note), LONGEST_NOTE).into()),
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(self.reporter.controller.clone()),
            reporting_instance: Some(clip(instance.unwrap_or(&self.reporter.controller), LONGEST_INSTANCE).into()),
            ..Event::default()
        }
    }

    /// This moment in nanoseconds, or the next that no event has had.
    fn moment(&self, now: Timestamp) -> i64 {
        let now = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        let next = |last: i64| now.max(last.saturating_add(1));
        self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).map_or(now, next)
    }
}

async fn deliver(client: Client, mut letters: mpsc::Receiver<Letter>) {
    while let Some(letter) = letters.recv().await {
        match letter {
            Letter::Tell(event, span) => post(&client, &event).instrument(span).await,
            // Whoever asked may have lost patience.
            Letter::Answer(answer) => {
                let _ = answer.send(());
            }
        }
    }
}

async fn post(client: &Client, event: &Event) {
    let api: Api<Event> = Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or_default());
    let reason = event.reason.as_deref();
    match timeout(PATIENCE, api.create(&PostParams::default(), event)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => warn!(reason, error = sanitize_display(&error), "an event could not be published"),
        Err(_) => warn!(reason, "an event could not be published in time"),
    }
}

/// As much of the beginning as fits into so many bytes.
fn clip(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Submission;
    use crate::api::conditions;
    use crate::import::request::tests::spec;
    use crate::personalize::ErrorKind;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn status(reason: Reason, message: &str) -> DatasetImportJobStatus {
        let mut status = DatasetImportJobStatus::default();
        conditions::set(&mut status, 1, reason, message, Timestamp::UNIX_EPOCH);
        status
    }

    /// The same, with a job.
    fn of_job(job: &str, reason: Reason, message: &str) -> DatasetImportJobStatus {
        DatasetImportJobStatus {
            job_name: Some(job.into()),
            dataset_import_job_arn: Some(format!("arn:{job}")),
            ..status(reason, message)
        }
    }

    /// The same, with an intent.
    fn intended(job: &str, status: DatasetImportJobStatus) -> DatasetImportJobStatus {
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
    fn each_step_of_a_life_tells_its_tale() {
        let taken = Ok(());
        let refused = Err(ServiceError::answered("ResourceInUseException", "", 400));
        let lost = Err(ServiceError::unanswered(ErrorKind::Indeterminate, "Timeout", ""));
        let none = DatasetImportJobStatus::default;
        let (pending, running) = (of_job("a", Reason::Pending, "p"), of_job("a", Reason::Importing, "i"));
        let submitting = intended("a", status(Reason::Submitting, "s"));
        let queued = intended("a", status(Reason::Queued, "waits"));
        let retrying = of_job("a", Reason::Retrying, "attempt 1 failed");
        let again = of_job("b", Reason::Pending, "p");
        let hindered = of_job("a", Reason::Importing, "the job can't be followed for now");
        let cases = [
            ("a first look", none(), status(Reason::Queued, "waits"), None, vec!["Normal Queued: waits"]),
            ("an intent", none(), submitting.clone(), None, vec![]),
            (
                "a submission",
                submitting.clone(),
                pending.clone(),
                Some(&taken),
                vec!["Normal Submitted: the service has taken the job a"],
            ),
            (
                "a submission whose answer was lost",
                submitting.clone(),
                pending.clone(),
                None,
                vec![
                    "Normal Submitted: the service has the job a: its submission came through, and its answer was lost",
                ],
            ),
            (
                "a job that is there already",
                none(),
                of_job("a", Reason::ImportSucceeded, "done"),
                None,
                vec![
                    "Normal Adopted: the job a exists already and is this resource's; nothing was submitted",
                    "Normal ImportSucceeded: done",
                ],
            ),
            (
                "a lost answer",
                submitting.clone(),
                status(Reason::Submitting, "was lost"),
                Some(&lost),
                vec!["Warning Submitting: was lost"],
            ),
            (
                "a lost answer after a wait",
                queued.clone(),
                status(Reason::Submitting, "was lost"),
                Some(&lost),
                vec!["Warning Submitting: was lost"],
            ),
            ("another cause to wait", queued.clone(), status(Reason::Queued, "waits more"), None, vec![]),
            (
                "a refusal after a wait",
                queued.clone(),
                status(Reason::Queued, "in use"),
                Some(&refused),
                vec!["Normal Queued: in use"],
            ),
            ("the same refusal again", queued, status(Reason::Queued, "waits"), Some(&refused), vec![]),
            (
                "a rejection",
                submitting,
                status(Reason::InvalidInput, "no"),
                Some(&refused),
                vec!["Warning InvalidInput: no"],
            ),
            ("the job begins", pending, running.clone(), None, vec!["Normal Importing: i"]),
            (
                "a look that fails",
                running.clone(),
                hindered.clone(),
                None,
                vec!["Warning Importing: the job can't be followed for now"],
            ),
            ("a look that succeeds again", hindered, running.clone(), None, vec!["Normal Importing: i"]),
            ("nothing new", running.clone(), running.clone(), None, vec![]),
            ("a failed attempt", running.clone(), retrying.clone(), None, vec!["Warning Retrying: attempt 1 failed"]),
            (
                "the next attempt",
                retrying,
                again,
                Some(&taken),
                vec!["Normal Submitted: the service has taken the job b"],
            ),
            ("the end", running.clone(), of_job("a", Reason::ImportFailed, "f"), None, vec!["Warning ImportFailed: f"]),
            ("a wiped status", running, none(), None, vec![]),
        ];
        for (what, before, after, create, expected) in cases {
            let told: Vec<String> = events_for(&before, &after, create)
                .iter()
                .map(|t| format!("{} {}: {}", if t.warning { "Warning" } else { "Normal" }, t.reason, t.note))
                .collect();
            assert_eq!(told, expected, "{what}");
        }
    }

    fn recorder(instance: Option<String>) -> (EventPublisher, mpsc::Receiver<Letter>) {
        let reporter = Reporter { controller: "personalize-operator".into(), instance };
        let (waiting, letters) = mpsc::channel(2);
        (EventPublisher { reporter, waiting, last: AtomicI64::new(0) }, letters)
    }

    fn job(name: &str) -> DatasetImportJob {
        let mut job = DatasetImportJob::new(name, spec());
        job.metadata.namespace = Some("shop".into());
        job.metadata.uid = Some("uid".into());
        job
    }

    fn tale(note: &str) -> EventSpec {
        EventSpec { warning: false, reason: "Queued", action: "Reconcile", note: note.into() }
    }

    #[test]
    fn an_event_keeps_to_the_bounds_of_the_api_server_whatever_it_tells() {
        for instance in [None, Some(String::new()), Some("é".repeat(100))] {
            let (recorder, _letters) = recorder(instance);
            for name in ["a".repeat(253), format!("{}.{}", "a".repeat(229), "b".repeat(23)), "short".into()] {
                let event = recorder.event(&job(&name), &tale(&"é".repeat(900)));
                let own = event.metadata.name.unwrap();
                assert!(own.len() <= 253, "{own}");
                let good = |label: &str| {
                    label.starts_with(|c: char| c.is_ascii_alphanumeric())
                        && label.ends_with(|c: char| c.is_ascii_alphanumeric())
                };
                assert!(own.split('.').all(good), "{own}");
                assert_eq!(event.regarding.unwrap().name.unwrap(), name, "it is about the whole name");
                let note = event.note.unwrap();
                assert!((900..=1000).contains(&note.len()), "{}", note.len());
                let instance = event.reporting_instance.unwrap();
                assert!((1..=128).contains(&instance.len()), "{instance}");
            }
        }
    }

    #[test]
    fn the_names_of_events_are_in_the_order_of_the_story() {
        let (recorder, _letters) = recorder(None);
        let names: Vec<_> =
            (0..1000).map(|_| recorder.event(&job("nightly"), &tale("x")).metadata.name.unwrap()).collect();
        assert!(names.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn no_more_events_wait_than_there_is_room_for() {
        let (recorder, mut letters) = recorder(None);
        publish(&recorder, &job("nightly"), ["a", "b", "c"].map(tale).to_vec());
        let mut notes = Vec::new();
        while let Ok(Letter::Tell(event, _)) = letters.try_recv() {
            notes.push(event.note.unwrap());
        }
        assert_eq!(notes, ["a", "b"]);
    }
}
