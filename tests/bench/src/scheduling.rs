//! How full the queue keeps the slots: 500 imports into 20 datasets of four accounts in two regions, in simulated time.
//!
//! The queue and the poll schedule are the operator's own. What it is compared with is computed apart: a list schedule
//! in which a slot is taken again the moment a poll sees the end of its import, and the bound that no schedule beats.

use crate::random::Random;
use crate::report::{Report, as_f64};
use crate::resources::{resource, second, with_job};
use crate::timeline::{Bar, Timeline};
use personalize_operator::api::DatasetImportJob;
use personalize_operator::import::{Admission, ImportRequest, Timing, Trust};
use personalize_operator::personalize::{ACTIVE, AccountRegion};
use personalize_operator::queue::{Queue, QueueOrder};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::error::Error;
use std::time::Duration;

const RESOURCES: usize = 500;
const QUOTA: usize = 5;

/// The number of datasets of each account and region: 20 in all, so that the quota limits two and the datasets the others.
const DATASETS: [usize; 8] = [6, 6, 2, 2, 1, 1, 1, 1];

/// An import: its resource, and how long it keeps its slot.
struct Import {
    resource: DatasetImportJob,
    pool: usize,
    dataset: usize,
    /// In seconds: its duration until a poll sees its end.
    occupancy: u64,
}

/// When an import had its slot, in seconds from the start.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Slot {
    from: u64,
    to: u64,
}

fn imports(timing: &Timing) -> Result<Vec<Import>, Box<dyn Error>> {
    let mut random = Random::new(1);
    let datasets: Vec<usize> =
        DATASETS.iter().enumerate().flat_map(|(pool, count)| std::iter::repeat_n(pool, *count)).collect();
    (0..RESOURCES)
        .map(|i| {
            let dataset = i % datasets.len();
            let pool = datasets.get(dataset).copied().unwrap_or_default();
            let region = if pool % 2 == 0 { "eu-west-1" } else { "us-east-1" };
            let arn = format!("arn:aws:personalize:{region}:11111111111{}:dataset/shop/d{dataset}", pool / 2);
            let resource = resource(i.try_into()?, &format!("team-{}", i % 7), &arn)?;
            let duration = Duration::from_secs_f64(600.0 * (0.5 * random.normal()).exp().clamp(0.5, 6.0));
            let mut seen = Duration::ZERO;
            while seen < duration {
                seen += timing.poll(seen, &[]);
            }
            Ok(Import { resource, pool, dataset, occupancy: seen.as_secs() })
        })
        .collect()
}

/// Runs the queue: resources are reconciled when it wakes them, and imports end after their occupancy.
fn simulate(imports: &[Import], order: QueueOrder, timing: &Timing) -> Result<Vec<Slot>, Box<dyn Error>> {
    let mut queue = Queue::new(QUOTA, timing.clone()).with_order(order);
    let mut by_name = HashMap::new();
    for (i, import) in imports.iter().enumerate() {
        queue.observe(&import.resource, Trust::Trusted);
        by_name.insert(import.resource.metadata.name.clone().unwrap_or_default(), i);
    }
    let mut slots = vec![Slot { from: 0, to: 0 }; imports.len()];
    let mut ends = BinaryHeap::new();
    let mut now = RESOURCES.try_into()?;
    let mut woken: Vec<AccountRegion> = queue.account_regions();
    loop {
        for pool in woken.drain(..) {
            for key in queue.admissible(&pool, second(now)) {
                let i = by_name.get(&key.name).copied().unwrap_or_default();
                let (Some(import), Some(slot)) = (imports.get(i), slots.get_mut(i)) else { continue };
                let uid = import.resource.metadata.uid.clone().unwrap_or_default();
                if queue.try_admit(&uid, second(now)) == Admission::Admitted {
                    queue.observe(&with_job(&import.resource, 2, None)?, Trust::Trusted);
                    queue.release(&uid);
                    *slot = Slot { from: now, to: now + import.occupancy };
                    ends.push(Reverse((now + import.occupancy, i)));
                }
            }
        }
        let Some(Reverse((end, i))) = ends.pop() else { return Ok(slots) };
        now = end;
        if let Some(import) = imports.get(i) {
            queue.observe(&with_job(&import.resource, 3, Some(ACTIVE))?, Trust::Trusted);
            woken.push(ImportRequest::of(&import.resource)?.dataset.account_region().clone());
        }
    }
}

/// The end of a list schedule by age, in seconds from the start: whenever a slot is free, the oldest import goes whose
/// dataset is free.
fn list_schedule(imports: &[&Import]) -> u64 {
    let (mut waiting, mut running, mut now): (Vec<&Import>, Vec<(u64, usize)>, u64) = (imports.to_vec(), Vec::new(), 0);
    loop {
        running.retain(|(end, _)| *end > now);
        while running.len() < QUOTA
            && let Some(next) = waiting.iter().position(|import| running.iter().all(|(_, d)| *d != import.dataset))
        {
            let import = waiting.remove(next);
            running.push((now + import.occupancy, import.dataset));
        }
        let Some(end) = running.iter().map(|(end, _)| *end).min() else { return now };
        now = end;
    }
}

/// The end that no schedule beats: the slots are full, or the longest dataset is never idle.
fn bound(imports: &[&Import]) -> u64 {
    let mut datasets: BTreeMap<usize, u64> = BTreeMap::new();
    imports.iter().for_each(|import| *datasets.entry(import.dataset).or_default() += import.occupancy);
    let total: u64 = datasets.values().sum();
    total.div_ceil(QUOTA as u64).max(datasets.values().copied().max().unwrap_or_default())
}

/// The most imports that ran at once.
fn most_at_once(slots: &[Slot]) -> usize {
    let at = |moment: u64| slots.iter().filter(|slot| slot.from <= moment && moment < slot.to).count();
    slots.iter().map(|slot| at(slot.from)).max().unwrap_or_default()
}

/// The slot time that stayed empty although an import could have run, as a part of the slot time that was used.
fn idle(of_pool: &[(&Import, Slot)]) -> f64 {
    let mut moments: Vec<u64> = of_pool.iter().flat_map(|(_, slot)| [slot.from, slot.to]).collect();
    moments.push(RESOURCES as u64);
    moments.sort_unstable();
    let (mut idle, mut used) = (0, 0);
    for (from, to) in moments.iter().zip(moments.iter().skip(1)) {
        let is_running = |slot: &Slot| slot.from <= *from && *from < slot.to;
        let running: HashSet<usize> =
            of_pool.iter().filter(|(_, slot)| is_running(slot)).map(|(import, _)| import.dataset).collect();
        let waiting: HashSet<usize> =
            of_pool.iter().filter(|(_, slot)| slot.from > *from).map(|(import, _)| import.dataset).collect();
        let could_run = waiting.difference(&running).count();
        idle += (to - from) * could_run.min(QUOTA.saturating_sub(running.len())) as u64;
        used += (to - from) * running.len() as u64;
    }
    as_f64(idle) / as_f64(used)
}

/// Runs the measurement.
pub(crate) fn measure() -> Result<Report, Box<dyn Error>> {
    let timing = Timing::default();
    let imports = imports(&timing)?;
    let mut rows = Vec::new();
    let mut drawn = Vec::new();
    for (name, order) in [("oldest first", QueueOrder::OldestFirst), ("namespaces in turn", QueueOrder::FairShares)] {
        let slots = simulate(&imports, order, &timing)?;
        let (mut most_idle, mut lost_to_list, mut lost_to_bound, mut most) = (0.0_f64, f64::MIN, f64::MIN, 0);
        let (mut twice, mut unordered) = (0, 0);
        for pool in 0..DATASETS.len() {
            let of_pool: Vec<(&Import, Slot)> =
                imports.iter().zip(slots.iter().copied()).filter(|(import, _)| import.pool == pool).collect();
            let own: Vec<&Import> = of_pool.iter().map(|(import, _)| *import).collect();
            let actual = of_pool.iter().map(|(_, slot)| slot.to).max().unwrap_or_default() - RESOURCES as u64;
            let lost = |ideal: u64| 100.0 - 100.0 * as_f64(ideal) / as_f64(actual);
            most_idle = most_idle.max(100.0 * idle(&of_pool));
            lost_to_list = lost_to_list.max(lost(list_schedule(&own)));
            lost_to_bound = lost_to_bound.max(lost(bound(&own)));
            most = most.max(most_at_once(&of_pool.iter().map(|(_, slot)| *slot).collect::<Vec<_>>()));
            let datasets: HashSet<usize> = own.iter().map(|import| import.dataset).collect();
            for dataset in datasets {
                let of_dataset = of_pool.iter().filter(|(import, _)| import.dataset == dataset);
                let of_dataset: Vec<Slot> = of_dataset.map(|(_, slot)| *slot).collect();
                twice += usize::from(most_at_once(&of_dataset) > 1);
                unordered += usize::from(!of_dataset.is_sorted_by_key(|slot| slot.from));
            }
        }
        let submitted = slots.iter().filter(|slot| slot.to > 0).count();
        let numbers = vec![
            most_idle,
            lost_to_list,
            lost_to_bound,
            as_f64(most.try_into()?),
            as_f64(twice.try_into()?),
            as_f64(unordered.try_into()?),
            as_f64((RESOURCES - submitted).try_into()?),
        ];
        rows.push((name.to_owned(), numbers));
        drawn = slots;
    }
    let bars = imports.iter().zip(&drawn).filter(|(import, _)| import.pool == 0);
    let bars = bars.map(|(import, slot)| Bar {
        row: import.dataset,
        colour: import.resource.metadata.namespace.clone().unwrap_or_default(),
        from: as_f64(slot.from - RESOURCES as u64) / 3600.0,
        to: as_f64(slot.to - RESOURCES as u64) / 3600.0,
    });
    let timeline =
        Timeline { title: "One account and region: six datasets, five slots", unit: "hours", bars: bars.collect() };
    let columns = &[
        "idle %",
        "lost to list %",
        "lost to bound %",
        "most at once",
        "two a dataset",
        "out of order",
        "not submitted",
    ];
    Ok(Report { columns, rows, plot: Some(("scheduling.svg", timeline.svg()?)) })
}
