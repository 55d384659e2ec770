//! Who is admitted, and what keeps the others.

use super::*;

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
    let rejected = with_reason(resource(2, "b"), Reason::AccessDenied);
    let mut queue = queue(&[suspended, rejected, resource(3, "a"), resource(4, "b")]);
    assert!(admit(&mut queue, "r003") && admit(&mut queue, "r004"));
}

#[test]
fn unready_dataset_keeps_its_order_and_blocks_no_other_dataset() {
    let waits = with_reason(resource(1, "a"), Reason::DatasetNotReady);
    let mut queue = Queue::new(1, timing());
    [waits, resource(2, "a"), resource(3, "b")].iter().for_each(|resource| {
        queue.observe(resource, Trust::Trusted);
    });
    queue.set_requeue_at("r001", Some(at(2000)));
    assert!(!admit(&mut queue, "r002"), "the older one goes first");
    assert!(admit(&mut queue, "r003"), "another dataset does not wait");
}

#[test]
fn successful_import_is_as_old_as_its_resource() {
    for mode in [ImportMode::Full, ImportMode::Incremental] {
        let mut resource = resource(10, "a");
        resource.spec.import_mode = mode;
        let dataset = request(&resource).dataset;
        let mut succeeded = submitted(resource, Some(ACTIVE));
        let status = succeeded.status.as_mut().unwrap();
        status.job_name = Some("job".into());
        status.creation_date_time = Some(Time(at(20)));
        status.completion_time = Some(Time(at(25)));
        let queue = queue(std::slice::from_ref(&succeeded));
        assert_eq!(queue.requested_at(&dataset, at(19)), HashMap::from([("job", at(10))]), "{mode:?}");
        assert_eq!(queue.requested_at(&dataset, at(26)), HashMap::new(), "{mode:?}: an older job");
        let other = request(&super::resource(1, "b")).dataset;
        assert_eq!(queue.requested_at(&other, at(0)), HashMap::new());
    }
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
    let all: Vec<String> = queue.replaced().into_iter().map(|key| key.name).collect();
    assert_eq!(all, ["r002"]);
}

#[test]
fn import_that_waits_for_the_first_full_one_holds_up_no_other_and_is_woken_by_it() {
    let mut waiting = with_reason(resource(1, "a"), Reason::WaitingForFullImport);
    waiting.spec.import_mode = ImportMode::Incremental;
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
fn import_that_found_no_full_one_waits_for_a_newer_one_than_those_of_an_earlier_dataset() {
    let succeeded = |second: i64| {
        let mut resource = submitted(resource(second, "a"), Some(ACTIVE));
        resource.status.as_mut().unwrap().creation_date_time = Some(Time(at(second)));
        resource
    };
    let mut waiting = with_reason(resource(2, "a"), Reason::WaitingForFullImport);
    waiting.spec.import_mode = ImportMode::Incremental;
    let mut queue = queue(&[succeeded(1), waiting]);
    let region = request(&resource(1, "a")).dataset.account_region().clone();
    let names = |queue: &mut Queue| -> Vec<String> {
        queue.admissible(&region, at(1000)).into_iter().map(|key| key.name).collect()
    };
    assert_eq!(names(&mut queue), ["r002"], "the import that has succeeded may count");
    assert!(admit(&mut queue, "r002"));
    queue.found_no_full_import("r002");
    queue.release("r002");
    assert_eq!(names(&mut queue), [""; 0], "it is not admitted again and again");
    queue.observe(&resource(3, "a"), Trust::Trusted);
    assert!(admit(&mut queue, "r003"), "no other waits for it");
    queue.release("r003");
    queue.observe(&succeeded(3), Trust::Trusted);
    assert_eq!(names(&mut queue), ["r002"], "a newer one wakes it");
    queue.forget("r003", at(1000));
    assert_eq!(names(&mut queue), [""; 0]);
}

#[test]
fn rejected_resource_that_asked_while_no_slot_was_free_gets_the_next_one() {
    let rejected = with_reason(resource(1, "a"), Reason::NotPermitted);
    let mut queue = queue(&[rejected, resource(2, "b"), resource(3, "c"), resource(4, "d")]);
    let region = request(&resource(1, "a")).dataset.account_region().clone();
    let names = |queue: &mut Queue| -> Vec<String> {
        queue.admissible(&region, at(1000)).into_iter().map(|key| key.name).collect()
    };
    assert_eq!(names(&mut queue), ["r002", "r003"], "a rejected resource keeps no slot free");
    assert!(admit(&mut queue, "r002") && admit(&mut queue, "r003"));
    assert!(!admit(&mut queue, "r001"));
    assert!(!queue.set_asks("r001", true));
    queue.forget("r002", at(1000));
    queue.release("r002");
    assert_eq!(names(&mut queue), ["r001"], "it is older than the others");
    assert!(queue.set_asks("r001", false), "it is rejected again");
    assert_eq!(names(&mut queue), ["r004"]);
    let mut suspended = with_reason(resource(1, "a"), Reason::NotPermitted);
    suspended.spec.suspend = true;
    queue.set_asks("r001", true);
    queue.observe(&suspended, Trust::Trusted);
    assert_eq!(names(&mut queue), ["r004"], "a suspended resource does not wait");
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
fn oldest_of_each_free_dataset_is_next_within_the_quota() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a"), resource(3, "b"), resource(4, "c")]);
    let next = |queue: &Queue| ["r001", "r002", "r003", "r004"].map(|uid| queue.is_next(uid));
    assert_eq!(next(&queue), [true, false, true, false], "the quota is 2");
    assert!(admit(&mut queue, "r003"));
    assert_eq!(next(&queue), [true, false, true, false]);
    assert!(admit(&mut queue, "r001"));
    assert_eq!(next(&queue), [true, false, true, false], "no place is free");
    queue.remove("r003");
    assert_eq!(next(&queue), [true, false, false, true]);
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

#[test]
fn failed_reconciliation_waits_and_is_skipped_after_many_failures() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "a")]);
    let account_region = request(&resource(1, "a")).dataset.account_region().clone();
    assert!(admit(&mut queue, "r001"));
    assert!(queue.requeue_failed("r001", at(2000), false, false));
    assert_eq!(queue.admissible(&account_region, at(1000)), [], "neither r001 nor r002, which waits for it");
    assert!(!admit(&mut queue, "r002"));
    assert!(queue.requeue_failed("r001", at(2000), true, false), "r002 no longer waits for it");
    assert!(!queue.requeue_failed("r001", at(2000), true, false), "nothing has changed for r002");
    assert!(queue.requeue_failed("r001", at(2001), true, false), "r002 waited for it at 2000 s");
    assert!(!queue.requeue_failed("r001", at(2000), true, false));
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
    assert_eq!(queue.requested_at(&request(&resource(1, "a")).dataset, Timestamp::MIN), HashMap::new());
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
fn pending_during_cooldown_says_when_it_ends() {
    let mut queue = queue(&["a", "b", "c", "d"].map(|dataset| resource(i64::from(dataset.as_bytes()[0]), dataset)));
    let account_region = request(&resource(1, "a")).dataset.account_region().clone();
    assert!(admit(&mut queue, "r097") && admit(&mut queue, "r098"));
    queue.start_cooldown(&account_region, CooldownCause::Throttled, at(1000), |_| Duration::from_secs(60));
    for uid in ["r099", "r100"] {
        let admission = queue.try_admit(uid, at(1000));
        assert!(matches!(admission, Admission::Pending { until: Some(until), .. } if until == at(1060)), "{uid}");
    }
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
    assert_eq!(queue.running(), [("r003".into(), at(800))]);
}

#[test]
fn invalid_spec_is_counted_and_belongs_to_no_pool() {
    let mut invalid = resource(1, "a");
    invalid.spec.dataset_arn = "none".into();
    let mut queue = queue(&[invalid]);
    assert_eq!(queue.reasons()[&Some(Reason::InvalidSpec)], 1);
    assert_eq!(queue.relist(None), HashSet::from(["r001".into()]));
    queue.forget("r001", at(1000));
    assert_eq!(queue.reasons()[&Some(Reason::InvalidSpec)], 0);
}

#[test]
fn rejected_resource_is_admitted_after_a_cooldown_that_no_other_resource_ended() {
    let rejected = with_reason(resource(1, "a"), Reason::InvalidInput);
    let account_region = request(&rejected).dataset.account_region().clone();
    let mut queue = queue(&[rejected]);
    queue.start_cooldown(&account_region, CooldownCause::Quota, at(1000), |_| Duration::from_secs(60));
    assert!(matches!(queue.try_admit("r001", at(1000)), Admission::Pending { until: Some(_), .. }));
    assert_eq!(queue.try_admit("r001", at(1060)), Admission::Admitted);
}
