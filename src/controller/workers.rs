//! Limits of concurrent reconciles.

use crate::api::DatasetImportJob;
use crate::personalize::{AccountRegion, DatasetArn};
use kube::ResourceExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a limit is for: an account and region, or one namespace in it. Resources with an invalid spec have no account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scope {
    account_region: Option<AccountRegion>,
    namespace: Option<String>,
}

/// The right to reconcile one resource, until it is dropped.
#[derive(Debug)]
pub(crate) struct Worker(#[expect(dead_code, reason = "dropped at the end")] [OwnedSemaphorePermit; 3]);

/// How many accounts and regions can have all their workers busy at once. Users choose accounts and regions, so their
/// number does not bound the connections and the memory of this process.
const MAX_BUSY_ACCOUNT_REGIONS: usize = 32;

#[derive(Debug, Default)]
struct State {
    /// The semaphores in use.
    semaphores: HashMap<Scope, Weak<Semaphore>>,
    closed: bool,
}

/// The workers of a leader. Each account and region has a number of its own, and one namespace gets at most half of
/// them. So calls that hang, for whatever reason, occupy only workers of their account and region, or of their namespace.
#[derive(Debug)]
pub(crate) struct Workers {
    per_account_region: usize,
    all: Arc<Semaphore>,
    state: Mutex<State>,
}

impl Workers {
    pub(crate) fn new(per_account_region: u16) -> Self {
        let per_account_region = usize::from(per_account_region.max(1));
        let all = Arc::new(Semaphore::new(per_account_region * MAX_BUSY_ACCOUNT_REGIONS));
        Self { per_account_region, all, state: Mutex::default() }
    }

    /// Waits for a worker, first come first served. `None` after a shutdown has begun.
    pub(crate) async fn acquire(&self, resource: &DatasetImportJob) -> Option<Worker> {
        let dataset = DatasetArn::parse(&resource.spec.dataset_arn).ok();
        let account_region = dataset.map(|dataset| dataset.account_region().clone());
        let pool = Scope { account_region, namespace: None };
        let namespace = Scope { namespace: Some(resource.namespace().unwrap_or_default()), ..pool.clone() };
        // A resource that waits for its namespace must not keep the others of its account and region waiting.
        let in_namespace =
            self.semaphore(namespace, self.per_account_region.div_ceil(2))?.acquire_owned().await.ok()?;
        let in_pool = self.semaphore(pool, self.per_account_region)?.acquire_owned().await.ok()?;
        let in_process = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Worker([in_namespace, in_pool, in_process]))
    }

    /// Ends all waiting. Reconciles in progress continue.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        self.all.close();
        state.semaphores.values().filter_map(Weak::upgrade).for_each(|semaphore| semaphore.close());
    }

    fn semaphore(&self, scope: Scope, permits: usize) -> Option<Arc<Semaphore>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return None;
        }
        if let Some(semaphore) = state.semaphores.get(&scope).and_then(Weak::upgrade) {
            return Some(semaphore);
        }
        // Users choose namespaces, accounts and regions, so only those in use are kept.
        state.semaphores.retain(|_, semaphore| semaphore.strong_count() > 0);
        let semaphore = Arc::new(Semaphore::new(permits));
        state.semaphores.insert(scope, Arc::downgrade(&semaphore));
        Some(semaphore)
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

    /// Takes all workers that these resources can get.
    fn take(workers: &Workers, resource: &DatasetImportJob) -> Vec<Worker> {
        std::iter::from_fn(|| workers.acquire(resource).now_or_never().flatten()).collect()
    }

    #[test]
    fn busy_namespace_and_busy_region_leave_workers_to_the_others() {
        let workers = Workers::new(4);
        let slow = take(&workers, &resource("slow", "eu-west-1"));
        assert_eq!(slow.len(), 2, "half of the account and region");
        assert_eq!(take(&workers, &resource("other", "eu-west-1")).len(), 2);
        let others = take(&workers, &resource("other", "eu-west-1"));
        let more = take(&workers, &resource("third", "eu-west-1"));
        assert_eq!((others.len(), more.len()), (2, 0), "four in all");
        assert_eq!(take(&workers, &resource("slow", "us-east-1")).len(), 2, "another region has its own");
        drop(slow);
        assert_eq!(take(&workers, &resource("third", "eu-west-1")).len(), 2, "a finished reconcile frees its worker");
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
        let busy: Vec<Worker> = (0..100).flat_map(|i| take(&workers, &resource("shop", &format!("r{i}")))).collect();
        assert_eq!(busy.len(), 2 * MAX_BUSY_ACCOUNT_REGIONS);
    }

    #[test]
    fn only_limits_in_use_are_kept() {
        let workers = Workers::new(4);
        for i in 0..100 {
            drop(take(&workers, &resource(&format!("ns-{i}"), "eu-west-1")));
        }
        assert!(workers.state.lock().unwrap().semaphores.len() <= 3);
    }

    #[tokio::test]
    async fn close_ends_the_waiting() {
        let workers = Workers::new(1);
        let resource = resource("shop", "eu-west-1");
        let busy = workers.acquire(&resource).await;
        let waiting = workers.acquire(&resource);
        workers.close();
        assert!(busy.is_some() && waiting.await.is_none());
        assert!(workers.acquire(&resource).await.is_none());
    }
}
