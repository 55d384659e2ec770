//! What a new leader knows, and what old events may not change.

use super::*;

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
fn copy_of_an_older_version_or_of_a_deleted_resource_is_not_current() {
    let (older, known) = (resource(1, "a"), with_intent(resource(1, "a")));
    let mut queue = queue(std::slice::from_ref(&known));
    assert!(queue.is_current(&known) && !queue.is_current(&older));
    assert!(!queue.is_current(&resource(2, "a")), "it was never listed");
    queue.forget("r001", at(1000));
    assert!(!queue.is_current(&known));
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
    for touched in [
        with_intent(resource(2, "b")),
        submitted(resource(2, "b"), Some(ACTIVE)),
        with_reason(resource(2, "b"), Reason::Queued),
    ] {
        let queue = queue(&[resource(1, "a"), touched]);
        assert!(!queue.is_untouched("shop") && !queue.is_untouched("") && queue.is_untouched("another"));
    }
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

#[test]
fn relist_of_a_namespace_keeps_the_invalid_resources_of_others() {
    let [mut own, mut other] = [resource(1, "a"), resource(2, "a")];
    own.spec.dataset_arn = "none".into();
    other.spec.dataset_arn = "none".into();
    other.metadata.namespace = Some("other".into());
    let mut queue = queue(&[own, other]);
    assert_eq!(queue.relist(Some("other")), HashSet::from(["r002".into()]));
    assert_eq!(queue.relist(None).len(), 2);
}
