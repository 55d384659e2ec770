//! Tables over single decisions, and whole lives against a simulated service, with a crash before and
//! after every step.

use super::*;
use crate::api::{DatasetImportJobSpec, Tag};
use crate::arn::DatasetArn;
use crate::conditions::{READY, RECONCILING, STALLED, SUCCEEDED};
use crate::identity::tests::spec;
use crate::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING, Class};
use crate::schedule::tests::policy;
use crate::schedule::{after, since};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A world of one resource and one service, in which only the recorded status survives a crash.
struct World {
    job: DatasetImportJob,
    memory: Memory,
    now: Timestamp,
    jobs: BTreeMap<String, (Job, Vec<Tag>)>,
    accepted: Vec<String>,
    writes: usize,
    reads: usize,
    /// The answer to the next create call, after its effect if the flag says so.
    answers: Vec<(bool, Result<(), Failure>)>,
    dataset: Result<String, Failure>,
    /// The dataset's jobs beside its own.
    running: Vec<JobSummary>,
    /// When the resource was created that each of them was made for.
    ages: BTreeMap<String, Result<Option<Timestamp>, Failure>>,
    tags: Option<Failure>,
    permission: Result<(), String>,
}

fn failure(class: Class) -> Failure {
    Failure::unanswered(class, class.label(), "as told by the test")
}

impl World {
    fn new() -> Self {
        Self::with(spec())
    }

    fn with(spec: DatasetImportJobSpec) -> Self {
        let mut job = DatasetImportJob::new("nightly", spec);
        job.metadata.namespace = Some("shop".into());
        job.metadata.uid = Some("uid".into());
        job.metadata.generation = Some(1);
        job.metadata.creation_timestamp = Some(Time(Timestamp::from_second(1_699_999_000).unwrap()));
        job.status = Some(DatasetImportJobStatus { observed_generation: Some(-1), ..Default::default() });
        Self {
            job,
            memory: Memory::default(),
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            jobs: BTreeMap::new(),
            accepted: Vec::new(),
            writes: 0,
            reads: 0,
            answers: Vec::new(),
            dataset: Ok(ACTIVE.into()),
            running: Vec::new(),
            ages: BTreeMap::new(),
            tags: None,
            permission: Ok(()),
        }
    }

    fn request(&self) -> Request {
        Request::new("shop", "nightly", &self.job.spec).unwrap()
    }

    fn status(&self) -> DatasetImportJobStatus {
        self.job.status.clone().unwrap()
    }

    fn annotate(&mut self, key: &str, value: &str) {
        self.job.metadata.annotations.get_or_insert_default().insert(key.into(), value.into());
    }

    fn make_job(&mut self, name: &str, status: &str, tags: Vec<Tag>) {
        let request = self.request();
        let job = Job {
            name: name.into(),
            dataset: request.dataset.as_str().into(),
            data_location: request.data_location.clone(),
            role_arn: request.role_arn.clone(),
            import_mode: Some(request.import_mode.as_str().into()),
            publish_attribution_metrics_to_s3: request.publish_attribution_metrics_to_s3,
            status: status.into(),
            failure_reason: (status == CREATE_FAILED).then(|| "Invalid Data location.".into()),
            created: Some(self.now),
            updated: Some(self.now),
        };
        self.jobs.insert(name.into(), (job, tags));
    }

    fn end(&mut self, name: &str, status: &str) {
        let now = self.now;
        let (job, _) = self.jobs.get_mut(name).unwrap();
        job.status = status.into();
        job.updated = Some(now);
        job.failure_reason = (status == CREATE_FAILED).then(|| "Invalid Data location.".into());
    }

    fn create(&mut self, name: &str) -> Result<(), Failure> {
        let (effect, answer) = if self.answers.is_empty() { (true, Ok(())) } else { self.answers.remove(0) };
        if effect {
            if self.jobs.contains_key(name) {
                return Err(failure(Class::AlreadyExists));
            }
            self.accepted.push(name.into());
            let tags = self.request().own_tags();
            self.make_job(name, CREATE_PENDING, tags);
        }
        answer
    }

    /// One pass, which dies after so many steps. Tells how it ended, if it lived.
    fn pass(&mut self, proven: bool, steps: usize) -> Option<Rest> {
        let mut seen = Seen::default();
        let mut looked_since_intent = false;
        for _ in 0..steps {
            let step = decide(&self.job, proven, &seen, &self.memory, self.now, &policy());
            match step {
                Step::Refresh => seen.live = true,
                Step::AskPermission => seen.permission = Some(self.permission.clone()),
                Step::TakeTurn => seen.turn = Some(Turn::Go),
                Step::DescribeDataset => seen.dataset = Some(self.dataset.clone()),
                Step::ListJobs => seen.jobs = Some(Ok(self.running.clone())),
                Step::ReadAge { job_name } => {
                    self.reads += 1;
                    let age = self.ages.get(&job_name).cloned().unwrap_or_else(|| Err(failure(Class::NotFound)));
                    seen.ages.insert(job_name, age);
                }
                Step::DescribeJob { attempt, prove } => {
                    self.reads += 1;
                    looked_since_intent = true;
                    let found = self.jobs.get(&self.request().job_name(attempt));
                    let denied = self.tags.clone();
                    let found = found.map(|(job, tags)| Found {
                        job: job.clone(),
                        tags: prove.then(|| denied.map_or_else(|| Ok(tags.clone()), Err)),
                    });
                    if found.is_some() {
                        self.memory.described = Some(self.now);
                    }
                    seen.lookups.insert(attempt, found.ok_or_else(|| failure(Class::NotFound)));
                }
                Step::RecordIntent(status) => {
                    assert!(seen.live, "an intent is written only over a live read");
                    self.writes += 1;
                    let attempt = status.submission.as_ref().unwrap().attempt;
                    self.job.status = Some(*status);
                    seen.intended(attempt);
                    looked_since_intent = false;
                }
                Step::Create { attempt } => {
                    assert_eq!(seen.intent, Some(attempt), "nothing is created without an intent of this pass");
                    assert!(looked_since_intent, "nothing is created on the word of a look before the intent");
                    let name = self.request().job_name(attempt);
                    let answer = self.create(&name);
                    seen.created(attempt, answer);
                }
                Step::Rest(rest) => {
                    if let Some(status) = &rest.status {
                        assert_ne!(
                            Some(&**status),
                            self.job.status.as_ref(),
                            "nothing is written that says nothing new"
                        );
                        self.writes += 1;
                        self.job.status = Some((**status).clone());
                    }
                    self.memory.rested = true;
                    return Some(rest);
                }
            }
        }
        None
    }

    /// Passes, with the clock going on, until nothing is left to do but to wait for the service.
    fn settle(&mut self) -> Rest {
        for _ in 0..50 {
            let Some(rest) = self.pass(true, 100) else { panic!("a pass does not come to rest") };
            match rest.again {
                Again::At(at) if since(self.now, at) < policy().poll_min => self.now = at.max(self.now),
                _ => return rest,
            }
        }
        panic!("the resource does not settle: {:?}", self.status());
    }

    fn later(&mut self) {
        self.now = after(self.now, policy().rejected_max);
    }

    fn crash(&mut self) {
        self.memory = Memory::default();
    }

    fn conditions(&self) -> [String; 4] {
        let status = self.status();
        [READY, SUCCEEDED, RECONCILING, STALLED].map(|type_| {
            status.conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.clone()).unwrap_or_default()
        })
    }

    fn reason(&self) -> Reason {
        Reason::of(&self.status()).unwrap()
    }
}

const IN_PROGRESS: [&str; 4] = ["Unknown", "Unknown", "True", "False"];
const SUCCESS: [&str; 4] = ["True", "True", "False", "False"];
const FAILURE: [&str; 4] = ["False", "False", "False", "True"];
const HELD: [&str; 4] = ["Unknown", "Unknown", "False", "False"];

#[test]
fn a_manifest_becomes_one_job_and_is_followed_to_its_end() {
    let mut world = World::new();
    world.settle();
    let name = world.request().job_name(1);
    assert_eq!(world.accepted, std::slice::from_ref(&name));
    assert_eq!((world.reason(), world.conditions()), (Reason::Pending, IN_PROGRESS.map(String::from)));
    world.end(&name, ACTIVE);
    world.later();
    assert_eq!(world.settle().again, Again::OnChange);
    assert_eq!((world.reason(), world.conditions()), (Reason::ImportSucceeded, SUCCESS.map(String::from)));
    assert!(world.status().completion_time.is_some());
}

#[test]
fn after_the_end_nothing_is_asked_or_written() {
    for end in [ACTIVE, CREATE_FAILED] {
        let mut world = World::new();
        world.settle();
        let name = world.request().job_name(1);
        world.end(&name, end);
        world.later();
        world.settle();
        let (reads, writes, status) = (world.reads, world.writes, world.status());
        world.annotate("example.org/label", "edited");
        world.annotate(api::RECONCILE_REQUESTED_AT, "now");
        world.end(&name, "CREATE IN_PROGRESS");
        for _ in 0..3 {
            world.crash();
            world.later();
            world.settle();
        }
        assert_eq!((world.reads, world.writes, world.status()), (reads, writes, status));
    }
}

#[test]
fn a_crash_after_any_step_neither_loses_nor_doubles_the_import() {
    for end in [ACTIVE, CREATE_FAILED] {
        for first in 0..14 {
            for second in 0..14 {
                let mut world = World::new();
                for steps in [first, second] {
                    world.pass(true, steps);
                    world.crash();
                }
                world.settle();
                world.later();
                world.settle();
                let name = world.request().job_name(1);
                world.end(&name, end);
                world.later();
                world.settle();
                assert_eq!(world.accepted, [name], "killed after {first} and {second} steps");
                assert_eq!(world.status().status.as_deref(), Some(end));
            }
        }
    }
}

#[test]
fn a_lost_answer_is_looked_up_whether_or_not_the_call_took_effect() {
    for effect in [true, false] {
        let mut world = World::new();
        world.answers = vec![(effect, Err(failure(Class::InDoubt)))];
        world.settle();
        assert_eq!(world.conditions(), IN_PROGRESS);
        for _ in 0..3 {
            world.later();
            world.settle();
        }
        assert_eq!(world.accepted.len(), 1, "effect: {effect}");
        assert_eq!(world.reason(), Reason::Pending);
    }
}

#[test]
fn an_own_job_is_adopted_by_a_resource_that_knows_nothing_of_it() {
    for status in [CREATE_PENDING, ACTIVE, CREATE_FAILED] {
        let mut world = World::new();
        let (name, tags) = (world.request().job_name(1), world.request().own_tags());
        world.make_job(&name, status, tags);
        world.settle();
        assert!(world.accepted.is_empty());
        assert_eq!(world.status().status.as_deref(), Some(status));
        assert_eq!(world.status().attempts, Some(1));
    }
}

#[test]
fn a_resource_made_anew_finds_its_last_attempt() {
    let mut world = World::new();
    let (request, tags) = (world.request(), world.request().own_tags());
    world.make_job(&request.job_name(1), CREATE_FAILED, tags.clone());
    world.make_job(&request.job_name(2), ACTIVE, tags);
    world.settle();
    assert!(world.accepted.is_empty());
    assert_eq!((world.status().attempts, world.reason()), (Some(2), Reason::ImportSucceeded));
}

#[test]
fn a_foreign_job_is_never_adopted_unasked() {
    let mut other = World::new().request().own_tags();
    other[1].tag_value = "another".into();
    for tags in [vec![], other] {
        let mut world = World::new();
        let name = world.request().job_name(1);
        world.make_job(&name, ACTIVE, tags);
        world.settle();
        assert_eq!((world.reason(), world.conditions()), (Reason::JobNameConflict, FAILURE.map(String::from)));
        assert_eq!((world.accepted.len(), world.status().dataset_import_job_arn), (0, None));
        world.annotate(api::ADOPT, "true");
        world.settle();
        assert_eq!(world.reason(), Reason::ImportSucceeded);
    }
}

#[test]
fn not_even_a_person_can_make_it_adopt_another_request() {
    let mut world = World::new();
    let name = world.request().job_name(1);
    world.make_job(&name, ACTIVE, vec![]);
    world.jobs.get_mut(&name).unwrap().0.data_location = "s3://other/data.csv".into();
    world.annotate(api::ADOPT, "true");
    world.settle();
    assert_eq!(world.reason(), Reason::JobNameConflict);
    let message = world.status().conditions[0].message.clone();
    assert!(message.contains("dataSource.dataLocation is s3://other/data.csv"), "{message}");
}

#[test]
fn tags_that_can_not_be_read_prove_nothing() {
    let mut world = World::new();
    let (name, tags) = (world.request().job_name(1), world.request().own_tags());
    world.make_job(&name, ACTIVE, tags);
    world.tags = Some(failure(Class::AccessDenied));
    world.settle();
    assert_eq!(world.reason(), Reason::AccessDenied);
    assert_eq!(world.status().dataset_import_job_arn, None);
}

#[test]
fn each_answer_to_create_has_its_own_reason() {
    for (class, reason, row) in [
        (Class::InvalidInput, Reason::InvalidInput, FAILURE),
        (Class::AccessDenied, Reason::AccessDenied, FAILURE),
        (Class::TooManyTags, Reason::TooManyTags, FAILURE),
        (Class::QuotaExceeded, Reason::Queued, IN_PROGRESS),
        (Class::Throttled, Reason::Queued, IN_PROGRESS),
        (Class::NotFound, Reason::DatasetNotReady, IN_PROGRESS),
        (Class::InUse, Reason::Queued, IN_PROGRESS),
        (Class::Credentials, Reason::CredentialsRefused, IN_PROGRESS),
        (Class::InDoubt, Reason::Submitting, IN_PROGRESS),
    ] {
        let mut world = World::new();
        world.answers = vec![(false, Err(failure(class)))];
        let rest = world.settle();
        assert_eq!((world.reason(), world.conditions()), (reason, row.map(String::from)), "{class:?}");
        assert_eq!(world.status().submission.is_some(), class == Class::InDoubt, "{class:?}");
        assert!(matches!(rest.again, Again::Setback(_)), "{class:?}: it is tried again");
        for _ in 0..3 {
            world.later();
            world.settle();
        }
        assert_eq!(world.accepted.len(), 1, "{class:?}: once the cause is mended, it is imported");
    }
}

#[test]
fn a_dataset_that_is_not_there_or_not_active_is_waited_for() {
    for dataset in [Ok("CREATE PENDING".to_owned()), Err(failure(Class::NotFound))] {
        let mut world = World::new();
        world.dataset = dataset;
        world.settle();
        assert_eq!((world.reason(), world.conditions()), (Reason::DatasetNotReady, IN_PROGRESS.map(String::from)));
        world.dataset = Ok(ACTIVE.into());
        world.later();
        world.settle();
        assert_eq!(world.accepted.len(), 1);
    }
}

#[test]
fn an_import_that_somebody_else_runs_into_the_dataset_is_waited_for() {
    let mut world = World::new();
    world.running =
        vec![JobSummary { name: "theirs".into(), status: "CREATE IN_PROGRESS".into(), created: None, updated: None }];
    world.settle();
    assert_eq!(world.reason(), Reason::Queued);
    assert!(world.accepted.is_empty());
    world.running[0].status = ACTIVE.into();
    world.later();
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}

fn landed(name: &str, at: Timestamp) -> JobSummary {
    JobSummary { name: name.into(), status: ACTIVE.into(), created: Some(at), updated: Some(at) }
}

#[test]
fn what_a_newer_import_has_overtaken_is_not_made_even_when_the_newer_resource_is_gone() {
    let (older, newer) = (1_699_998_000, 1_699_999_500);
    for (age, made) in
        [(Ok(Some(newer)), false), (Ok(Some(older)), true), (Ok(None), true), (Err(failure(Class::NotFound)), true)]
    {
        let mut world = World::new();
        world.running = vec![landed("other", world.now)];
        let age = age.map(|age| age.map(|second| Timestamp::from_second(second).unwrap()));
        world.ages.insert("other".into(), age.clone());
        world.settle();
        assert_eq!(world.accepted.len() == 1, made, "{age:?}");
        if made {
            continue;
        }
        assert_eq!((world.reason(), world.conditions()), (Reason::Superseded, FAILURE.map(String::from)));
        // It said that this is final.
        let (reads, writes) = (world.reads, world.writes);
        world.running.clear();
        world.crash();
        world.later();
        world.annotate(api::RECONCILE_REQUESTED_AT, "now");
        world.settle();
        assert_eq!((world.reason(), world.reads, world.writes), (Reason::Superseded, reads, writes));
    }
}

#[test]
fn while_it_can_not_be_told_how_old_another_import_is_nothing_is_sent() {
    let mut world = World::new();
    world.running = vec![landed("other", world.now)];
    world.ages.insert("other".into(), Err(failure(Class::AccessDenied)));
    world.settle();
    assert_eq!((world.reason(), world.accepted.len()), (Reason::AccessDenied, 0));
    world.ages.insert("other".into(), Ok(None));
    world.later();
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}

#[test]
fn what_landed_long_before_the_resource_was_made_is_not_asked_about() {
    let mut world = World::new();
    world.running = vec![landed("other", Timestamp::from_second(1_699_990_000).unwrap())];
    world.settle();
    let mut alone = World::new();
    alone.settle();
    assert_eq!((world.reads, world.accepted.len()), (alone.reads, 1));
}

/// A world that died right after its intent was recorded.
fn intended() -> World {
    let mut world = World::new();
    for steps in 1.. {
        assert!(world.pass(true, steps).is_none(), "the intent comes before the end");
        if world.status().submission.is_some() {
            break;
        }
    }
    world.crash();
    world
}

#[test]
fn a_left_over_intent_waits_for_what_others_have_begun_since() {
    let mut world = intended();
    world.now = after(world.now, policy().grace * 2);
    world.running =
        vec![JobSummary { name: "theirs".into(), status: CREATE_PENDING.into(), created: None, updated: None }];
    world.settle();
    assert_eq!((world.reason(), world.accepted.len()), (Reason::Queued, 0));
    world.running.clear();
    world.later();
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}

#[test]
fn an_intent_by_a_clock_that_runs_ahead_is_waited_for_no_longer_than_another() {
    let mut world = intended();
    world.now = after(world.now, Duration::from_secs(1));
    let ahead = after(world.now, Duration::from_secs(24 * 3600));
    if let Some(submission) = world.job.status.as_mut().and_then(|status| status.submission.as_mut()) {
        submission.time = Time(ahead);
    }
    let (writes, began) = (world.writes, world.now);
    world.settle();
    assert!(since(began, world.now) <= policy().grace * 2, "{:?}", since(began, world.now));
    assert_eq!((world.accepted.len(), world.reason()), (1, Reason::Pending));
    assert!(world.writes <= writes + 6, "{} writes", world.writes);
}

#[test]
fn a_submission_whose_tags_come_later_than_its_job_never_looks_refused() {
    for class in [Class::NotFound, Class::InUse] {
        let mut world = World::new();
        world.answers = vec![(true, Err(failure(Class::InDoubt)))];
        world.tags = Some(failure(class));
        world.settle();
        world.later();
        world.settle();
        assert_eq!((world.reason(), world.conditions()), (Reason::Submitting, IN_PROGRESS.map(String::from)));
        world.tags = None;
        world.later();
        world.settle();
        assert_eq!((world.reason(), world.accepted.len()), (Reason::Pending, 1));
    }
}

#[test]
fn a_restart_asks_no_sooner_again_for_what_was_rejected() {
    let mut world = World::new();
    world.answers = vec![(false, Err(failure(Class::AccessDenied))), (true, Ok(()))];
    world.settle();
    assert_eq!(world.reason(), Reason::AccessDenied);
    world.crash();
    let (reads, writes) = (world.reads, world.writes);
    assert_eq!(world.settle().again, Again::Setback(Pace::Slow));
    assert_eq!((world.reads, world.writes), (reads, writes));
    world.crash();
    world.annotate(api::RECONCILE_REQUESTED_AT, "now");
    world.settle();
    assert_eq!((world.reason(), world.accepted.len()), (Reason::Pending, 1), "a person need not wait");
}

#[test]
fn a_restart_over_a_queue_asks_the_service_nothing_about_those_who_wait() {
    let mut world = World::new();
    world.running.push(JobSummary {
        name: "theirs".into(),
        status: CREATE_PENDING.into(),
        created: None,
        updated: None,
    });
    world.settle();
    assert_eq!((world.reason(), world.reads), (Reason::Queued, 1), "looked up once, before it waits");
    world.crash();
    world.settle();
    assert_eq!((world.reason(), world.reads), (Reason::Queued, 1));
    world.running.clear();
    world.crash();
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}

#[test]
fn suspend_holds_back_what_was_not_submitted_and_nothing_else() {
    let mut world = World::new();
    world.job.spec.suspend = true;
    world.settle();
    assert_eq!((world.reason(), world.conditions()), (Reason::Suspended, HELD.map(String::from)));
    assert_eq!((world.accepted.len(), world.reads), (0, 0));
    world.job.spec.suspend = false;
    world.job.metadata.generation = Some(2);
    world.settle();
    assert_eq!(world.accepted.len(), 1);
    world.job.spec.suspend = true;
    world.job.metadata.generation = Some(3);
    world.later();
    world.settle();
    assert_eq!((world.reason(), world.status().observed_generation), (Reason::Pending, Some(3)));
}

#[test]
fn the_annotation_suspends_like_the_field() {
    let mut world = World::new();
    world.job.annotations_mut().insert(api::SUSPEND.into(), "true".into());
    world.settle();
    assert_eq!(world.reason(), Reason::Suspended);
    assert!(world.status().conditions[0].message.contains("the annotation personalize-operator.io/suspend"));
    world.job.annotations_mut().insert(api::SUSPEND.into(), "false".into());
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}

#[test]
fn failed_jobs_are_retried_within_the_limit_and_not_beyond() {
    let mut world = World::with(DatasetImportJobSpec { backoff_limit: 2, ..spec() });
    for attempt in 1..=3 {
        world.later();
        world.settle();
        let name = world.request().job_name(attempt);
        world.end(&name, CREATE_FAILED);
        world.later();
        world.settle();
    }
    world.later();
    world.settle();
    assert_eq!(world.accepted, [1, 2, 3].map(|n| world.request().job_name(n)));
    assert_eq!((world.reason(), world.status().attempts), (Reason::ImportFailed, Some(3)));
    assert_eq!(world.status().failure_reason.as_deref(), Some("Invalid Data location."));
}

#[test]
fn a_new_retry_annotation_grants_one_more_attempt_and_never_fires_twice() {
    let mut world = World::new();
    world.annotate(api::RETRY_REQUESTED_AT, "before anything failed");
    for (attempt, value) in [(1, ""), (2, "first"), (3, "second")] {
        if !value.is_empty() {
            world.annotate(api::RETRY_REQUESTED_AT, value);
        }
        world.later();
        world.settle();
        world.later();
        world.settle();
        let name = world.request().job_name(attempt);
        assert_eq!(world.accepted.len(), usize::try_from(attempt).unwrap());
        world.end(&name, CREATE_FAILED);
        for _ in 0..3 {
            world.later();
            world.crash();
            world.settle();
        }
        assert_eq!(world.reason(), Reason::ImportFailed);
    }
    assert_eq!(world.accepted.len(), 3);
}

#[test]
fn a_fixed_name_can_not_be_retried_and_the_message_says_so() {
    let mut world = World::with(DatasetImportJobSpec { job_name: Some("fixed".into()), backoff_limit: 3, ..spec() });
    world.settle();
    world.end("fixed", CREATE_FAILED);
    world.annotate(api::RETRY_REQUESTED_AT, "please");
    world.later();
    world.settle();
    world.later();
    world.settle();
    assert_eq!((world.accepted.len(), world.reason()), (1, Reason::ImportFailed));
    assert!(world.status().conditions[0].message.contains("spec.jobName fixes the name"));
}

#[test]
fn a_job_that_vanished_is_reported_and_not_submitted_again() {
    let mut world = World::new();
    world.settle();
    world.jobs.clear();
    for _ in 0..4 {
        world.later();
        world.settle();
    }
    assert_eq!((world.accepted.len(), world.reason()), (1, Reason::JobNotFound));
}

#[test]
fn a_forged_status_is_replaced_by_what_the_service_tells() {
    let mut world = World::new();
    let request = world.request();
    let forged = DatasetImportJobStatus {
        status: Some(ACTIVE.into()),
        attempts: Some(7),
        dataset_import_job_arn: Some(request.job_arn(7).0),
        completion_time: Some(Time(world.now)),
        ..Default::default()
    };
    world.job.status = Some(forged);
    world.pass(false, 100);
    assert_eq!(world.status().attempts, None);
    world.settle();
    assert_eq!((world.accepted.len(), world.reason()), (1, Reason::Pending));
}

#[test]
fn a_forged_success_that_names_a_job_the_service_does_not_know_is_not_vouched_for() {
    for attempts in [None, Some(1), Some(5)] {
        let mut world = World::new();
        world.job.status = Some(DatasetImportJobStatus {
            status: Some(ACTIVE.into()),
            attempts,
            dataset_import_job_arn: Some(world.request().job_arn(1).0),
            completion_time: Some(Time(world.now)),
            ..Default::default()
        });
        world.pass(false, 100);
        assert_eq!((world.status().status, world.status().completion_time), (None, None));
        for _ in 0..3 {
            world.later();
            world.settle();
        }
        assert_eq!((world.reason(), world.accepted.len()), (Reason::JobNotFound, 0), "{attempts:?}");
    }
}

/// A pass that has found that it may go on.
fn nothing_in_the_way() -> Seen {
    Seen {
        live: true,
        permission: Some(Ok(())),
        turn: Some(Turn::Go),
        dataset: Some(Ok(ACTIVE.into())),
        jobs: Some(Ok(Vec::new())),
        ..Seen::default()
    }
}

#[test]
fn a_fresh_intent_differs_from_the_one_it_replaces_however_short_the_grace() {
    let world = intended();
    let policy = Policy { grace: Duration::ZERO, ..policy() };
    let mut seen = nothing_in_the_way();
    seen.lookups.insert(1, Err(failure(Class::NotFound)));
    let within = decide(&world.job, true, &seen, &world.memory, world.now, &policy);
    assert!(!matches!(within, Step::RecordIntent(_)), "{within:?}");
    let later = after(world.now, Duration::from_secs(1));
    let Step::RecordIntent(status) = decide(&world.job, true, &seen, &world.memory, later, &policy) else {
        panic!("a second later it is recorded afresh");
    };
    assert_ne!(status.submission, world.status().submission);
}

#[test]
fn a_resource_on_its_way_out_is_left_alone() {
    let mut world = World::new();
    world.job.metadata.deletion_timestamp = Some(Time(world.now));
    world.settle();
    assert_eq!((world.accepted.len(), world.writes, world.reads), (0, 0, 0));
}

#[test]
fn an_end_that_the_service_spells_oddly_is_an_end_and_no_reason_to_import_again() {
    for (spelt, end) in [("CREATE  FAILED\n", CREATE_FAILED), (" ACTIVE", ACTIVE)] {
        let mut world = World::new();
        world.settle();
        let name = world.request().job_name(1);
        world.end(&name, spelt);
        for _ in 0..3 {
            world.later();
            world.settle();
        }
        assert_eq!((world.accepted.len(), world.status().status.as_deref()), (1, Some(end)), "{spelt:?}");
        assert!(world.status().completion_time.is_some(), "{spelt:?}");
    }
}

#[test]
fn an_intent_that_grew_old_before_the_create_is_recorded_anew() {
    let mut world = World::new();
    let mut seen = Seen { intent: Some(1), ..nothing_in_the_way() };
    seen.lookups.insert(1, Err(failure(Class::NotFound)));
    let steps = (1..).take_while(|steps| {
        world.pass(true, *steps);
        world.status().submission.is_none()
    });
    assert!(steps.count() > 0 && world.accepted.is_empty());
    let step = |world: &World| decide(&world.job, true, &seen, &world.memory, world.now, &policy());
    assert_eq!(step(&world), Step::Create { attempt: 1 });
    world.now = after(world.now, policy().grace);
    assert!(matches!(step(&world), Step::RecordIntent(_)), "whoever read the old one may be creating by now");
}

#[test]
fn a_look_is_taken_when_due_and_at_once_when_a_person_asks() {
    let mut world = World::new();
    world.settle();
    let reads = world.reads;
    for _ in 0..5 {
        world.annotate("example.org/label", "edited");
        world.settle();
    }
    assert_eq!(world.reads, reads, "an edit that means nothing asks nothing");
    world.annotate(api::RECONCILE_REQUESTED_AT, "1");
    world.settle();
    world.settle();
    assert_eq!(world.reads, reads + 1);
}

#[test]
fn a_passing_failure_never_makes_a_running_import_look_failed() {
    for class in [Class::Throttled, Class::InDoubt, Class::Credentials, Class::AccessDenied] {
        let mut world = World::new();
        world.settle();
        let mut seen = Seen::default();
        seen.lookups.insert(1, Err(failure(class)));
        let step = decide(&world.job, true, &seen, &world.memory, world.now, &policy());
        let Step::Rest(Rest { status: Some(status), .. }) = step else { panic!("{class:?}: {step:?}") };
        assert_eq!(Reason::of(&status), Some(Reason::Pending), "{class:?}");
        assert!(status.conditions[0].message.contains("can't be followed"), "{class:?}");
    }
}

fn any_status() -> impl Strategy<Value = DatasetImportJobStatus> {
    let text = || proptest::option::of(prop_oneof![Just(ACTIVE.to_owned()), Just(CREATE_FAILED.to_owned()), ".{0,20}"]);
    let time = || proptest::option::of((0_i64..4_000_000_000).prop_map(|s| Time(Timestamp::from_second(s).unwrap())));
    (
        text(),
        text(),
        proptest::option::of(any::<i32>()),
        time(),
        time(),
        any::<Option<i64>>(),
        any::<bool>(),
        proptest::option::of(any::<i32>()),
    )
        .prop_map(
            |(status, failure_reason, attempts, completion_time, updated, observed_generation, own_arn, intent)| {
                let request = World::new().request();
                DatasetImportJobStatus {
                    status,
                    failure_reason,
                    dataset_import_job_arn: own_arn.then(|| request.job_arn(attempts.unwrap_or(1)).0),
                    attempts,
                    completion_time,
                    last_updated_date_time: updated,
                    observed_generation,
                    submission: intent.map(|attempt| api::Submission {
                        job_name: request.job_name(attempt),
                        attempt,
                        request_hash: request.hash(),
                        generation: 1,
                        time: Time(Timestamp::UNIX_EPOCH),
                    }),
                    ..Default::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn any_status_however_forged_comes_to_rest_and_claims_nothing_it_has_not_seen(
        status in any_status(),
        suspend: bool,
        backoff_limit: i32,
        proven: bool,
        second in 0_i64..4_000_000_000,
    ) {
        let mut world = World::with(DatasetImportJobSpec { suspend, backoff_limit, ..spec() });
        world.job.status = Some(status);
        world.now = Timestamp::from_second(second).unwrap();
        prop_assert!(world.pass(proven, 500).is_some());
        prop_assert!(world.accepted.len() <= 1);
        let status = world.status();
        for condition in &status.conditions {
            prop_assert!(condition.message.chars().count() <= 2048);
            prop_assert!(!condition.message.contains(char::is_control));
        }
        if !proven && let Some(arn) = &status.dataset_import_job_arn && world.writes > 0 {
            let known = world.jobs.keys().any(|name| DatasetArn::parse(&world.job.spec.dataset_arn).unwrap().job(name).0 == *arn);
            prop_assert!(known || Reason::of(&status) == Some(Reason::JobNotFound));
        }
    }
}

#[test]
fn what_a_namespace_may_not_import_is_neither_looked_up_nor_sent() {
    let mut world = World::new();
    world.permission = Err("its list has no such dataset".into());
    let rest = world.settle();
    assert_eq!(Reason::of(&world.status()), Some(Reason::NotPermitted));
    assert_eq!(rest.again, Again::Setback(Pace::Slow));
    assert_eq!((world.reads, world.accepted.len()), (0, 0));
    world.permission = Ok(());
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}

#[test]
fn an_intent_that_a_crash_left_over_is_not_carried_out_once_the_namespace_may_not() {
    let mut world = intended();
    world.now = after(world.now, policy().grace * 2);
    world.permission = Err("its list has no such dataset".into());
    world.pass(true, 100);
    assert_eq!(Reason::of(&world.status()), Some(Reason::NotPermitted));
    assert_eq!((world.status().submission, world.accepted.len()), (None, 0));
}
