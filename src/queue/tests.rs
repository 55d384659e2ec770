//! The queue's rules, by example and by property.

use super::*;
use crate::api::{DatasetImportJobStatus, Submission};
use crate::import::request::tests::spec;
use crate::import::timing::tests::policy;
use crate::personalize::ACTIVE;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A resource made in that second, for that dataset; its name is its UID.
fn resource(second: i64, dataset: &str) -> DatasetImportJob {
    let mut job = DatasetImportJob::new(&format!("r{second:03}"), spec());
    job.spec.dataset_arn = format!("arn:aws:personalize:eu-west-1:123456789012:dataset/shop/{dataset}");
    job.metadata.namespace = Some("shop".into());
    job.metadata.uid = job.metadata.name.clone();
    job.metadata.creation_timestamp = Some(Time(at(second)));
    job.metadata.resource_version = Some("1".into());
    job
}

fn request(job: &DatasetImportJob) -> ImportRequest {
    ImportRequest::new("shop", &job.name_any(), &job.spec).unwrap()
}

/// The resource after it was submitted, in a later version.
fn submitted(mut job: DatasetImportJob, status: Option<&str>) -> DatasetImportJob {
    let request = request(&job);
    job.status = Some(DatasetImportJobStatus {
        dataset_import_job_arn: Some(request.job_arn(1).0),
        attempts: Some(1),
        status: status.map(Into::into),
        completion_time: status.map(|_| Time(at(900))),
        start_time: Some(Time(at(800))),
        ..Default::default()
    });
    job.metadata.resource_version = Some("2".into());
    job
}

fn intended(mut job: DatasetImportJob) -> DatasetImportJob {
    let request = request(&job);
    job.status = Some(DatasetImportJobStatus {
        submission: Some(Submission {
            job_name: request.job_name(1),
            attempt: 1,
            request_hash: request.hash(),
            generation: 1,
            time: Time(at(0)),
        }),
        ..Default::default()
    });
    job.metadata.resource_version = Some("2".into());
    job
}

fn queue(jobs: &[DatasetImportJob]) -> Queue {
    let mut queue = Queue::new(2, policy());
    jobs.iter().for_each(|job| {
        queue.observe(job, true);
    });
    queue
}

fn go(queue: &mut Queue, uid: &str) -> bool {
    queue.try_admit(uid, at(1000)) == Admission::Admitted
}

#[test]
fn no_more_run_at_once_than_the_quota_and_the_oldest_go_first() {
    let mut queue = queue(&[resource(3, "c"), resource(2, "b"), resource(1, "a")]);
    assert!(!go(&mut queue, "r003"), "the newest waits for the older two");
    assert!(go(&mut queue, "r002") && go(&mut queue, "r001"));
    assert!(!go(&mut queue, "r003"));
    queue.observe(&submitted(resource(1, "a"), Some(ACTIVE)), true);
    queue.release("r001");
    assert!(go(&mut queue, "r003"));
}

#[test]
fn one_dataset_takes_one_import_at_a_time_in_the_order_of_age() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a"), resource(3, "b")]);
    assert!(!go(&mut queue, "r002"));
    assert!(go(&mut queue, "r003"), "another dataset needn't wait");
    assert!(go(&mut queue, "r001"));
    assert!(!go(&mut queue, "r002"));
}

#[test]
fn nothing_waits_behind_a_head_that_can_not_go() {
    let mut suspended = resource(1, "a");
    suspended.annotations_mut().insert(crate::api::SUSPEND.into(), "true".into());
    let mut rejected = resource(2, "b");
    let mut status = DatasetImportJobStatus::default();
    crate::api::conditions::set(&mut status, 1, Reason::AccessDenied, "", at(0));
    rejected.status = Some(status);
    let mut queue = queue(&[suspended, rejected, resource(3, "a"), resource(4, "b")]);
    assert!(go(&mut queue, "r003") && go(&mut queue, "r004"));
}

#[test]
fn a_dataset_that_is_not_ready_keeps_the_order_of_those_who_wait_for_it_and_holds_up_nobody_else() {
    let mut waits = resource(1, "a");
    let mut status = DatasetImportJobStatus::default();
    crate::api::conditions::set(&mut status, 1, Reason::DatasetNotReady, "", at(0));
    waits.status = Some(status);
    let mut queue = Queue::new(1, policy());
    [waits, resource(2, "a"), resource(3, "b")].iter().for_each(|job| {
        queue.observe(job, true);
    });
    queue.postpone("r001", Some(at(2000)));
    assert!(!go(&mut queue, "r002"), "it would overtake the older one");
    assert!(go(&mut queue, "r003"), "another dataset needn't wait");
}

#[test]
fn one_that_somebodys_finalizer_keeps_on_its_way_out_holds_up_nobody() {
    for status in [None, Some("CREATE IN_PROGRESS")] {
        let mut leaving = submitted(resource(1, "a"), status);
        leaving.metadata.deletion_timestamp = Some(Time(at(5)));
        let mut queue = queue(&[leaving, resource(2, "a")]);
        assert!(go(&mut queue, "r002"));
    }
}

#[test]
fn a_deleted_one_keeps_its_place_while_its_request_is_under_way() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a")]);
    assert!(go(&mut queue, "r001"));
    assert_eq!(queue.forget("r001", at(1000)), None);
    assert!(!go(&mut queue, "r002"));
    assert!(queue.release("r001"));
    assert!(go(&mut queue, "r002"));
    // One that was made anew under the same name is another resource.
    let mut queue = self::queue(&[resource(1, "a")]);
    assert!(go(&mut queue, "r001"));
    assert_eq!(queue.forget("r001", at(1000)), None);
    let mut anew = resource(1, "a");
    anew.metadata.uid = Some("anew".into());
    queue.observe(&anew, true);
    assert!(!go(&mut queue, "anew"));
}

#[test]
fn what_has_landed_is_as_old_as_its_resource() {
    let mut landed = submitted(resource(10, "a"), Some(ACTIVE));
    let name = request(&landed).job_name(1);
    if let Some(status) = &mut landed.status {
        status.job_name = Some(name.clone());
    }
    let queue = queue(std::slice::from_ref(&landed));
    let dataset = request(&landed).dataset;
    assert_eq!(queue.ages(&dataset), HashMap::from([(name.as_str(), at(10))]));
    assert_eq!(queue.ages(&request(&resource(1, "b")).dataset), HashMap::new());
}

#[test]
fn nobody_waits_for_one_that_something_else_holds_up() {
    let mut queue = Queue::new(1, policy());
    [resource(1, "a"), resource(2, "b")].iter().for_each(|job| {
        queue.observe(job, true);
    });
    assert!(!go(&mut queue, "r002"));
    queue.postpone("r001", Some(at(2000)));
    assert!(go(&mut queue, "r002"));
    queue.release("r002");
    assert!(matches!(queue.try_admit("r002", at(2000)), Admission::Pending { .. }));
}

#[test]
fn an_older_import_never_lands_after_a_newer_one() {
    let newer = submitted(resource(10, "a"), Some(ACTIVE));
    let mut queue = queue(&[resource(1, "a"), newer.clone()]);
    assert!(matches!(queue.try_admit("r001", at(1000)), Admission::Superseded { by } if by.name == "r010"));
    // A job that was only adopted by a newer resource is as old as the job.
    let mut adopted = newer;
    if let Some(status) = &mut adopted.status {
        status.start_time = Some(Time(at(0)));
    }
    let mut queue = self::queue(&[resource(1, "a"), adopted]);
    assert!(go(&mut queue, "r001"));
}

#[test]
fn a_failed_newer_import_does_not_keep_an_older_one_from_going() {
    let mut queue = queue(&[resource(1, "a"), submitted(resource(10, "a"), Some("CREATE FAILED"))]);
    assert!(go(&mut queue, "r001"));
}

#[test]
fn what_was_submitted_before_a_restart_counts() {
    let intent = intended(resource(1, "a"));
    let running = submitted(resource(2, "b"), None);
    let mut queue = queue(&[intent, running, resource(3, "c")]);
    assert!(!go(&mut queue, "r003"));
    assert!(go(&mut queue, "r001"), "who has recorded an intent goes on with it");
}

#[test]
fn a_stale_delivery_frees_nothing() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a")]);
    assert!(go(&mut queue, "r001"));
    queue.observe(&intended(resource(1, "a")), true);
    queue.release("r001");
    queue.observe(&resource(1, "a"), true);
    assert!(!go(&mut queue, "r002"));
    // A new listing may bring older versions: a restored etcd.
    queue.relist(None);
    queue.observe(&resource(1, "a"), true);
    queue.forget("r001", at(1000));
    assert!(go(&mut queue, "r002"));
}

#[test]
fn after_a_refusal_one_at_a_time_finds_out_whether_there_is_room() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "b")]);
    let location = request(&resource(1, "a")).dataset.location().clone();
    assert!(go(&mut queue, "r001"));
    queue.release("r001");
    queue.hold(&location, CooldownCause::Quota, at(1000), |_| Duration::from_secs(60));
    assert!(matches!(queue.try_admit("r001", at(1000)), Admission::Pending { until: Some(_), .. }));
    assert_eq!(queue.try_admit("r001", at(1060)), Admission::Admitted);
    assert!(matches!(queue.try_admit("r002", at(1060)), Admission::Pending { .. }));
    queue.accepted(&location);
    assert_eq!(queue.try_admit("r002", at(1060)), Admission::Admitted);
}

#[test]
fn other_accounts_and_regions_are_lanes_of_their_own() {
    let mut elsewhere = resource(3, "a");
    elsewhere.spec.dataset_arn = elsewhere.spec.dataset_arn.replace("eu-west-1", "us-east-1");
    let mut queue = queue(&[resource(1, "a"), resource(2, "b"), elsewhere]);
    assert!(go(&mut queue, "r001") && go(&mut queue, "r002") && go(&mut queue, "r003"));
}

proptest! {
    #[test]
    fn whatever_happens_the_quota_and_the_datasets_are_kept(
        datasets in proptest::collection::vec(0..4_u8, 1..20),
        acts in proptest::collection::vec((any::<prop::sample::Index>(), 0..4_u8), 0..200),
    ) {
        let jobs: Vec<_> = datasets.iter().enumerate().map(|(i, d)| resource(i64::try_from(i).unwrap(), &format!("d{d}"))).collect();
        let mut queue = queue(&jobs);
        let mut running: HashMap<String, u8> = HashMap::new();
        let mut done = HashSet::new();
        for (index, act) in acts {
            let i = index.index(jobs.len());
            let uid = jobs[i].uid().unwrap();
            match act {
                0 | 1 if !done.contains(&uid) => {
                    if queue.try_admit(&uid, at(1000)) == Admission::Admitted {
                        running.insert(uid, datasets[i]);
                    }
                }
                2 if running.contains_key(&uid) => {
                    queue.observe(&submitted(jobs[i].clone(), None), true);
                }
                3 if running.remove(&uid).is_some() => {
                    let mut ended = submitted(jobs[i].clone(), Some(ACTIVE));
                    ended.metadata.resource_version = Some("3".into());
                    queue.observe(&ended, true);
                    queue.release(&uid);
                    done.insert(uid);
                }
                _ => {
                    queue.observe(&jobs[i], true);
                }
            }
            prop_assert!(running.len() <= 2);
            prop_assert_eq!(running.values().collect::<HashSet<_>>().len(), running.len());
        }
    }

    #[test]
    fn everybody_gets_a_turn(datasets in proptest::collection::vec(0..4_u8, 1..30)) {
        let jobs: Vec<_> = datasets.iter().enumerate().map(|(i, d)| resource(i64::try_from(i).unwrap(), &format!("d{d}"))).collect();
        let mut queue = queue(&jobs);
        let location = request(&jobs[0]).dataset.location().clone();
        let mut order: Vec<String> = Vec::new();
        while let Some(key) = queue.ready(&location, at(1000)).first().cloned() {
            prop_assert_eq!(queue.try_admit(&key.name, at(1000)), Admission::Admitted);
            let job = jobs.iter().find(|j| j.name_any() == key.name).unwrap();
            queue.observe(&submitted(job.clone(), Some(ACTIVE)), true);
            queue.release(&key.name);
            order.push(key.name);
        }
        let all: Vec<String> = jobs.iter().map(ResourceExt::name_any).collect();
        prop_assert_eq!(order, all);
    }
}

#[test]
fn what_a_deleted_resource_has_sent_keeps_its_dataset_until_it_can_not_arrive_any_more() {
    let mut queue = queue(&[intended(resource(1, "a")), resource(2, "a"), resource(3, "b")]);
    assert_eq!(queue.forget("r001", at(10)), None);
    assert!(!queue.knows("r001"));
    let grace = i64::try_from(policy().grace.as_secs()).unwrap();
    let Admission::Pending { until: Some(until), .. } = queue.try_admit("r002", at(10)) else {
        panic!("time alone frees it")
    };
    assert_eq!(until, at(grace));
    assert_eq!(queue.in_flight(request(&resource(1, "a")).dataset.location(), at(10)), 1);
    assert_eq!(queue.try_admit("r002", until), Admission::Admitted);
    // One that somebody's finalizer keeps on its way out is no different.
    let mut leaving = intended(resource(1, "a"));
    leaving.metadata.deletion_timestamp = Some(Time(at(5)));
    let mut queue = self::queue(&[leaving, resource(2, "a")]);
    assert!(matches!(queue.try_admit("r002", at(10)), Admission::Pending { .. }));
    assert_eq!(queue.try_admit("r002", until), Admission::Admitted);
}

#[test]
fn a_place_that_is_kept_for_a_doubtful_write_goes_with_its_resource() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a")]);
    assert!(go(&mut queue, "r001"));
    assert!(!queue.stumble("r001", at(1010), false, true), "the write may have taken effect");
    assert!(!go(&mut queue, "r002"));
    assert!(queue.forget("r001", at(1000)).is_some());
    assert!(go(&mut queue, "r002"));
}

#[test]
fn one_whose_pass_failed_is_not_woken_before_its_time_and_after_many_failures_nobody_waits_for_it() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a")]);
    let location = request(&resource(1, "a")).dataset.location().clone();
    assert!(go(&mut queue, "r001"));
    assert!(queue.stumble("r001", at(2000), false, false));
    assert_eq!(queue.ready(&location, at(1000)), [], "neither itself nor one that would overtake it");
    assert!(!go(&mut queue, "r002"));
    assert!(queue.stumble("r001", at(2000), true, false) || go(&mut queue, "r002"));
    queue.release("r002");
    assert!(matches!(queue.try_admit("r002", at(2000)), Admission::Pending { .. }), "its time has come");
}

#[test]
fn a_success_that_nobody_vouches_for_supersedes_nobody() {
    let mut queue = Queue::new(2, policy());
    queue.observe(&resource(1, "a"), true);
    queue.observe(&submitted(resource(10, "a"), Some(ACTIVE)), false);
    assert_eq!(queue.try_admit("r001", at(1000)), Admission::Admitted);
    assert_eq!(queue.ages(&request(&resource(1, "a")).dataset), HashMap::new());
}

#[test]
fn while_the_service_takes_nothing_only_the_first_in_the_line_has_a_time_to_ask_again() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "b"), resource(3, "c")]);
    let location = request(&resource(1, "a")).dataset.location().clone();
    queue.hold(&location, CooldownCause::Throttled, at(1000), |_| Duration::from_secs(60));
    let Admission::Pending { why, until } = queue.try_admit("r001", at(1000)) else { panic!("nobody goes") };
    assert!(why.contains("slows submissions down") && until == Some(at(1060)), "{why} {until:?}");
    assert!(
        matches!(queue.try_admit("r002", at(1060)), Admission::Pending { until: None, .. }),
        "not even when it is over"
    );
    assert!(matches!(queue.try_admit("r002", at(1000)), Admission::Pending { until: None, .. }));
    queue.hold(&location, CooldownCause::Quota, at(1000), |_| Duration::from_secs(60));
    assert!(
        matches!(queue.try_admit("r003", at(1000)), Admission::Pending { why, .. } if why.contains("may run at once"))
    );
}

#[test]
fn one_waits_since_it_may_and_not_since_it_was_made() {
    let location = request(&resource(1, "a")).dataset.location().clone();
    let mut released = resource(1, "a");
    let mut status = DatasetImportJobStatus::default();
    crate::api::conditions::set(&mut status, 1, Reason::Suspended, "", at(2));
    crate::api::conditions::set(&mut status, 1, Reason::Queued, "", at(500));
    released.status = Some(status);
    assert_eq!(queue(std::slice::from_ref(&released)).tally(at(1000))[&location].since, Some(at(500)));
    assert_eq!(queue(&[released, resource(7, "b")]).tally(at(1000))[&location].since, Some(at(7)));
}

#[test]
fn only_jobs_that_run_are_to_be_looked_at() {
    let queue = queue(&[resource(1, "a"), intended(resource(2, "b")), submitted(resource(3, "c"), None)]);
    assert_eq!(queue.followed(), [("r003".to_owned(), at(800))]);
}

#[test]
fn a_spec_that_can_not_be_read_has_no_place_and_is_counted() {
    let mut odd = resource(1, "a");
    odd.spec.dataset_arn = "none".into();
    let mut queue = queue(&[odd]);
    assert_eq!(queue.reasons()[&Some(Reason::InvalidSpec)], 1);
    assert_eq!(queue.relist(None), HashSet::from(["r001".to_owned()]));
    queue.forget("r001", at(1000));
    assert_eq!(queue.reasons()[&Some(Reason::InvalidSpec)], 0);
}

#[test]
fn the_echo_of_a_write_says_no_more_than_the_write_did_until_all_is_listed_anew() {
    let landed = submitted(resource(1, "a"), Some(ACTIVE));
    let mut queue = queue(&[landed.clone(), resource(2, "a")]);
    assert!(!queue.observe(&landed, false));
    assert_eq!(queue.try_admit("r002", at(1000)), Admission::Admitted);
    queue.release("r002");
    queue.relist(None);
    assert!(queue.observe(&landed, false));
    assert!(matches!(queue.try_admit("r002", at(1000)), Admission::Pending { .. }));
    assert!(queue.observe(&landed, true), "it was held against what the service tells");
    assert_eq!(queue.try_admit("r002", at(1000)), Admission::Admitted);
}

#[test]
fn one_that_was_rejected_is_tried_again_also_after_a_refusal_that_nobody_else_cleared() {
    let mut rejected = resource(1, "a");
    let mut status = DatasetImportJobStatus::default();
    crate::api::conditions::set(&mut status, 1, Reason::InvalidInput, "", at(0));
    rejected.status = Some(status);
    let location = request(&rejected).dataset.location().clone();
    let mut queue = queue(&[rejected]);
    queue.hold(&location, CooldownCause::Quota, at(1000), |_| Duration::from_secs(60));
    assert!(matches!(queue.try_admit("r001", at(1000)), Admission::Pending { until: Some(_), .. }));
    assert_eq!(queue.try_admit("r001", at(1060)), Admission::Admitted);
}
