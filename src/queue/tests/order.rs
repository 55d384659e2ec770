//! In which order resources are admitted.

use super::*;
use std::collections::VecDeque;

/// A resource of this namespace.
pub(super) fn resource_in(namespace: &str, second: i64, dataset: &str) -> DatasetImportJob {
    let mut resource = resource(second, dataset);
    resource.metadata.namespace = Some(namespace.into());
    resource
}

fn in_turn(quota: usize, resources: &[DatasetImportJob]) -> Queue {
    in_order(QueueOrder::FairShares, quota, resources)
}

fn in_order(order: QueueOrder, quota: usize, resources: &[DatasetImportJob]) -> Queue {
    let mut queue = Queue::new(quota, timing()).with_order(order);
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
fn line(queue: &mut Queue) -> Vec<String> {
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
        let shown = line(&mut queue);
        let order = import_in_order(&mut queue, quota, &resources, 25);
        let floods = order.iter().filter(|name| name.as_str() < "r500").count();
        assert_eq!(floods, 5, "quota {quota}: {order:?}");
        assert_eq!(shown[..25], order, "it is shown as it happens");
    }
    let mut queue = Queue::new(5, timing());
    flood().iter().for_each(|resource| {
        queue.observe(resource, Trust::Trusted);
    });
    assert!(line(&mut queue).is_sorted(), "the oldest first");
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
    assert_eq!(line(&mut queue), ["r003", "r002"]);
}

#[test]
fn line_shows_those_that_wait_for_something_else_last_and_is_bounded() {
    let mut queue = queue(&[resource(1, "a"), resource(2, "b"), resource(3, "a"), resource(4, "c")]);
    queue.set_requeue_at("r002", Some(at(20_000)));
    assert_eq!(line(&mut queue), ["r001", "r004", "r003", "r002"]);
    assert!(admit(&mut queue, "r001"));
    assert_eq!(line(&mut queue), ["r004", "r003", "r002"]);
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
        let mut queue = in_order(order, quota, &resources);
        for (weight, n) in weights.iter().zip(0..) {
            queue.set_weight(&format!("n{n}"), *weight);
        }
        let shown = line(&mut queue);
        let order = import_in_order(&mut queue, quota, &resources, usize::MAX);
        prop_assert_eq!(&shown, &order);
        prop_assert_eq!(order.len(), resources.len());
        for dataset in 0..6 {
            let of = |name: &&String| resources.iter().any(|r| r.name_any() == **name && r.spec.dataset_arn.ends_with(&format!("/d{dataset}")));
            prop_assert!(order.iter().filter(of).is_sorted());
        }
    }
}
