//! Deleted resources keep what their jobs use.

use super::*;

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
