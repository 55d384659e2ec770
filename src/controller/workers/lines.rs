//! Who waits for a worker, and who gets the next one. Nothing here waits or locks.
//!
//! A change costs the logarithm of the number of lines, and of the resources in one. Whether a line may take a worker of
//! its account and region depends on the workers there alone, so only the first line of each is compared with others.
//! Lines are passed over one by one only while their namespace has more workers than are free in all.

use crate::personalize::AccountRegion;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How many accounts and regions can have all their workers busy at once. Users choose accounts and regions, so their
/// number does not bound the connections and the memory of this process.
pub(super) const MAX_BUSY_ACCOUNT_REGIONS: usize = 32;

/// One namespace in an account and region. Resources with an invalid spec have no account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub(super) account_region: Option<AccountRegion>,
    pub(super) namespace: String,
}

/// The place of a line among those that wait: first the one with the fewest workers, then the one whose turn is the
/// longest ago. No two lines have the same turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    busy: usize,
    turn: u64,
}

/// The place of a resource in its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    goes_first: Reverse<bool>,
    /// When it began to wait, or to go first: a number that grows.
    turn: u64,
}

/// The workers of a scope, and the resources that wait for one.
#[derive(Debug)]
struct Line<T> {
    busy: usize,
    /// When it last got a worker, or began to wait: a number that grows.
    turn: u64,
    waiting: BTreeMap<Place, (String, T)>,
    /// The place of each resource that waits, by its name.
    places: HashMap<String, Place>,
}

impl<T> Line<T> {
    fn rank(&self) -> Option<Rank> {
        (!self.waiting.is_empty()).then_some(Rank { busy: self.busy, turn: self.turn })
    }

    fn push(&mut self, place: Place, name: String, waiting: T) {
        // A reconcile of this resource that was cancelled may still have a place.
        if let Some(earlier) = self.places.insert(name.clone(), place) {
            self.waiting.remove(&earlier);
        }
        self.waiting.insert(place, (name, waiting));
    }

    fn pop(&mut self) -> Option<T> {
        let (_, (name, waiting)) = self.waiting.pop_first()?;
        self.places.remove(&name);
        Some(waiting)
    }

    fn prefer(&mut self, name: &str, turn: u64) {
        let place = self.places.get_mut(name).filter(|place| !place.goes_first.0);
        if let Some(place) = place
            && let Some(waiting) = self.waiting.remove(place)
        {
            *place = Place { goes_first: Reverse(true), turn };
            self.waiting.insert(*place, waiting);
        }
    }
}

/// The workers of an account and region, and the lines that wait there.
#[derive(Debug, Default)]
struct Pool {
    busy: usize,
    waiting: BTreeMap<Rank, Arc<Scope>>,
    /// The first line, if it may take a worker.
    first: Option<Rank>,
}

impl Pool {
    /// The lines that may take one of the free workers, in their order.
    fn ready(&self, workers: usize) -> impl Iterator<Item = (Rank, &Arc<Scope>)> {
        let free = workers - self.busy;
        self.waiting.iter().map(|(rank, scope)| (*rank, scope)).take_while(move |(rank, _)| rank.busy < free)
    }
}

/// All lines.
#[derive(Debug)]
pub(super) struct Lines<T> {
    per_account_region: usize,
    /// Users choose namespaces, accounts and regions, so only those in use are kept.
    lines: HashMap<Arc<Scope>, Line<T>>,
    pools: HashMap<Option<AccountRegion>, Pool>,
    /// The first line of each pool, if it may take a worker.
    first: BTreeMap<Rank, Option<AccountRegion>>,
    busy: usize,
    busy_of_namespace: HashMap<String, usize>,
    turns: u64,
}

impl<T> Lines<T> {
    pub(super) fn new(per_account_region: usize) -> Self {
        Self {
            per_account_region,
            lines: HashMap::new(),
            pools: HashMap::new(),
            first: BTreeMap::new(),
            busy: 0,
            busy_of_namespace: HashMap::new(),
            turns: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.pools.is_empty() && self.first.is_empty() && self.busy_of_namespace.is_empty()
    }

    /// A resource waits for a worker from now on.
    pub(super) fn wait(&mut self, scope: Scope, name: String, goes_first: bool, waiting: T) {
        let turn = self.turn();
        self.change(&Arc::new(scope), |line| {
            if line.busy == 0 && line.waiting.is_empty() {
                line.turn = turn;
            }
            line.push(Place { goes_first: Reverse(goes_first), turn }, name, waiting);
        });
    }

    /// A resource is served before those of its scope that do not go first, if it waits.
    pub(super) fn prefer(&mut self, scope: &Scope, name: &str) {
        let turn = self.turn();
        if let Some(line) = self.lines.get_mut(scope) {
            line.prefer(name, turn);
        }
    }

    /// Gives a worker to the next resource that waits and `is_live`, if one is free.
    pub(super) fn take(&mut self, is_live: impl Fn(&T) -> bool) -> Option<(Arc<Scope>, T)> {
        loop {
            let scope = self.next_scope()?;
            let turn = self.turn();
            let taken = self.change(&scope, |line| {
                let taken = std::iter::from_fn(|| line.pop()).find(&is_live)?;
                (line.busy, line.turn) = (line.busy + 1, turn);
                Some(taken)
            });
            if let Some(taken) = taken {
                return Some((scope, taken));
            }
        }
    }

    /// A worker of this scope is free again.
    pub(super) fn free(&mut self, scope: &Arc<Scope>) {
        self.change(scope, |line| line.busy -= 1);
    }

    /// Ends all waiting.
    pub(super) fn clear(&mut self) {
        let waiting: Vec<_> = self.pools.values().flat_map(|pool| pool.waiting.values()).map(Arc::clone).collect();
        waiting.iter().for_each(|scope| self.change(scope, |line| while line.pop().is_some() {}));
    }

    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// The line that gets the next worker.
    fn next_scope(&self) -> Option<Arc<Scope>> {
        let free = self.per_account_region * MAX_BUSY_ACCOUNT_REGIONS - self.busy;
        if free == 0 {
            return None;
        }
        let may_take = |scope: &Scope| self.busy_of_namespace.get(&scope.namespace).is_none_or(|busy| *busy < free);
        let mut next: Option<(Rank, &Arc<Scope>)> = None;
        for (first, account_region) in &self.first {
            if next.is_some_and(|(rank, _)| rank < *first) {
                break;
            }
            #[cfg(test)]
            crate::testing::work::count();
            let pool = self.pools.get(account_region)?;
            let found = pool.ready(self.per_account_region).find(|(_, scope)| may_take(scope));
            next = next.into_iter().chain(found).min_by_key(|(rank, _)| *rank);
        }
        next.map(|(_, scope)| Arc::clone(scope))
    }

    /// Changes a line, and what is derived from it.
    fn change<R>(&mut self, scope: &Arc<Scope>, change: impl FnOnce(&mut Line<T>) -> R) -> R {
        let new = || Line { busy: 0, turn: 0, waiting: BTreeMap::new(), places: HashMap::new() };
        let line = self.lines.entry(Arc::clone(scope)).or_insert_with(new);
        let (rank, busy) = (line.rank(), line.busy);
        let result = change(line);
        let (new_rank, new_busy) = (line.rank(), line.busy);
        if new_rank.is_none() && new_busy == 0 {
            self.lines.remove(scope);
        }
        self.busy = self.busy + new_busy - busy;
        let of_namespace = self.busy_of_namespace.entry(scope.namespace.clone()).or_default();
        *of_namespace = *of_namespace + new_busy - busy;
        if *of_namespace == 0 {
            self.busy_of_namespace.remove(&scope.namespace);
        }
        let pool = self.pools.entry(scope.account_region.clone()).or_default();
        pool.busy = pool.busy + new_busy - busy;
        rank.into_iter().for_each(|rank| drop(pool.waiting.remove(&rank)));
        new_rank.into_iter().for_each(|rank| drop(pool.waiting.insert(rank, Arc::clone(scope))));
        let first = pool.ready(self.per_account_region).next().map(|(rank, _)| rank);
        let before = std::mem::replace(&mut pool.first, first);
        if pool.busy == 0 && pool.waiting.is_empty() {
            self.pools.remove(&scope.account_region);
        }
        before.into_iter().for_each(|rank| drop(self.first.remove(&rank)));
        first.into_iter().for_each(|rank| drop(self.first.insert(rank, scope.account_region.clone())));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::work;
    use proptest::prelude::*;

    fn scope(account_region: usize, namespace: usize) -> Scope {
        let region = |i| AccountRegion { partition: "aws".into(), region: format!("r{i}"), account: "1".into() };
        Scope { account_region: Some(region(account_region)), namespace: format!("n{namespace}") }
    }

    /// The scope that gets the next worker, by a scan of all lines.
    fn scan(lines: &Lines<usize>) -> Option<Arc<Scope>> {
        let busy = |is_counted: &dyn Fn(&Scope) -> bool| -> usize {
            lines.lines.iter().filter(|(scope, _)| is_counted(scope)).map(|(_, line)| line.busy).sum()
        };
        let may_take = |scope: &Scope, line: &Line<usize>| {
            let free = lines.per_account_region - busy(&|other| other.account_region == scope.account_region);
            let free_in_all = lines.per_account_region * MAX_BUSY_ACCOUNT_REGIONS - busy(&|_| true);
            line.busy < free && busy(&|other| other.namespace == scope.namespace) < free_in_all
        };
        let waiting = lines.lines.iter().filter(|(scope, line)| !line.waiting.is_empty() && may_take(scope, line));
        waiting.min_by_key(|(_, line)| (line.busy, line.turn)).map(|(scope, _)| Arc::clone(scope))
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Waits { account_region: usize, namespace: usize, name: usize, goes_first: bool },
        IsPreferred { account_region: usize, namespace: usize, name: usize },
        Takes,
        Ends(usize),
    }

    fn events() -> impl Strategy<Value = Event> {
        let waits = (0..40_usize, 0..3_usize, 0..4_usize, any::<bool>()).prop_map(
            |(account_region, namespace, name, goes_first)| Event::Waits {
                account_region,
                namespace,
                name,
                goes_first,
            },
        );
        let preferred = (0..40_usize, 0..3_usize, 0..4_usize)
            .prop_map(|(account_region, namespace, name)| Event::IsPreferred { account_region, namespace, name });
        prop_oneof![6 => waits, 1 => preferred, 4 => Just(Event::Takes), 1 => any::<usize>().prop_map(Event::Ends)]
    }

    proptest! {
        #[test]
        fn next_worker_goes_where_a_scan_of_all_lines_says(
            per_account_region in 1..4_usize,
            events in proptest::collection::vec(events(), 0..400),
        ) {
            let mut lines = Lines::new(per_account_region);
            let mut busy: Vec<Arc<Scope>> = Vec::new();
            for (i, event) in events.into_iter().enumerate() {
                match event {
                    Event::Waits { account_region, namespace, name, goes_first } => {
                        lines.wait(scope(account_region, namespace), format!("{name}"), goes_first, i);
                    }
                    Event::IsPreferred { account_region, namespace, name } => {
                        lines.prefer(&scope(account_region, namespace), &format!("{name}"));
                    }
                    Event::Takes => {
                        let expected = scan(&lines);
                        let taken = lines.take(|_| true).map(|(scope, _)| scope);
                        prop_assert_eq!(&taken, &expected);
                        busy.extend(taken);
                    }
                    Event::Ends(i) if !busy.is_empty() => lines.free(&busy.swap_remove(i % busy.len())),
                    Event::Ends(_) => {}
                }
                prop_assert_eq!(lines.next_scope(), scan(&lines));
            }
            lines.clear();
            busy.iter().for_each(|scope| lines.free(scope));
            prop_assert!(lines.is_empty(), "{:?}", lines);
        }
    }

    #[test]
    fn resource_that_waits_again_has_one_place() {
        let mut lines = Lines::new(8);
        for i in 0..3 {
            lines.wait(scope(0, 0), "a".into(), i == 1, i);
        }
        assert_eq!(lines.take(|_| true).map(|(_, waiting)| waiting), Some(2));
        assert!(lines.take(|_| true).is_none());
    }

    #[test]
    fn next_worker_costs_the_same_in_many_namespaces_accounts_and_regions() {
        let most = |namespaces: usize, account_regions: usize| {
            let mut lines = Lines::new(2);
            for i in 0..namespaces.max(account_regions) {
                lines.wait(scope(i % account_regions, i % namespaces), "a".into(), false, i);
            }
            let next =
                |lines: &mut Lines<usize>| lines.take(|_| true).into_iter().for_each(|(scope, _)| lines.free(&scope));
            (0..100).map(|_| work::during(|| next(&mut lines))).max()
        };
        assert_eq!([most(5000, 1), most(5000, 5000), most(1, 5000)], [most(1, 1); 3]);
    }
}
