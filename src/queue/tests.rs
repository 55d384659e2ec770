//! The queue by example and by property.

use super::*;
use crate::api::conditions::{self, DataCurrent};
use crate::api::{DatasetImportJobStatus, ImportMode, Submission};
use crate::import::timing::after;
use crate::personalize::ACTIVE;
use crate::testing::{spec, timing};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use std::collections::VecDeque;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A resource of this dataset, created in this second. Its UID is its name.
fn resource(second: i64, dataset: &str) -> DatasetImportJob {
    let mut resource = DatasetImportJob::new(&format!("r{second:03}"), spec());
    resource.spec.dataset_arn = format!("arn:aws:personalize:eu-west-1:123456789012:dataset/shop/{dataset}");
    resource.metadata.namespace = Some("shop".into());
    resource.metadata.uid = resource.metadata.name.clone();
    resource.metadata.creation_timestamp = Some(Time(at(second)));
    resource.metadata.resource_version = Some("1".into());
    resource
}

fn request(resource: &DatasetImportJob) -> ImportRequest {
    ImportRequest::of(resource).unwrap()
}

/// A later version of the resource, with a job.
fn submitted(mut resource: DatasetImportJob, status: Option<&str>) -> DatasetImportJob {
    let request = request(&resource);
    resource.status = Some(DatasetImportJobStatus {
        dataset_import_job_arn: Some(request.job_arn(1).0),
        attempts: Some(1),
        status: status.map(Into::into),
        completion_time: status.map(|_| Time(at(900))),
        start_time: Some(Time(at(800))),
        ..Default::default()
    });
    resource.metadata.resource_version = Some("2".into());
    resource
}

fn with_intent(mut resource: DatasetImportJob) -> DatasetImportJob {
    let request = request(&resource);
    resource.status = Some(DatasetImportJobStatus {
        submission: Some(Submission {
            job_name: request.job_name(1),
            attempt: 1,
            request_hash: request.hash(),
            generation: 1,
            time: Time(at(0)),
        }),
        ..Default::default()
    });
    resource.metadata.resource_version = Some("2".into());
    resource
}

fn queue(resources: &[DatasetImportJob]) -> Queue {
    let mut queue = Queue::new(2, timing());
    resources.iter().for_each(|resource| {
        queue.observe(resource, Trust::Trusted);
    });
    queue
}

fn admit(queue: &mut Queue, uid: &str) -> bool {
    queue.try_admit(uid, at(1000)) == Admission::Admitted
}

#[test]
fn quota_admits_the_oldest_resources_first() {
    let mut queue = queue(&[resource(3, "c"), resource(2, "b"), resource(1, "a")]);
    assert!(!admit(&mut queue, "r003"), "the newest waits for the two older ones");
    assert!(admit(&mut queue, "r002") && admit(&mut queue, "r001"));
    assert!(!admit(&mut queue, "r003"));
    queue.observe(&submitted(resource(1, "a"), Some(ACTIVE)), Trust::Trusted);
    queue.release("r001");
    assert!(admit(&mut queue, "r003"));
}

#[test]
fn dataset_admits_one_import_at_a_time_oldest_first() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a"), resource(3, "b")]);
    assert!(!admit(&mut queue, "r002"));
    assert!(admit(&mut queue, "r003"), "another dataset does not wait");
    assert!(admit(&mut queue, "r001"));
    assert!(!admit(&mut queue, "r002"));
}

#[test]
fn suspended_or_rejected_resource_blocks_no_other() {
    let mut suspended = resource(1, "a");
    suspended.annotations_mut().insert(crate::api::SUSPEND.into(), "true".into());
    let mut rejected = resource(2, "b");
    let mut status = DatasetImportJobStatus::default();
    conditions::set(&mut status, 1, Reason::AccessDenied, "", at(0));
    rejected.status = Some(status);
    let mut queue = queue(&[suspended, rejected, resource(3, "a"), resource(4, "b")]);
    assert!(admit(&mut queue, "r003") && admit(&mut queue, "r004"));
}

#[test]
fn unready_dataset_keeps_its_order_and_blocks_no_other_dataset() {
    let mut waits = resource(1, "a");
    let mut status = DatasetImportJobStatus::default();
    conditions::set(&mut status, 1, Reason::DatasetNotReady, "", at(0));
    waits.status = Some(status);
    let mut queue = Queue::new(1, timing());
    [waits, resource(2, "a"), resource(3, "b")].iter().for_each(|resource| {
        queue.observe(resource, Trust::Trusted);
    });
    queue.set_requeue_at("r001", Some(at(2000)));
    assert!(!admit(&mut queue, "r002"), "the older one goes first");
    assert!(admit(&mut queue, "r003"), "another dataset does not wait");
}

#[test]
fn deleted_resource_with_a_finalizer_blocks_no_other_once_its_job_has_ended() {
    let mut deleted = submitted(resource(1, "a"), None);
    deleted.metadata.deletion_timestamp = Some(Time(at(5)));
    let mut queue = queue(&[deleted.clone(), resource(2, "a")]);
    assert!(!admit(&mut queue, "r002"));
    queue.deleted_job_polled("r001", Some(false), at(1000));
    queue.observe(&deleted, Trust::Trusted);
    assert!(admit(&mut queue, "r002"));
}

#[test]
fn deleted_resource_keeps_its_dataset_while_its_request_is_in_flight() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a")]);
    assert!(admit(&mut queue, "r001"));
    assert_eq!(queue.forget("r001", at(1000)), None);
    assert!(!admit(&mut queue, "r002"));
    assert!(queue.release("r001"));
    assert!(admit(&mut queue, "r002"));
    // A re-created resource of the same name is another resource.
    let mut queue = self::queue(&[resource(1, "a")]);
    assert!(admit(&mut queue, "r001"));
    assert_eq!(queue.forget("r001", at(1000)), None);
    let mut recreated = resource(1, "a");
    recreated.metadata.uid = Some("recreated".into());
    queue.observe(&recreated, Trust::Trusted);
    assert!(!admit(&mut queue, "recreated"));
}

#[test]
fn successful_import_is_as_old_as_its_resource() {
    let mut succeeded = submitted(resource(10, "a"), Some(ACTIVE));
    let name = request(&succeeded).job_name(1);
    if let Some(status) = &mut succeeded.status {
        status.job_name = Some(name.clone());
    }
    let queue = queue(std::slice::from_ref(&succeeded));
    let dataset = request(&succeeded).dataset;
    assert_eq!(queue.requested_at(&dataset), HashMap::from([(name.as_str(), at(10))]));
    assert_eq!(queue.requested_at(&request(&resource(1, "b")).dataset), HashMap::new());
}

#[test]
fn no_quota_is_kept_free_for_a_backed_off_resource() {
    let mut queue = Queue::new(1, timing());
    [resource(1, "a"), resource(2, "b")].iter().for_each(|resource| {
        queue.observe(resource, Trust::Trusted);
    });
    assert!(!admit(&mut queue, "r002"));
    queue.set_requeue_at("r001", Some(at(2000)));
    assert!(admit(&mut queue, "r002"));
    queue.release("r002");
    assert!(matches!(queue.try_admit("r002", at(2000)), Admission::Pending { .. }));
}

#[test]
fn job_of_a_deleted_resource_uses_the_quota_until_it_ends() {
    let running = submitted(resource(1, "a"), None);
    for (poll, is_over) in [(Some(true), false), (Some(false), true), (None, true)] {
        let mut queue = Queue::new(1, timing());
        [running.clone(), resource(2, "b")].iter().for_each(|resource| {
            queue.observe(resource, Trust::Trusted);
        });
        queue.forget("r001", at(1000));
        let later = at(1000 + i64::try_from(timing().grace.as_secs()).unwrap());
        let due = queue.deleted_jobs(later);
        assert_eq!(due.iter().map(|job| job.name.clone()).collect::<Vec<_>>(), [request(&running).job_name(1)]);
        assert_eq!(queue.deleted_jobs(later), [], "the next poll is not due yet");
        assert!(matches!(queue.try_admit("r002", later), Admission::Pending { .. }));
        queue.deleted_job_polled("r001", poll, later);
        assert_eq!(!queue.take_freed().is_empty(), is_over, "{poll:?}");
        assert_eq!(queue.try_admit("r002", later) == Admission::Admitted, is_over, "{poll:?}");
    }
}

#[test]
fn job_that_a_new_resource_adopts_counts_once() {
    let running = submitted(resource(1, "a"), None);
    let mut queue = Queue::new(2, timing());
    queue.observe(&running, Trust::Trusted);
    queue.forget("r001", at(1000));
    let mut adopted = running;
    adopted.metadata.uid = Some("again".into());
    queue.observe(&adopted, Trust::Trusted);
    queue.observe(&resource(2, "b"), Trust::Trusted);
    assert_eq!(queue.try_admit("r002", at(2000)), Admission::Admitted);
}

#[test]
fn newer_full_import_into_the_dataset_replaces_the_data_of_older_ones() {
    let succeeded = |second: i64, dataset: &str, current: bool| {
        let mut resource = submitted(resource(second, dataset), Some(ACTIVE));
        let status = resource.status.as_mut().unwrap();
        status.creation_date_time = Some(Time(at(second)));
        conditions::set(status, 1, Reason::ImportSucceeded, "", at(second));
        let value = if current { DataCurrent::True } else { DataCurrent::False };
        conditions::set_data_current(status, 1, value, "", at(second));
        resource
    };
    let mut append = succeeded(4, "a", true);
    append.spec.import_mode = ImportMode::Incremental;
    let queue = queue(&[
        succeeded(1, "a", false),
        succeeded(2, "a", true),
        succeeded(3, "a", true),
        append,
        succeeded(5, "b", true),
    ]);
    let newer = |uid: &str| queue.newer_import(uid).map(|key| key.name);
    assert_eq!((newer("r001"), newer("r002")), (Some("r003".into()), Some("r003".into())));
    assert_eq!((newer("r003"), newer("r005")), (None, None));
    let replaced = |uid: &str| queue.replaced_by(uid).into_iter().map(|key| key.name).collect::<Vec<_>>();
    assert_eq!((replaced("r003"), replaced("r004")), (vec!["r002".to_owned()], vec![]), "only what is not known yet");
}

#[test]
fn import_that_waits_for_the_first_full_one_holds_up_no_other_and_is_woken_by_it() {
    let mut waiting = resource(1, "a");
    waiting.spec.import_mode = ImportMode::Incremental;
    let mut status = DatasetImportJobStatus::default();
    conditions::set(&mut status, 1, Reason::WaitingForFullImport, "", at(1));
    waiting.status = Some(status);
    let mut queue = queue(&[waiting, resource(2, "a")]);
    let region = request(&resource(1, "a")).dataset.account_region().clone();
    assert_eq!(queue.admissible(&region, at(1000)).len(), 1);
    assert!(admit(&mut queue, "r002"));
    queue.release("r002");
    queue.observe(&submitted(resource(2, "a"), Some(ACTIVE)), Trust::Trusted);
    let woken: Vec<String> = queue.admissible(&region, at(1000)).into_iter().map(|key| key.name).collect();
    assert_eq!(woken, ["r001"]);
}

#[test]
fn submissions_from_before_a_restart_use_the_quota() {
    let intent = with_intent(resource(1, "a"));
    let running = submitted(resource(2, "b"), None);
    let mut queue = queue(&[intent, running, resource(3, "c")]);
    assert!(!admit(&mut queue, "r003"));
    assert!(admit(&mut queue, "r001"), "a recorded intent is continued");
}

#[test]
fn stale_watch_event_releases_nothing() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a")]);
    assert!(admit(&mut queue, "r001"));
    queue.observe(&with_intent(resource(1, "a")), Trust::Trusted);
    queue.release("r001");
    queue.observe(&resource(1, "a"), Trust::Trusted);
    assert!(!admit(&mut queue, "r002"));
    // A new listing may have older versions: a restored etcd.
    queue.relist(None);
    queue.observe(&resource(1, "a"), Trust::Trusted);
    queue.forget("r001", at(1000));
    assert!(admit(&mut queue, "r002"));
}

#[test]
fn after_a_cooldown_one_resource_is_admitted_until_the_service_accepts_an_import() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "b")]);
    let account_region = request(&resource(1, "a")).dataset.account_region().clone();
    assert!(admit(&mut queue, "r001"));
    queue.release("r001");
    queue.start_cooldown(&account_region, CooldownCause::Quota, at(1000), |_| Duration::from_secs(60));
    assert!(matches!(queue.try_admit("r001", at(1000)), Admission::Pending { until: Some(_), .. }));
    assert_eq!(queue.try_admit("r001", at(1060)), Admission::Admitted);
    assert!(matches!(queue.try_admit("r002", at(1060)), Admission::Pending { .. }));
    queue.accepted(&account_region);
    assert_eq!(queue.try_admit("r002", at(1060)), Admission::Admitted);
}

#[test]
fn accounts_and_regions_have_separate_pools() {
    let mut elsewhere = resource(3, "a");
    elsewhere.spec.dataset_arn = elsewhere.spec.dataset_arn.replace("eu-west-1", "us-east-1");
    let mut queue = queue(&[resource(1, "a"), resource(2, "b"), elsewhere]);
    assert!(admit(&mut queue, "r001") && admit(&mut queue, "r002") && admit(&mut queue, "r003"));
}

proptest! {
    #[test]
    fn quota_and_datasets_are_respected_in_any_order_of_events(
        datasets in proptest::collection::vec(0..4_u8, 1..20),
        events in proptest::collection::vec((any::<prop::sample::Index>(), 0..4_u8), 0..200),
    ) {
        let resources: Vec<_> = datasets.iter().enumerate().map(|(i, d)| resource(i64::try_from(i).unwrap(), &format!("d{d}"))).collect();
        let mut queue = queue(&resources);
        let mut running: HashMap<String, u8> = HashMap::new();
        let mut done = HashSet::new();
        for (index, event) in events {
            let i = index.index(resources.len());
            let uid = resources[i].uid().unwrap();
            match event {
                0 | 1 if !done.contains(&uid) => {
                    if queue.try_admit(&uid, at(1000)) == Admission::Admitted {
                        running.insert(uid, datasets[i]);
                    }
                }
                2 if running.contains_key(&uid) => {
                    queue.observe(&submitted(resources[i].clone(), None), Trust::Trusted);
                }
                3 if running.remove(&uid).is_some() => {
                    let mut ended = submitted(resources[i].clone(), Some(ACTIVE));
                    ended.metadata.resource_version = Some("3".into());
                    queue.observe(&ended, Trust::Trusted);
                    queue.release(&uid);
                    done.insert(uid);
                }
                _ => {
                    queue.observe(&resources[i], Trust::Trusted);
                }
            }
            prop_assert!(running.len() <= 2);
            prop_assert_eq!(running.values().collect::<HashSet<_>>().len(), running.len());
        }
    }

    #[test]
    fn every_resource_is_admitted_in_order(datasets in proptest::collection::vec(0..4_u8, 1..30)) {
        let resources: Vec<_> = datasets.iter().enumerate().map(|(i, d)| resource(i64::try_from(i).unwrap(), &format!("d{d}"))).collect();
        let mut queue = queue(&resources);
        let account_region = request(&resources[0]).dataset.account_region().clone();
        let mut order: Vec<String> = Vec::new();
        while let Some(key) = queue.admissible(&account_region, at(1000)).first().cloned() {
            prop_assert_eq!(queue.try_admit(&key.name, at(1000)), Admission::Admitted);
            let resource = resources.iter().find(|j| j.name_any() == key.name).unwrap();
            queue.observe(&submitted(resource.clone(), Some(ACTIVE)), Trust::Trusted);
            queue.release(&key.name);
            order.push(key.name);
        }
        let all: Vec<String> = resources.iter().map(ResourceExt::name_any).collect();
        prop_assert_eq!(order, all);
    }
}

/// Polls the jobs of deleted resources; the service knows none.
fn poll_unknown_jobs(queue: &mut Queue, now: Timestamp) -> usize {
    let due = queue.deleted_jobs(now);
    due.iter().for_each(|job| queue.deleted_job_polled(&job.uid, None, now));
    due.len()
}

#[test]
fn deleted_resource_keeps_its_dataset_until_its_request_can_no_longer_arrive() {
    let mut marked = with_intent(resource(1, "a"));
    marked.metadata.deletion_timestamp = Some(Time(at(5)));
    // A finalizer makes no difference.
    for (first, is_marked) in [(with_intent(resource(1, "a")), false), (marked, true)] {
        let mut queue = queue(&[first, resource(2, "a")]);
        let region = request(&resource(1, "a")).dataset.account_region().clone();
        if !is_marked {
            assert_eq!(queue.forget("r001", at(10)), None);
        }
        assert!(!queue.contains("r001"));
        assert_eq!(queue.stats()[&region].in_flight, 1);
        assert_eq!(poll_unknown_jobs(&mut queue, at(10)), 1);
        assert_eq!(queue.take_freed(), BTreeSet::new(), "its request may still arrive");
        assert!(matches!(queue.try_admit("r002", at(10)), Admission::Pending { .. }));
        let end = after(at(0), timing().grace);
        poll_unknown_jobs(&mut queue, after(at(0), timing().grace / 2));
        assert_eq!(poll_unknown_jobs(&mut queue, end), 1, "it is due when the grace period ends");
        assert_eq!(queue.take_freed(), BTreeSet::from([region.clone()]));
        assert_eq!(queue.admissible(&region, end).len(), 1, "the next resource can be woken");
        assert_eq!(queue.try_admit("r002", end), Admission::Admitted);
        assert_eq!(queue.take_freed(), BTreeSet::new(), "once");
    }
}

#[test]
fn reservation_of_an_unconfirmed_write_ends_with_its_resource() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a")]);
    assert!(admit(&mut queue, "r001"));
    assert!(!queue.requeue_failed("r001", at(1010), false, true), "the write may have been applied");
    assert!(!admit(&mut queue, "r002"));
    assert!(queue.forget("r001", at(1000)).is_some());
    assert!(admit(&mut queue, "r002"));
}

#[test]
fn failed_reconciliation_waits_and_is_skipped_after_many_failures() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a")]);
    let account_region = request(&resource(1, "a")).dataset.account_region().clone();
    assert!(admit(&mut queue, "r001"));
    assert!(queue.requeue_failed("r001", at(2000), false, false));
    assert_eq!(queue.admissible(&account_region, at(1000)), [], "neither r001 nor r002, which waits for it");
    assert!(!admit(&mut queue, "r002"));
    assert!(!queue.requeue_failed("r001", at(2000), true, false), "its reservation was released before");
    assert!(admit(&mut queue, "r002"));
    queue.release("r002");
    assert!(matches!(queue.try_admit("r002", at(2000)), Admission::Pending { .. }), "the delay is over");
}

#[test]
fn untrusted_success_supersedes_nothing() {
    let mut queue = Queue::new(2, timing());
    queue.observe(&resource(1, "a"), Trust::Trusted);
    queue.observe(&submitted(resource(10, "a"), Some(ACTIVE)), Trust::Untrusted);
    assert_eq!(queue.try_admit("r001", at(1000)), Admission::Admitted);
    assert_eq!(queue.requested_at(&request(&resource(1, "a")).dataset), HashMap::new());
}

#[test]
fn during_a_cooldown_only_the_first_in_line_gets_a_time_to_retry() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "b"), resource(3, "c")]);
    let account_region = request(&resource(1, "a")).dataset.account_region().clone();
    queue.start_cooldown(&account_region, CooldownCause::Throttled, at(1000), |_| Duration::from_secs(60));
    let Admission::Pending { message, until } = queue.try_admit("r001", at(1000)) else {
        panic!("no resource is admitted")
    };
    assert!(message.contains("throttling requests") && until == Some(at(1060)), "{message} {until:?}");
    assert!(
        matches!(queue.try_admit("r002", at(1060)), Admission::Pending { until: None, .. }),
        "also after the cooldown"
    );
    assert!(matches!(queue.try_admit("r002", at(1000)), Admission::Pending { until: None, .. }));
    queue.start_cooldown(&account_region, CooldownCause::Quota, at(1000), |_| Duration::from_secs(60));
    assert!(
        matches!(queue.try_admit("r003", at(1000)), Admission::Pending { message, .. } if message.contains("at most 2 run at once"))
    );
}

#[test]
fn waiting_time_starts_when_the_resource_may_submit() {
    let account_region = request(&resource(1, "a")).dataset.account_region().clone();
    let mut released = resource(1, "a");
    let mut status = DatasetImportJobStatus::default();
    conditions::set(&mut status, 1, Reason::Suspended, "", at(2));
    conditions::set(&mut status, 1, Reason::Queued, "", at(500));
    released.status = Some(status);
    assert_eq!(queue(std::slice::from_ref(&released)).stats()[&account_region].pending_since, Some(at(500)));
    assert_eq!(queue(&[released, resource(7, "b")]).stats()[&account_region].pending_since, Some(at(7)));
}

#[test]
fn only_resources_with_a_job_are_running() {
    let queue = queue(&[resource(1, "a"), with_intent(resource(2, "b")), submitted(resource(3, "c"), None)]);
    assert_eq!(queue.running(), [("r003".to_owned(), at(800))]);
}

#[test]
fn invalid_spec_is_counted_and_belongs_to_no_pool() {
    let mut invalid = resource(1, "a");
    invalid.spec.dataset_arn = "none".into();
    let mut queue = queue(&[invalid]);
    assert_eq!(queue.reasons()[&Some(Reason::InvalidSpec)], 1);
    assert_eq!(queue.relist(None), HashSet::from(["r001".to_owned()]));
    queue.forget("r001", at(1000));
    assert_eq!(queue.reasons()[&Some(Reason::InvalidSpec)], 0);
}

#[test]
fn untrusted_copy_of_a_known_version_is_ignored_until_a_relist() {
    let succeeded = submitted(resource(1, "a"), Some(ACTIVE));
    let mut queue = queue(&[succeeded.clone(), resource(2, "a")]);
    assert!(!queue.observe(&succeeded, Trust::Untrusted));
    assert_eq!(queue.try_admit("r002", at(1000)), Admission::Admitted);
    queue.release("r002");
    queue.relist(None);
    assert!(queue.observe(&succeeded, Trust::Untrusted));
    assert!(matches!(queue.try_admit("r002", at(1000)), Admission::Pending { .. }));
    assert!(queue.observe(&succeeded, Trust::Trusted), "the service confirmed it");
    assert_eq!(queue.try_admit("r002", at(1000)), Admission::Admitted);
}

#[test]
fn rejected_resource_is_admitted_after_a_cooldown_that_no_other_resource_ended() {
    let mut rejected = resource(1, "a");
    let mut status = DatasetImportJobStatus::default();
    conditions::set(&mut status, 1, Reason::InvalidInput, "", at(0));
    rejected.status = Some(status);
    let account_region = request(&rejected).dataset.account_region().clone();
    let mut queue = queue(&[rejected]);
    queue.start_cooldown(&account_region, CooldownCause::Quota, at(1000), |_| Duration::from_secs(60));
    assert!(matches!(queue.try_admit("r001", at(1000)), Admission::Pending { until: Some(_), .. }));
    assert_eq!(queue.try_admit("r001", at(1060)), Admission::Admitted);
}

#[test]
fn quarantined_queue_admits_only_imports_in_flight_until_the_grace_period_ends() {
    let mut queue = queue(&[with_intent(resource(1, "a")), resource(2, "b")]);
    queue.quarantine(at(100));
    let end = after(at(100), timing().grace);
    assert_eq!(queue.try_admit("r001", at(100)), Admission::Admitted);
    let answer = queue.try_admit("r002", at(100));
    assert!(matches!(answer, Admission::Pending { until: Some(until), .. } if until == end), "{answer:?}");
    assert_eq!(queue.try_admit("r002", end), Admission::Admitted);
}

#[test]
fn quarantine_that_ends_early_admits_at_once() {
    let mut queue = queue(&[resource(1, "a")]);
    queue.quarantine(at(100));
    queue.end_quarantine();
    assert_eq!(queue.try_admit("r001", at(100)), Admission::Admitted);
}

#[test]
fn queue_is_untouched_until_a_status_shows_a_leader() {
    assert!(queue(&[resource(1, "a")]).is_untouched("shop"));
    for touched in [with_intent(resource(2, "b")), submitted(resource(2, "b"), Some(ACTIVE)), waiting(resource(2, "b"))]
    {
        let queue = queue(&[resource(1, "a"), touched]);
        assert!(!queue.is_untouched("shop") && !queue.is_untouched("") && queue.is_untouched("another"));
    }
}

/// The resource with the reason Queued.
fn waiting(mut resource: DatasetImportJob) -> DatasetImportJob {
    let mut status = DatasetImportJobStatus::default();
    conditions::set(&mut status, 1, Reason::Queued, "", at(0));
    resource.status = Some(status);
    resource
}

#[test]
fn queue_is_drained_when_no_create_request_may_still_arrive() {
    let intent = at(0);
    let end = after(intent, timing().grace);
    let mut queue = queue(&[with_intent(resource(1, "a")), resource(2, "b")]);
    assert!(!queue.is_drained(intent) && queue.is_drained(end));
    queue.forget("r001", intent);
    assert!(!queue.is_drained(intent) && queue.is_drained(end), "a deletion does not cancel the request");
    assert_eq!(queue.try_admit("r002", end), Admission::Admitted);
    assert!(!queue.is_drained(end), "a reconciliation is admitted");
    queue.release("r002");
    queue.quarantine(end);
    assert!(!queue.is_drained(end), "requests of an earlier leader may still arrive");
    assert!(queue.is_drained(after(end, timing().grace)));
}

/// A resource of this namespace.
fn resource_in(namespace: &str, second: i64, dataset: &str) -> DatasetImportJob {
    let mut resource = resource(second, dataset);
    resource.metadata.namespace = Some(namespace.into());
    resource
}

fn in_turn(quota: usize, resources: &[DatasetImportJob]) -> Queue {
    let mut queue = Queue::new(quota, timing()).with_order(QueueOrder::FairShares);
    resources.iter().for_each(|resource| {
        queue.observe(resource, Trust::Trusted);
    });
    queue
}

/// Imports resources that all take equally long. Returns the names of the first ones, in order.
fn import_in_order(queue: &mut Queue, quota: usize, resources: &[DatasetImportJob], count: usize) -> Vec<String> {
    let region = request(&resources[0]).dataset.account_region().clone();
    let mut order = Vec::new();
    let mut running = VecDeque::new();
    while order.len() < count {
        let admissible = queue.admissible(&region, at(10_000));
        if running.len() < quota
            && let Some(key) = admissible.first()
        {
            // Each one that is woken is admitted, in any order.
            for key in &admissible {
                assert_eq!(queue.clone().try_admit(&key.name, at(10_000)), Admission::Admitted);
            }
            assert_eq!(queue.try_admit(&key.name, at(10_000)), Admission::Admitted);
            running.push_back(key.name.clone());
            order.push(key.name.clone());
        } else if let Some(name) = running.pop_front() {
            let resource = resources.iter().find(|resource| resource.name_any() == name).unwrap().clone();
            queue.observe(&submitted(resource, Some(ACTIVE)), Trust::Trusted);
            queue.release(&name);
        } else {
            break;
        }
    }
    order
}

/// The places of the resources that wait.
fn line(queue: &Queue) -> Vec<String> {
    let lines = queue.lines(at(10_000), usize::MAX);
    lines.into_iter().flat_map(|line| line.waiting).map(|waiting| waiting.name).collect()
}

/// One namespace has 500 old resources, four others 5 new ones each.
fn flood() -> Vec<DatasetImportJob> {
    let flood = (0..500).map(|i| resource_in("flood", i, &format!("f{i}")));
    let teams = (500..520).map(|i| resource_in(&format!("team-{}", i % 4), i, &format!("t{i}")));
    flood.chain(teams).collect()
}

#[test]
fn namespaces_in_turn_let_a_flood_delay_the_others_by_a_few_imports() {
    for quota in [1, 2, 5, 10] {
        let resources = flood();
        let mut queue = in_turn(quota, &resources);
        let shown = line(&queue);
        let order = import_in_order(&mut queue, quota, &resources, 25);
        let floods = order.iter().filter(|name| name.as_str() < "r500").count();
        assert_eq!(floods, 5, "quota {quota}: {order:?}");
        assert_eq!(shown[..25], order, "it is shown as it happens");
    }
    let mut queue = Queue::new(5, timing());
    flood().iter().for_each(|resource| {
        queue.observe(resource, Trust::Trusted);
    });
    assert!(line(&queue).is_sorted(), "the oldest first");
}

#[test]
fn weight_of_three_gets_three_times_the_share() {
    for quota in [1, 2, 4, 5] {
        let resources: Vec<_> =
            (0..200).map(|i| resource_in(if i < 100 { "light" } else { "heavy" }, i, &format!("d{i}"))).collect();
        let mut queue = in_turn(quota, &resources);
        assert!(queue.set_weight("heavy", 3) && !queue.set_weight("heavy", 3) && !queue.set_weight("light", 1));
        let order = import_in_order(&mut queue, quota, &resources, 80);
        let heavy = order.iter().filter(|name| name.as_str() >= "r100").count();
        assert!((59..=61).contains(&heavy), "quota {quota}: {heavy} of 80");
    }
}

#[test]
fn namespace_whose_imports_take_long_keeps_its_share_of_the_quota_only() {
    let resources: Vec<_> =
        (0..40).map(|i| resource_in(if i < 20 { "long" } else { "short" }, i, &format!("d{i}"))).collect();
    let mut queue = in_turn(4, &resources);
    let region = request(&resources[0]).dataset.account_region().clone();
    let mut long = HashSet::new();
    for _ in 0..20 {
        let key = queue.admissible(&region, at(1000))[0].clone();
        assert!(admit(&mut queue, &key.name));
        if key.namespace == "long" {
            long.insert(key.name);
        } else {
            let resource = resources.iter().find(|resource| resource.name_any() == key.name).unwrap().clone();
            queue.observe(&submitted(resource, Some(ACTIVE)), Trust::Trusted);
            queue.release(&key.name);
        }
    }
    assert_eq!(long.len(), 2);
}

#[test]
fn idle_namespace_saves_nothing_up() {
    let resources: Vec<_> =
        (0..60).map(|i| resource_in(if i < 40 { "busy" } else { "late" }, i, &format!("d{i}"))).collect();
    let mut queue = in_turn(1, &resources[..40]);
    import_in_order(&mut queue, 1, &resources, 20);
    queue.release("r019");
    queue.observe(&submitted(resources[19].clone(), Some(ACTIVE)), Trust::Trusted);
    resources[40..].iter().for_each(|resource| {
        queue.observe(resource, Trust::Trusted);
    });
    let order = import_in_order(&mut queue, 1, &resources, 20);
    assert_eq!(order.iter().filter(|name| name.as_str() >= "r040").count(), 10, "{order:?}");
}

#[test]
fn turn_of_the_only_resource_counts_when_others_come() {
    let resources = [resource(1, "a"), resource(2, "b"), resource_in("team", 3, "c")];
    let mut queue = in_turn(1, &resources[..1]);
    assert!(admit(&mut queue, "r001"));
    queue.observe(&submitted(resources[0].clone(), None), Trust::Trusted);
    queue.release("r001");
    resources[1..].iter().for_each(|resource| {
        queue.observe(resource, Trust::Trusted);
    });
    assert_eq!(line(&queue), ["r003", "r002"]);
}

#[test]
fn line_shows_those_that_wait_for_something_else_last_and_is_bounded() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "b"), resource(3, "a"), resource(4, "c")]);
    queue.set_requeue_at("r002", Some(at(20_000)));
    assert_eq!(line(&queue), ["r001", "r004", "r003", "r002"]);
    assert!(admit(&mut queue, "r001"));
    assert_eq!(line(&queue), ["r004", "r003", "r002"]);
    let lines = queue.lines(at(10_000), 2);
    let shown = serde_json::to_value(&lines).unwrap();
    let waiting = |position, name, dataset, since: i64| {
        let (since, dataset) = (at(since).to_string(), format!("shop/{dataset}"));
        serde_json::json!({"position": position, "namespace": "shop", "name": name, "dataset": dataset, "since": since})
    };
    let expected = serde_json::json!([{"account": "123456789012", "region": "eu-west-1", "inFlight": 1, "quota": 2,
        "pending": 3, "waiting": [waiting(1, "r004", "c", 4), waiting(2, "r003", "a", 3)]}]);
    assert_eq!(shown, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_resource_of_every_namespace_is_admitted_and_per_dataset_by_age(
        resources in proptest::collection::vec((0..4_u8, 0..6_u8), 1..40),
        weights in proptest::collection::vec(1..=100_u32, 4),
        quota in 1..6_usize,
        order in prop::sample::select(vec![QueueOrder::OldestFirst, QueueOrder::FairShares]),
    ) {
        let resources: Vec<_> = resources.iter().zip(0..).map(|((n, d), i)| resource_in(&format!("n{n}"), i, &format!("d{d}"))).collect();
        let mut queue = in_turn(quota, &resources).with_order(order);
        for (weight, n) in weights.iter().zip(0..) {
            queue.set_weight(&format!("n{n}"), *weight);
        }
        let shown = line(&queue);
        let order = import_in_order(&mut queue, quota, &resources, usize::MAX);
        prop_assert_eq!(&shown, &order);
        prop_assert_eq!(order.len(), resources.len());
        for dataset in 0..6 {
            let of = |name: &&String| resources.iter().any(|r| r.name_any() == **name && r.spec.dataset_arn.ends_with(&format!("/d{dataset}")));
            prop_assert!(order.iter().filter(of).is_sorted());
        }
    }
}
