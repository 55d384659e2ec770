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

mod scopes;

use crate::api::DatasetImportJob;
use crate::import::Key;
use crate::personalize::{AccountRegion, DatasetArn};
use kube::ResourceExt;
use scopes::{Scope, Scopes};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

#[derive(Debug)]
struct State {
    scopes: Scopes<oneshot::Sender<Worker>>,
    closed: bool,
}

/// The right to reconcile one resource, until it is dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    workers: Workers,
    scope: Arc<Scope>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.workers.state().scopes.free(&self.scope);
        self.workers.hand_out();
    }
}

/// The workers of a leader.
#[derive(Debug, Clone)]
pub(crate) struct Workers(Arc<Mutex<State>>);

impl Workers {
    pub(crate) fn new(per_account_region: u16) -> Self {
        let scopes = Scopes::new(per_account_region.max(1).into());
        Self(Arc::new(Mutex::new(State { scopes, closed: false })))
    }

    /// Waits for a worker. A resource that goes first is served before the others of its namespace. `None` after a shutdown
    /// has begun.
    pub(crate) async fn acquire(&self, resource: &DatasetImportJob, goes_first: bool) -> Option<Worker> {
        let dataset = DatasetArn::parse(&resource.spec.dataset_arn).ok();
        let scope = Scope {
            account_region: dataset.map(|dataset| dataset.account_region().clone()),
            namespace: resource.namespace().unwrap_or_default(),
        };
        self.acquire_in(scope, resource.name_any(), goes_first).await
    }

    /// Waits for a worker of those that all accounts and regions share by the same rules: each of them counts like a
    /// namespace.
    pub(crate) async fn acquire_shared(&self, account_region: &AccountRegion, resource: &Key) -> Option<Worker> {
        let scope = Scope { account_region: None, namespace: account_region.to_string() };
        self.acquire_in(scope, format!("{}/{}", resource.namespace, resource.name), false).await
    }

    async fn acquire_in(&self, scope: Scope, name: String, goes_first: bool) -> Option<Worker> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state();
            if state.closed {
                return None;
            }
            state.scopes.wait(scope, name, goes_first, sender);
        }
        self.hand_out();
        receiver.await.ok()
    }

    /// A resource of this account and region goes first from now on, if it waits for a worker.
    pub(crate) fn prefer(&self, account_region: &AccountRegion, resource: &Key) {
        let scope = Scope { account_region: Some(account_region.clone()), namespace: resource.namespace.clone() };
        self.state().scopes.prefer(&scope, &resource.name);
    }

    /// Ends all waiting. Reconciles in progress continue.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.scopes.clear();
    }

    fn hand_out(&self) {
        // The lock is released before a worker is sent: one whose reconcile was cancelled is dropped, and takes it.
        while let Some((scope, sender)) = self.next() {
            let _ = sender.send(Worker { workers: self.clone(), scope });
        }
    }

    fn next(&self) -> Option<(Arc<Scope>, oneshot::Sender<Worker>)> {
        self.state().scopes.take(|sender| !sender.is_closed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::scopes::MAX_BUSY_ACCOUNT_REGIONS;
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
    fn only_scopes_in_use_are_kept() {
        let workers = Workers::new(4);
        for i in 0..100 {
            drop(take(&workers, &resource(&format!("ns-{i}"), "eu-west-1")));
        }
        assert!(workers.state().scopes.is_empty());
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
