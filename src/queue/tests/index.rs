//! The pools answer as a scan of all entries does, and without one.

use super::order::resource_in;
use super::*;
use crate::testing::work;

/// Random changes of a resource and of what it does.
#[derive(Debug, Clone, Copy)]
enum Event {
    Waits(Option<Reason>),
    Submits,
    Runs,
    Succeeds { incremental: bool, current: bool },
    Fails,
    IsSuspended,
    IsMarked,
    IsForgotten,
    Asks,
    Ends { asks: bool, no_full: bool },
    Requeues { after: i64, fails: bool },
    TimePasses(i64),
    DeletedJobEnds,
}

fn events() -> impl Strategy<Value = Event> {
    let reason = prop::sample::select(vec![
        None,
        Some(Reason::Queued),
        Some(Reason::WaitingForFullImport),
        Some(Reason::NotPermitted),
    ]);
    prop_oneof![
        4 => reason.prop_map(Event::Waits),
        1 => Just(Event::Submits),
        2 => Just(Event::Runs),
        3 => any::<(bool, bool)>().prop_map(|(incremental, current)| Event::Succeeds { incremental, current }),
        1 => Just(Event::Fails),
        1 => Just(Event::IsSuspended),
        1 => Just(Event::IsMarked),
        1 => Just(Event::IsForgotten),
        5 => Just(Event::Asks),
        4 => any::<(bool, bool)>().prop_map(|(asks, no_full)| Event::Ends { asks, no_full }),
        2 => (0..50_i64, any::<bool>()).prop_map(|(after, fails)| Event::Requeues { after, fails }),
        3 => (0..60_i64).prop_map(Event::TimePasses),
        1 => Just(Event::DeletedJobEnds),
    ]
}

/// The resource as the watch delivers it after the event; `None` if it delivers nothing.
fn after_event(resource: &DatasetImportJob, event: Event) -> Option<DatasetImportJob> {
    let mut resource = resource.clone();
    Some(match event {
        Event::Waits(None) => resource,
        Event::Waits(Some(reason)) => with_reason(resource, reason),
        Event::Submits => with_intent(resource),
        Event::Runs => submitted(resource, None),
        Event::Succeeds { incremental, current } => {
            if incremental {
                resource.spec.import_mode = ImportMode::Incremental;
            }
            let created = resource.metadata.creation_timestamp.clone();
            let mut resource = submitted(resource, Some(ACTIVE));
            if let Some(status) = &mut resource.status {
                status.creation_date_time = created;
                conditions::set(status, 1, Reason::ImportSucceeded, "", at(0));
                let value = if current { DataCurrent::True } else { DataCurrent::False };
                conditions::set_data_current(status, 1, value, "", at(0));
            }
            resource
        }
        Event::Fails => submitted(resource, Some(crate::personalize::CREATE_FAILED)),
        Event::IsSuspended => {
            resource.spec.suspend = true;
            resource
        }
        Event::IsMarked => {
            resource.metadata.deletion_timestamp = Some(Time(at(0)));
            resource
        }
        _ => return None,
    })
}

/// What a scan of all entries says about the only account and region.
struct Scan<'a>(Vec<&'a Entry>);

impl<'a> Scan<'a> {
    fn of(queue: &'a Queue) -> Self {
        let mut entries: Vec<&Entry> = queue.entries.values().collect();
        entries.sort_by(|a, b| a.place.cmp(&b.place));
        Self(entries)
    }

    fn names(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<String> {
        entries.into_iter().map(|entry| entry.place.key.name.clone()).collect()
    }

    /// The first resource of each free dataset that is due.
    fn ready(&self, now: Timestamp) -> Vec<&'a Entry> {
        let newest_full = |own: &Entry| {
            let full = self.0.iter().filter(|e| e.is_full_success() && e.dataset() == own.dataset());
            full.map(|e| e.job_created.unwrap_or(Timestamp::MIN)).max()
        };
        let mut busy: HashSet<_> = self.0.iter().filter(|e| e.is_in_flight()).map(|e| e.dataset()).collect();
        let in_line = |e: &&&Entry| {
            let skipped = e.activity().skipped_until.is_some_and(|until| now < until);
            let waits_for_full =
                e.reason == Some(Reason::WaitingForFullImport) && newest_full(e) <= e.activity().full_seen;
            e.is_pending() && !skipped && !waits_for_full
        };
        let first = self.0.iter().filter(in_line).filter(|e| busy.insert(e.dataset()));
        first.filter(|e| e.activity().requeue_at.is_none_or(|at| at <= now)).copied().collect()
    }

    fn admissible(&self, now: Timestamp, quota: usize) -> Vec<String> {
        let in_flight = self.0.iter().filter(|e| e.is_in_flight()).count();
        Self::names(self.ready(now)).into_iter().take(quota.saturating_sub(in_flight)).collect()
    }

    fn stats(&self) -> PoolStats {
        let pending = || self.0.iter().filter(|e| e.is_pending());
        PoolStats {
            in_flight: self.0.iter().filter(|e| e.is_in_flight()).count(),
            pending: pending().count(),
            pending_since: pending().filter_map(|e| e.activity().pending_since).min(),
        }
    }

    fn replaces(own: &Entry, other: &Entry) -> bool {
        let is_newer = own.job_created.zip(other.job_created).is_some_and(|(own, other)| own > other);
        own.is_full_success() && own.dataset() == other.dataset() && is_newer && !own.is_deleted()
    }

    fn newer_import(&self, own: &Entry) -> Option<String> {
        let newer = self.0.iter().filter(|entry| Self::replaces(entry, own));
        newer.max_by_key(|entry| entry.job_created).map(|entry| entry.place.key.name.clone())
    }

    fn replaced_by(&self, own: &Entry) -> Vec<String> {
        Self::names(self.0.iter().filter(|e| e.is_data_current && Self::replaces(own, e)).copied())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn pool_answers_as_a_scan_of_all_entries_does(
        datasets in proptest::collection::vec(0..4_u8, 1..14),
        events in proptest::collection::vec((any::<prop::sample::Index>(), events()), 0..80),
        quota in 1..4_usize,
    ) {
        let resources: Vec<_> = datasets.iter().zip(0..).map(|(d, i)| resource(i, &format!("d{d}"))).collect();
        let region = request(&resources[0]).dataset.account_region().clone();
        let mut queue = Queue::new(quota, timing());
        let (mut now, mut version) = (1000, 1);
        for (index, event) in events {
            let resource = &resources[index.index(resources.len())];
            let uid = resource.uid().unwrap();
            if let Some(mut resource) = after_event(resource, event) {
                version += 1;
                resource.metadata.resource_version = Some(format!("{version}"));
                queue.observe(&resource, Trust::Trusted);
            }
            match event {
                Event::Asks => {
                    let admissible = queue.admissible(&region, at(now)).iter().any(|key| key.name == uid);
                    let in_flight = queue.entries.get(uid.as_str()).is_some_and(Entry::is_in_flight);
                    let waits = queue.entries.get(uid.as_str()).is_some_and(Entry::is_pending);
                    let is_due = Scan::of(&queue).ready(at(now)).iter().any(|entry| *entry.place.uid == *uid);
                    let admission = queue.try_admit(&uid, at(now)) == Admission::Admitted;
                    prop_assert!(!admissible && !in_flight || admission);
                    prop_assert!(!admission || admissible || in_flight || !waits || !is_due);
                }
                Event::Ends { asks, no_full } => {
                    queue.set_asks(&uid, asks);
                    if no_full {
                        queue.found_no_full_import(&uid);
                    }
                    queue.release(&uid);
                }
                Event::IsForgotten => drop(queue.forget(&uid, at(now))),
                Event::Requeues { after, fails: false } => queue.set_requeue_at(&uid, Some(at(now + after))),
                Event::Requeues { after, fails: true } => drop(queue.requeue_failed(&uid, at(now + after), true, after % 2 == 0)),
                Event::TimePasses(seconds) => now += seconds,
                Event::DeletedJobEnds => {
                    queue.deleted_job_polled(&uid, Some(false), at(now));
                    queue.take_freed();
                }
                _ => {}
            }
            let admissible: Vec<String> = queue.admissible(&region, at(now)).into_iter().map(|key| key.name).collect();
            let scan = Scan::of(&queue);
            prop_assert_eq!(admissible, scan.admissible(at(now), quota));
            prop_assert_eq!(queue.stats().remove(&region).unwrap_or_default(), scan.stats());
            let mut reasons = HashMap::from([(Some(Reason::InvalidSpec), 0)]);
            queue.existing().for_each(|entry| *reasons.entry(entry.reason).or_default() += 1);
            prop_assert_eq!(queue.reasons(), reasons);
            let running: HashSet<Uid> = queue.running().into_iter().map(|(uid, _)| uid).collect();
            let expected = queue.existing().filter(|e| e.activity().running_since.is_some() && e.is_in_flight());
            prop_assert_eq!(running, expected.map(|entry| Arc::clone(&entry.place.uid)).collect());
            for entry in queue.entries.values() {
                prop_assert_eq!(queue.newer_import(&entry.place.uid).map(|key| key.name), scan.newer_import(entry));
                let replaced: Vec<String> = queue.replaced_by(&entry.place.uid).into_iter().map(|key| key.name).collect();
                prop_assert_eq!(replaced, scan.replaced_by(entry));
            }
            let replaced: BTreeSet<String> = queue.replaced().into_iter().map(|key| key.name).collect();
            let expected = queue.entries.values().flat_map(|newer| scan.replaced_by(newer));
            prop_assert_eq!(replaced, expected.collect());
        }
        let uids: Vec<Uid> = queue.entries.keys().cloned().collect();
        uids.iter().for_each(|uid| drop(queue.remove(uid)));
        prop_assert!(queue.pools.is_empty(), "{:?}", queue.pools);
    }
}

/// The resource after its import has succeeded. Every other import is an INCREMENTAL one.
fn succeeded(mut resource: DatasetImportJob, second: i64) -> DatasetImportJob {
    resource.spec.import_mode = if second % 2 == 0 { ImportMode::Full } else { ImportMode::Incremental };
    let mut resource = submitted(resource, Some(ACTIVE));
    let status = resource.status.as_mut().unwrap();
    status.job_name = Some(format!("job-{second}"));
    status.creation_date_time = Some(Time(at(second)));
    status.completion_time = Some(Time(at(second)));
    resource
}

/// The most work of one life: a resource is created, asks, submits, ends, and asks are answered meanwhile, in a
/// queue in which this many wait and twice as many are finished.
fn work_per_life(waiting: i64, order: QueueOrder, datasets: i64, namespaces: i64) -> usize {
    let make = |i: i64| resource_in(&format!("n{}", i % namespaces), i, &format!("d{}", i % datasets));
    let mut queue = Queue::new(5, timing()).with_order(order);
    for i in 0..3 * waiting {
        let resource = if i % 3 == 0 { make(i) } else { succeeded(make(i), i) };
        queue.observe(&resource, Trust::Trusted);
    }
    let region = request(&make(0)).dataset.account_region().clone();
    let life = |queue: &mut Queue, new: i64| {
        queue.observe(&make(new), Trust::Trusted);
        admit(queue, &make(new).name_any());
        queue.release(&make(new).name_any());
        let next = queue.admissible(&region, at(1000))[0].name.clone();
        assert!(admit(queue, &next));
        let old = make(next.trim_start_matches('r').parse().unwrap());
        queue.observe(&submitted(old.clone(), None), Trust::Trusted);
        queue.release(&next);
        let mut ended = submitted(old, Some(ACTIVE));
        ended.metadata.resource_version = Some("3".into());
        queue.observe(&ended, Trust::Trusted);
        let _ = (queue.newer_import(&next), queue.replaced_by(&next), queue.stats(), queue.reasons(), queue.running());
        let _ = queue.requested_at(&request(&make(new)).dataset, at(new));
        queue.take_freed();
    };
    (3 * waiting..3 * waiting + 20).map(|new| work::during(|| life(&mut queue, new))).max().unwrap_or_default()
}

#[test]
fn work_per_event_grows_with_the_logarithm_of_the_number_of_resources() {
    for order in [QueueOrder::OldestFirst, QueueOrder::FairShares] {
        // Many resources of few datasets and namespaces, and few of many.
        for (datasets, namespaces) in [(10, 3), (100_000, 3), (100_000, 100_000)] {
            let few = work_per_life(100, order, datasets, namespaces);
            let many = work_per_life(6400, order, datasets, namespaces);
            // The logarithm of 6,400 is twice that of 100.
            assert!(many < 2 * few && many < 3000, "{order:?} {datasets} {namespaces}: {few} and {many}");
        }
    }
}

#[test]
fn work_for_the_last_successes_depends_on_the_number_of_datasets_alone() {
    let work = |finished: i64| {
        let mut queue = Queue::new(5, timing());
        for i in 0..finished {
            queue.observe(&succeeded(resource(i, &format!("d{}", i % 10)), i), Trust::Trusted);
        }
        work::during(|| assert_eq!(queue.last_successes().len(), 10))
    };
    assert_eq!(work(100), work(5000));
}

#[test]
fn last_success_of_a_dataset_is_the_import_that_ended_last() {
    let mut queue = Queue::new(5, timing());
    let imported = |second: i64, dataset: &str, mode: ImportMode, ended: i64| {
        let mut resource = resource(second, dataset);
        resource.spec.import_mode = mode;
        let mut resource = submitted(resource, Some(ACTIVE));
        let status = resource.status.as_mut().unwrap();
        status.completion_time = Some(Time(at(ended)));
        status.creation_date_time = Some(Time(at(ended - 10)));
        resource
    };
    queue.observe(&imported(1, "ITEMS", ImportMode::Full, 100), Trust::Trusted);
    let mut newest = imported(2, "ITEMS", ImportMode::Full, 300);
    newest.metadata.annotations = Some([(crate::api::MAX_DATA_AGE.to_owned(), "26h".to_owned())].into());
    queue.observe(&newest, Trust::Trusted);
    queue.observe(&imported(3, "ITEMS", ImportMode::Incremental, 200), Trust::Trusted);
    queue.observe(&imported(4, "USERS", ImportMode::Full, 50), Trust::Untrusted);
    queue.observe(&submitted(resource(5, "ITEMS"), Some("CREATE FAILED")), Trust::Trusted);
    let last = |queue: &Queue| {
        let successes = queue.last_successes();
        successes.iter().map(|s| (s.dataset.name().to_owned(), s.ended, s.max_age)).collect::<Vec<_>>()
    };
    assert_eq!(last(&queue), [("shop/ITEMS".into(), at(300), Some(Duration::from_secs(26 * 3600)))]);
    queue.forget("r002", at(400));
    assert_eq!(last(&queue), [("shop/ITEMS".into(), at(200), None)], "an INCREMENTAL import counts, too");
    queue.forget("r001", at(400));
    queue.forget("r003", at(400));
    assert_eq!(last(&queue), [], "no resource shows one");
}
