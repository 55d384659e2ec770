//! Single decisions: any resource, however forged, with any observation at any time.

use crate::document::document;
use crate::judge::{self, now, policy};
use crate::resources::template;
use jiff::Timestamp;
use personalize_operator::api::{self, DatasetImportJob};
use personalize_operator::import::plan::{Effect, Memory, Observations, ObservedJob, UserInputs, decide};
use personalize_operator::import::request::ImportRequest;
use personalize_operator::personalize::{
    ACTIVE, CREATE_FAILED, CREATE_PENDING, ErrorKind, Job, JobSummary, ServiceError,
};
use personalize_operator::queue::{Admission, Key};
use std::time::Duration;

/// Choices out of a fuzzer's bytes; once they are used up, the first of each.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn flag(&mut self) -> bool {
        self.next() % 2 == 1
    }

    fn of<T: Clone>(&mut self, options: &[T]) -> T {
        options[usize::from(self.next()) % options.len()].clone()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    fn time(&mut self) -> Timestamp {
        let moments = [now(0), now(1), Timestamp::UNIX_EPOCH, Timestamp::MAX, Timestamp::MIN];
        self.of(&moments)
    }

    fn failure(&mut self) -> ServiceError {
        const CLASSES: [ErrorKind; 10] = [
            ErrorKind::NotFound,
            ErrorKind::AlreadyExists,
            ErrorKind::Indeterminate,
            ErrorKind::Throttled,
            ErrorKind::QuotaExceeded,
            ErrorKind::InvalidInput,
            ErrorKind::AccessDenied,
            ErrorKind::TooManyTags,
            ErrorKind::InUse,
            ErrorKind::Credentials,
        ];
        let class = self.of(&CLASSES);
        ServiceError::answered(class.label(), &self.text(), 400).with(class)
    }

    fn text(&mut self) -> String {
        let long = "x".repeat(9000);
        let secret = format!("X-Amz-Security-Token: {}", crate::document::SECRET);
        self.of(&["", "plain", "line\r\nbreak\u{1b}[1m\u{202e}", &long, &secret]).to_owned()
    }

    fn result<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Result<T, ServiceError> {
        if self.flag() { Ok(make(self)) } else { Err(self.failure()) }
    }

    fn status(&mut self) -> String {
        self.of(&[
            CREATE_PENDING,
            "CREATE IN_PROGRESS",
            ACTIVE,
            CREATE_FAILED,
            "CREATE  FAILED\n",
            " ACTIVE",
            "NEW",
            "",
        ])
        .into()
    }

    fn found(&mut self, request: &ImportRequest) -> ObservedJob {
        let differs = self.flag();
        let tags = request.own_tags();
        ObservedJob {
            job: Job {
                name: self.text(),
                dataset: request.dataset.as_str().into(),
                data_location: if differs { self.text() } else { request.data_location.clone() },
                role_arn: request.role_arn.clone(),
                import_mode: Some(request.import_mode.as_str().into()),
                publish_attribution_metrics_to_s3: request.publish_attribution_metrics_to_s3,
                status: self.status(),
                failure_reason: self.maybe(Self::text),
                created: self.maybe(Self::time).filter(|at| *at >= Timestamp::UNIX_EPOCH),
                updated: self.maybe(Self::time).filter(|at| *at >= Timestamp::UNIX_EPOCH),
            },
            tags: self.maybe(|c| c.result(|c| if c.flag() { tags } else { Vec::new() })),
        }
    }

    fn seen(&mut self, request: Option<&ImportRequest>) -> Observations {
        let key = Key { namespace: "shop".into(), name: "other".into() };
        let mut seen = Observations {
            live: self.flag(),
            permission: self.maybe(|c| if c.flag() { Ok(()) } else { Err(c.text()) }),
            turn: self.maybe(|c| match c.next() % 3 {
                0 => Admission::Admitted,
                1 => Admission::Pending { why: c.text(), until: c.maybe(Self::time) },
                _ => Admission::Superseded { by: key },
            }),
            dataset: self.maybe(|c| c.result(Self::status)),
            jobs: self.maybe(|c| {
                c.result(|c| vec![JobSummary { name: c.text(), status: c.status(), created: None, updated: None }])
            }),
            intent: self.maybe(|c| i32::from(c.next() % 3)),
            create: self.maybe(|c| c.result(|_| ())),
            ..Observations::default()
        };
        if let Some(request) = request {
            for attempt in 1..=3 {
                if self.flag() {
                    let found = self.result(|c| c.found(request));
                    seen.lookups.insert(attempt, found);
                }
            }
            for job in seen.jobs.iter().flatten().flatten() {
                if self.flag() {
                    let age = self.result(|c| c.maybe(Self::time));
                    seen.ages.insert(job.name.clone(), age);
                }
            }
        }
        seen
    }

    fn memory(&mut self, job: &DatasetImportJob) -> Memory {
        Memory {
            described: self.maybe(Self::time),
            looked_up: self.flag(),
            rested: self.flag(),
            pause: self.maybe(|c| (c.time(), UserInputs::of(job))),
            typical: self.maybe(|c| Duration::from_secs(u64::from(c.next()) << 30)),
            intent: self.maybe(|c| (i32::from(c.next()), c.time(), c.time())),
        }
    }
}

/// A failure of this class, whatever its code stands for.
trait With {
    fn with(self, kind: ErrorKind) -> Self;
}

impl With for ServiceError {
    fn with(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }
}

fn check(job: &DatasetImportJob, seen: &Observations, request: Option<&ImportRequest>, step: &Effect) {
    let recorded = job.status.clone().unwrap_or_default();
    let unknown = |attempt: i32| matches!(seen.lookups.get(&attempt), Some(Err(f)) if f.kind == ErrorKind::NotFound);
    match step {
        Effect::Create { attempt } => {
            assert_eq!(seen.intent, Some(*attempt), "nothing is created without an intent of this pass");
            assert_eq!(recorded.submission.map(|s| s.attempt), Some(*attempt), "nor without a recorded one");
            assert!(unknown(*attempt), "nor without having looked");
            assert!(seen.create.is_none(), "nor twice in a pass");
        }
        Effect::RecordIntent(status) => {
            let submission = status.submission.as_ref().expect("an intent");
            assert!(seen.live, "an intent is written only over a live read");
            assert_eq!(seen.permission, Some(Ok(())), "and only where it is permitted");
            assert!(api::held_back_by(job).is_none() && job.metadata.deletion_timestamp.is_none());
            assert_eq!(Some(&submission.job_name), request.map(|r| r.job_name(submission.attempt)).as_ref());
            judge::written(job, status);
        }
        Effect::Outcome(rest) => {
            let Some(status) = &rest.status else { return };
            assert_ne!(**status, recorded, "nothing is written that says nothing new");
            let generations = [recorded.observed_generation, Some(job.metadata.generation.unwrap_or(0)), None];
            assert!(generations.contains(&status.observed_generation), "{:?}", status.observed_generation);
            judge::written(job, status);
        }
        _ => {}
    }
}

#[test]
fn decisions() {
    let template = template();
    bolero::check!(name = "decisions").with_iterations(3000).for_each(|input: &[u8]| {
        let (edits, choices) =
            input.split_at(input.len().min(usize::from(input.first().copied().unwrap_or(0) % 5) * 2));
        let Ok(job) = serde_json::from_slice::<DatasetImportJob>(&document(&template, edits)) else { return };
        let request = ImportRequest::of(&job).ok();
        let mut choices = Choices(choices);
        let (proven, now) = (choices.flag(), choices.time().max(Timestamp::UNIX_EPOCH));
        let seen = choices.seen(request.as_ref());
        let memory = choices.memory(&job);
        let step = decide(&job, proven, &seen, &memory, now, &policy());
        check(&job, &seen, request.as_ref(), &step);
        assert_eq!(step, decide(&job, proven, &seen, &memory, now, &policy()), "the same again");
    });
}
