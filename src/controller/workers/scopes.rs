//! Who waits for a worker, and who gets the next one. Nothing here waits or locks.
//!
//! A change costs the logarithm of the number of scopes, and of the resources that wait in one. Whether a scope may take a
//! worker of its account and region depends on the workers there alone, so only the first scope of each is compared with
//! others. Scopes are passed over one by one only while their namespace has more workers than are free in all.

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

/// A number that grows.
type Ticket = u64;

/// The rank of a scope among those that wait: first the one with the fewest workers, then the one with the lowest ticket.
/// No two scopes have the same ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    busy: usize,
    ticket: Ticket,
}

/// The position of a resource among those of its scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    goes_first: Reverse<bool>,
    /// Taken when it began to wait, or to go first.
    ticket: Ticket,
}

/// How many workers a scope has, and the resources that wait for one.
#[derive(Debug)]
struct Waiters<T> {
    busy: usize,
    /// Taken when it last got a worker, or began to wait.
    ticket: Ticket,
    waiting: BTreeMap<Position, (String, T)>,
    /// The position of each of them, by the name of the resource.
    positions: HashMap<String, Position>,
}

impl<T> Waiters<T> {
    fn rank(&self) -> Option<Rank> {
        (!self.waiting.is_empty()).then_some(Rank { busy: self.busy, ticket: self.ticket })
    }

    fn push(&mut self, position: Position, name: String, waiting: T) {
        // A reconcile of this resource that was cancelled may still have a position.
        if let Some(earlier) = self.positions.insert(name.clone(), position) {
            self.waiting.remove(&earlier);
        }
        self.waiting.insert(position, (name, waiting));
    }

    fn pop(&mut self) -> Option<T> {
        let (_, (name, waiting)) = self.waiting.pop_first()?;
        self.positions.remove(&name);
        Some(waiting)
    }

    fn prefer(&mut self, name: &str, ticket: Ticket) {
        let position = self.positions.get_mut(name).filter(|position| !position.goes_first.0);
        if let Some(position) = position
            && let Some(waiting) = self.waiting.remove(position)
        {
            *position = Position { goes_first: Reverse(true), ticket };
            self.waiting.insert(*position, waiting);
        }
    }
}

/// The workers of an account and region, and the scopes that wait there.
#[derive(Debug, Default)]
struct Pool {
    busy: usize,
    waiting: BTreeMap<Rank, Arc<Scope>>,
    /// The first scope, if it may take a worker.
    first: Option<Rank>,
}

impl Pool {
    /// The scopes that may take one of the free workers, in their order.
    fn ready(&self, workers: usize) -> impl Iterator<Item = (Rank, &Arc<Scope>)> {
        let free = workers - self.busy;
        self.waiting.iter().map(|(rank, scope)| (*rank, scope)).take_while(move |(rank, _)| rank.busy < free)
    }
}

/// All scopes.
#[derive(Debug)]
pub(super) struct Scopes<T> {
    per_account_region: usize,
    /// Users choose namespaces, accounts and regions, so only those in use are kept.
    scopes: HashMap<Arc<Scope>, Waiters<T>>,
    pools: HashMap<Option<AccountRegion>, Pool>,
    /// The first scope of each pool, if it may take a worker.
    first: BTreeMap<Rank, Option<AccountRegion>>,
    busy: usize,
    busy_of_namespace: HashMap<String, usize>,
    tickets: Ticket,
}

impl<T> Scopes<T> {
    pub(super) fn new(per_account_region: usize) -> Self {
        Self {
            per_account_region,
            scopes: HashMap::new(),
            pools: HashMap::new(),
            first: BTreeMap::new(),
            busy: 0,
            busy_of_namespace: HashMap::new(),
            tickets: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.scopes.is_empty() && self.pools.is_empty() && self.first.is_empty() && self.busy_of_namespace.is_empty()
    }

    /// A resource waits for a worker from now on.
    pub(super) fn wait(&mut self, scope: Scope, name: String, goes_first: bool, waiting: T) {
        let ticket = self.ticket();
        self.change(&Arc::new(scope), |waiters| {
            if waiters.busy == 0 && waiters.waiting.is_empty() {
                waiters.ticket = ticket;
            }
            waiters.push(Position { goes_first: Reverse(goes_first), ticket }, name, waiting);
        });
    }

    /// A resource is served before those of its scope that do not go first, if it waits.
    pub(super) fn prefer(&mut self, scope: &Scope, name: &str) {
        let ticket = self.ticket();
        if let Some(waiters) = self.scopes.get_mut(scope) {
            waiters.prefer(name, ticket);
        }
    }

    /// Gives a worker to the next resource that waits and `is_live`, if one is free.
    pub(super) fn take(&mut self, is_live: impl Fn(&T) -> bool) -> Option<(Arc<Scope>, T)> {
        loop {
            let scope = self.next_scope()?;
            let ticket = self.ticket();
            let taken = self.change(&scope, |waiters| {
                let taken = std::iter::from_fn(|| waiters.pop()).find(&is_live)?;
                (waiters.busy, waiters.ticket) = (waiters.busy + 1, ticket);
                Some(taken)
            });
            if let Some(taken) = taken {
                return Some((scope, taken));
            }
        }
    }

    /// A worker of this scope is free again.
    pub(super) fn free(&mut self, scope: &Arc<Scope>) {
        self.change(scope, |waiters| waiters.busy -= 1);
    }

    /// Ends all waiting.
    pub(super) fn clear(&mut self) {
        let waiting: Vec<_> = self.pools.values().flat_map(|pool| pool.waiting.values()).map(Arc::clone).collect();
        waiting.iter().for_each(|scope| self.change(scope, |waiters| while waiters.pop().is_some() {}));
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.tickets
    }

    /// The scope that gets the next worker.
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

    /// Changes a scope, and what is derived from it.
    fn change<R>(&mut self, scope: &Arc<Scope>, change: impl FnOnce(&mut Waiters<T>) -> R) -> R {
        let new = || Waiters { busy: 0, ticket: 0, waiting: BTreeMap::new(), positions: HashMap::new() };
        let waiters = self.scopes.entry(Arc::clone(scope)).or_insert_with(new);
        let (rank, busy) = (waiters.rank(), waiters.busy);
        let result = change(waiters);
        let (new_rank, new_busy) = (waiters.rank(), waiters.busy);
        if new_rank.is_none() && new_busy == 0 {
            self.scopes.remove(scope);
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

    /// The scope that gets the next worker, by a scan of all scopes.
    fn scan(scopes: &Scopes<usize>) -> Option<Arc<Scope>> {
        let busy = |is_counted: &dyn Fn(&Scope) -> bool| -> usize {
            scopes.scopes.iter().filter(|(scope, _)| is_counted(scope)).map(|(_, waiters)| waiters.busy).sum()
        };
        let may_take = |scope: &Scope, waiters: &Waiters<usize>| {
            let free = scopes.per_account_region - busy(&|other| other.account_region == scope.account_region);
            let free_in_all = scopes.per_account_region * MAX_BUSY_ACCOUNT_REGIONS - busy(&|_| true);
            waiters.busy < free && busy(&|other| other.namespace == scope.namespace) < free_in_all
        };
        let waiting =
            scopes.scopes.iter().filter(|(scope, waiters)| !waiters.waiting.is_empty() && may_take(scope, waiters));
        waiting.min_by_key(|(_, waiters)| (waiters.busy, waiters.ticket)).map(|(scope, _)| Arc::clone(scope))
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
        fn next_worker_goes_where_a_scan_of_all_scopes_says(
            per_account_region in 1..4_usize,
            events in proptest::collection::vec(events(), 0..400),
        ) {
            let mut scopes = Scopes::new(per_account_region);
            let mut busy: Vec<Arc<Scope>> = Vec::new();
            for (i, event) in events.into_iter().enumerate() {
                match event {
                    Event::Waits { account_region, namespace, name, goes_first } => {
                        scopes.wait(scope(account_region, namespace), format!("{name}"), goes_first, i);
                    }
                    Event::IsPreferred { account_region, namespace, name } => {
                        scopes.prefer(&scope(account_region, namespace), &format!("{name}"));
                    }
                    Event::Takes => {
                        let expected = scan(&scopes);
                        let taken = scopes.take(|_| true).map(|(scope, _)| scope);
                        prop_assert_eq!(&taken, &expected);
                        busy.extend(taken);
                    }
                    Event::Ends(i) if !busy.is_empty() => scopes.free(&busy.swap_remove(i % busy.len())),
                    Event::Ends(_) => {}
                }
                prop_assert_eq!(scopes.next_scope(), scan(&scopes));
            }
            scopes.clear();
            busy.iter().for_each(|scope| scopes.free(scope));
            prop_assert!(scopes.is_empty(), "{:?}", scopes);
        }
    }

    #[test]
    fn resource_that_waits_again_has_one_position() {
        let mut scopes = Scopes::new(8);
        for i in 0..3 {
            scopes.wait(scope(0, 0), "a".into(), i == 1, i);
        }
        assert_eq!(scopes.take(|_| true).map(|(_, waiting)| waiting), Some(2));
        assert!(scopes.take(|_| true).is_none());
    }

    #[test]
    fn next_worker_costs_the_same_in_many_namespaces_accounts_and_regions() {
        let most = |namespaces: usize, account_regions: usize| {
            let mut scopes = Scopes::new(2);
            for i in 0..namespaces.max(account_regions) {
                scopes.wait(scope(i % account_regions, i % namespaces), "a".into(), false, i);
            }
            let next = |scopes: &mut Scopes<usize>| {
                scopes.take(|_| true).into_iter().for_each(|(scope, _)| scopes.free(&scope))
            };
            (0..100).map(|_| work::during(|| next(&mut scopes))).max()
        };
        assert_eq!([most(5000, 1), most(5000, 5000), most(1, 5000)], [most(1, 1); 3]);
    }
}
