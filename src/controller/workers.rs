//! Limits of concurrent reconciles, and their order.
//!
//! Each account and region has workers of its own, and its namespaces share them by two rules:
//!
//! - A namespace takes a worker only while it has fewer than are free. One namespace gets half of them, two get a third
//!   each, and so on: some stay free for the next one.
//! - A worker goes to the namespace that has the fewest; among equals, to the one whose last turn is the longest ago.
//!
//! So a namespace without a worker waits at most `t * (1 + k / n)`: `t` is how long a reconcile takes, `n` the number of
//! workers, and `k` how many other namespaces of the account and region wait without one. The number of their resources
//! does not matter. Each call of a reconcile has a timeout, and the first one that fails ends it; only after a list that
//! replaces polls has failed, one more call follows.

use crate::api::DatasetImportJob;
use crate::import::Key;
use crate::personalize::{AccountRegion, DatasetArn};
use kube::ResourceExt;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// How many accounts and regions can have all their workers busy at once. Users choose accounts and regions, so their
/// number does not bound the connections and the memory of this process.
const MAX_BUSY_ACCOUNT_REGIONS: usize = 32;

/// One namespace in an account and region. Resources with an invalid spec have no account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scope {
    account_region: Option<AccountRegion>,
    namespace: String,
}

/// The reconciles of a scope.
#[derive(Debug, Default)]
struct Line {
    busy: usize,
    /// When it last got a worker, or began to wait: a number that grows.
    turn: u64,
    waiting: BTreeMap<Place, (String, oneshot::Sender<Worker>)>,
    /// The place of each waiting resource, by its name.
    places: HashMap<String, Place>,
}

/// The place of a resource that waits for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    goes_first: Reverse<bool>,
    /// When it began to wait, or to go first: a number that grows.
    turn: u64,
}

impl Line {
    fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn push(&mut self, place: Place, name: String, sender: oneshot::Sender<Worker>) {
        // A reconcile of this resource that was cancelled may still have a place.
        if let Some(earlier) = self.places.insert(name.clone(), place) {
            self.waiting.remove(&earlier);
        }
        self.waiting.insert(place, (name, sender));
    }

    fn pop(&mut self) -> Option<oneshot::Sender<Worker>> {
        let (_, (name, sender)) = self.waiting.pop_first()?;
        self.places.remove(&name);
        Some(sender)
    }

    /// The resource is served before those that do not go first.
    fn prefer(&mut self, name: &str, turn: u64) {
        let place = self.places.get(name).filter(|place| !place.goes_first.0);
        if let Some((name, sender)) = place.and_then(|place| self.waiting.remove(place)) {
            let place = Place { goes_first: Reverse(true), turn };
            self.places.insert(name.clone(), place);
            self.waiting.insert(place, (name, sender));
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Users choose namespaces, accounts and regions, so only those in use are kept.
    lines: HashMap<Scope, Line>,
    turns: u64,
    closed: bool,
}

impl State {
    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// The scope that gets the next worker.
    fn next(&self, per_account_region: usize) -> Option<Scope> {
        let (mut in_account_region, mut in_namespace, mut in_all) = (HashMap::new(), HashMap::new(), 0);
        for (scope, line) in &self.lines {
            *in_account_region.entry(&scope.account_region).or_insert(0) += line.busy;
            *in_namespace.entry(&scope.namespace).or_insert(0) += line.busy;
            in_all += line.busy;
        }
        let free_in_all = per_account_region * MAX_BUSY_ACCOUNT_REGIONS - in_all;
        let may_take = |scope: &Scope, line: &Line| {
            let free = per_account_region - in_account_region[&scope.account_region];
            line.busy < free && in_namespace[&scope.namespace] < free_in_all
        };
        let waiting = self.lines.iter().filter(|(scope, line)| line.is_waiting() && may_take(scope, line));
        waiting.min_by_key(|(_, line)| (line.busy, line.turn)).map(|(scope, _)| scope.clone())
    }
}

/// The right to reconcile one resource, until it is dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    workers: Workers,
    scope: Scope,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(line) = self.workers.state().lines.get_mut(&self.scope) {
            line.busy -= 1;
        }
        self.workers.hand_out();
    }
}

/// The workers of a leader.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    per_account_region: usize,
    state: Arc<Mutex<State>>,
}

impl Workers {
    pub(crate) fn new(per_account_region: u16) -> Self {
        Self { per_account_region: per_account_region.max(1).into(), state: Arc::default() }
    }

    /// Waits for a worker. A resource that goes first is served before the others of its namespace. `None` after a shutdown
    /// has begun.
    pub(crate) async fn acquire(&self, resource: &DatasetImportJob, goes_first: bool) -> Option<Worker> {
        let dataset = DatasetArn::parse(&resource.spec.dataset_arn).ok();
        let scope = Scope {
            account_region: dataset.map(|dataset| dataset.account_region().clone()),
            namespace: resource.namespace().unwrap_or_default(),
        };
        let (sender, receiver) = oneshot::channel();
        self.wait(scope, resource.name_any(), sender, goes_first);
        self.hand_out();
        receiver.await.ok()
    }

    /// Ends all waiting. Reconciles in progress continue.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.lines.clear();
    }

    /// A resource of this account and region goes first from now on, if it waits for a worker.
    pub(crate) fn prefer(&self, account_region: &AccountRegion, resource: &Key) {
        let scope = Scope { account_region: Some(account_region.clone()), namespace: resource.namespace.clone() };
        let mut state = self.state();
        let turn = state.turn();
        if let Some(line) = state.lines.get_mut(&scope) {
            line.prefer(&resource.name, turn);
        }
    }

    fn wait(&self, scope: Scope, name: String, sender: oneshot::Sender<Worker>, goes_first: bool) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        let turn = state.turn();
        let line = state.lines.entry(scope).or_insert_with(|| Line { turn, ..Line::default() });
        line.push(Place { goes_first: Reverse(goes_first), turn }, name, sender);
    }

    fn hand_out(&self) {
        // The lock is released before a worker is sent: one whose reconcile was cancelled is dropped, and takes it.
        while let Some((sender, worker)) = self.next() {
            let _ = sender.send(worker);
        }
    }

    fn next(&self) -> Option<(oneshot::Sender<Worker>, Worker)> {
        let mut state = self.state();
        loop {
            let Some(scope) = state.next(self.per_account_region) else {
                state.lines.retain(|_, line| line.busy > 0 || line.is_waiting());
                return None;
            };
            let turn = state.turn();
            let line = state.lines.get_mut(&scope)?;
            let mut waiting = std::iter::from_fn(|| line.pop());
            if let Some(sender) = waiting.find(|sender| !sender.is_closed()) {
                line.busy += 1;
                line.turn = turn;
                return Some((sender, Worker { workers: self.clone(), scope }));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use futures::FutureExt;

    fn resource(namespace: &str, region: &str) -> DatasetImportJob {
        let mut resource = testing::resource(testing::spec());
        resource.spec.dataset_arn = format!("arn:aws:personalize:{region}:123456789012:dataset/shop/INTERACTIONS");
        resource.metadata.namespace = Some(namespace.into());
        resource
    }

    fn named(name: &str, mut resource: DatasetImportJob) -> DatasetImportJob {
        resource.metadata.name = Some(name.into());
        resource
    }

    /// Takes all workers that these resources can get.
    fn take(workers: &Workers, resource: &DatasetImportJob) -> Vec<Worker> {
        std::iter::from_fn(|| workers.acquire(resource, false).now_or_never().flatten()).collect()
    }

    /// The order in which waiting reconciles of these namespaces get the only worker.
    fn order(namespaces: [&'static str; 6]) -> String {
        let workers = Workers::new(1);
        let busy = take(&workers, &resource("busy", "eu-west-1"));
        let mut names = 0..;
        let resources = namespaces.map(|namespace| {
            (namespace, named(&format!("r{}", names.next().unwrap()), resource(namespace, "eu-west-1")))
        });
        let mut waiting: Vec<_> =
            resources.iter().map(|(name, r)| (*name, Box::pin(workers.acquire(r, false)))).collect();
        assert!(waiting.iter_mut().all(|(_, acquire)| acquire.now_or_never().is_none()));
        drop(busy);
        let mut served = String::new();
        while let Some(at) = waiting.iter_mut().position(|(_, acquire)| acquire.now_or_never().is_some()) {
            served += waiting.remove(at).0;
        }
        served
    }

    #[test]
    fn busy_namespaces_and_busy_regions_leave_workers_to_the_others() {
        let workers = Workers::new(4);
        let slow = take(&workers, &resource("slow", "eu-west-1"));
        assert_eq!(slow.len(), 2, "half of the account and region");
        let too = take(&workers, &resource("slow-too", "eu-west-1"));
        assert_eq!(too.len(), 1, "one stays free");
        let third = take(&workers, &resource("third", "eu-west-1"));
        assert_eq!((third.len(), take(&workers, &resource("fourth", "eu-west-1")).len()), (1, 0), "four in all");
        assert_eq!(take(&workers, &resource("slow", "us-east-1")).len(), 2, "another region has its own");
        drop(slow);
        assert_eq!(take(&workers, &resource("fourth", "eu-west-1")).len(), 1, "a finished reconcile frees its worker");
    }

    #[test]
    fn namespaces_take_turns() {
        assert_eq!(order(["a", "a", "a", "b", "b", "c"]), "abcaba");
    }

    #[test]
    fn namespace_without_a_worker_goes_first() {
        let workers = Workers::new(3);
        let (many, one) = (resource("many", "eu-west-1"), resource("one", "eu-west-1"));
        let mut busy = take(&workers, &many);
        busy.extend(take(&workers, &resource("other", "eu-west-1")));
        assert_eq!(busy.len(), 3);
        let (mut earlier, mut later) =
            (Box::pin(workers.acquire(&many, false)), Box::pin(workers.acquire(&one, false)));
        assert!((&mut earlier).now_or_never().is_none() && (&mut later).now_or_never().is_none());
        busy.pop();
        assert!(later.now_or_never().is_some() && earlier.now_or_never().is_none());
    }

    #[test]
    fn resource_that_goes_first_is_served_before_the_others_of_its_namespace() {
        let workers = Workers::new(1);
        let busy = take(&workers, &resource("busy", "eu-west-1"));
        let resources = ["a", "b", "c", "d", "e"].map(|name| named(name, resource("shop", "eu-west-1")));
        let mut waits: Vec<_> = resources
            .iter()
            .zip([false, true, true, false, false])
            .map(|(resource, goes_first)| (resource.name_any(), Box::pin(workers.acquire(resource, goes_first))))
            .collect();
        assert!(waits.iter_mut().all(|(_, acquire)| acquire.now_or_never().is_none()));
        let dataset = DatasetArn::parse(&resources[0].spec.dataset_arn).unwrap();
        for name in ["e", "b", "other"] {
            let key = Key { namespace: "shop".into(), name: name.into() };
            workers.prefer(dataset.account_region(), &key);
        }
        drop(busy);
        let mut served = String::new();
        while let Some(at) = waits.iter_mut().position(|(_, acquire)| acquire.now_or_never().is_some()) {
            served += &waits.remove(at).0;
        }
        assert_eq!(served, "bcead");
    }

    #[test]
    fn reconcile_that_starts_again_while_it_waits_has_one_place() {
        let workers = Workers::new(1);
        let busy = workers.acquire(&resource("busy", "eu-west-1"), false).now_or_never().flatten();
        assert!(busy.is_some());
        let resource = resource("shop", "eu-west-1");
        for _ in 0..10 {
            assert!(workers.acquire(&resource, false).now_or_never().is_none());
        }
        assert_eq!(workers.state().lines.values().map(|line| line.waiting.len()).sum::<usize>(), 1);
        drop(busy);
        assert!(workers.acquire(&resource, false).now_or_never().flatten().is_some());
        assert!(workers.state().lines.is_empty());
    }

    #[test]
    fn reconcile_that_was_cancelled_while_it_waited_gets_no_worker() {
        let workers = Workers::new(1);
        let resource = resource("shop", "eu-west-1");
        let busy = take(&workers, &resource);
        assert!(workers.acquire(&resource, false).now_or_never().is_none());
        drop(busy);
        assert_eq!(take(&workers, &resource).len(), 1);
    }

    #[test]
    fn single_worker_serves_any_namespace() {
        let workers = Workers::new(1);
        assert_eq!(take(&workers, &resource("shop", "eu-west-1")).len(), 1);
        let mut invalid = resource("shop", "eu-west-1");
        invalid.spec.dataset_arn = "no ARN".into();
        assert_eq!(take(&workers, &invalid).len(), 1);
    }

    #[test]
    fn number_of_accounts_and_regions_does_not_multiply_the_workers_without_end() {
        let workers = Workers::new(2);
        let fill = |namespace: &str| -> Vec<Worker> {
            (0..100).flat_map(|i| take(&workers, &resource(namespace, &format!("r{i}")))).collect()
        };
        let busy = fill("shop");
        assert_eq!(busy.len(), MAX_BUSY_ACCOUNT_REGIONS, "half of all");
        let all: Vec<Worker> = ["b", "c", "d", "e", "f", "g", "h"].into_iter().flat_map(fill).chain(busy).collect();
        assert_eq!(all.len(), 2 * MAX_BUSY_ACCOUNT_REGIONS);
    }

    #[test]
    fn only_lines_in_use_are_kept() {
        let workers = Workers::new(4);
        for i in 0..100 {
            drop(take(&workers, &resource(&format!("ns-{i}"), "eu-west-1")));
        }
        assert!(workers.state().lines.is_empty());
    }

    #[tokio::test]
    async fn close_ends_the_waiting() {
        let workers = Workers::new(1);
        let resource = resource("shop", "eu-west-1");
        let busy = workers.acquire(&resource, false).await;
        let waiting = workers.acquire(&resource, false);
        workers.close();
        assert!(busy.is_some() && waiting.await.is_none());
        assert!(workers.acquire(&resource, false).await.is_none());
    }
}
