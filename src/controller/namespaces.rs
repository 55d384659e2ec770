//! The permissions of namespaces: the annotations of the Namespaces that limit what they may import and say under which
//! role, and their weights.
//!
//! A watch keeps them, so resources that wait read nothing, and a change wakes those that wait for it. What a watch says
//! may be old. So right before an intent is recorded the Namespace is read; until then this decides only who waits.

use super::context::Context;
use super::namespace_policy::QUEUE_WEIGHT;
use super::watch::Scope;
use crate::api::GROUP;
use crate::personalize::Personalize;
use crate::redact::sanitize_display;
use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// The delay before a watch that failed starts over.
const RESTART: Duration = Duration::from_secs(5);

/// The delay before a watch that RBAC forbids is tried again, and how often a Namespace is read instead.
const FORBIDDEN: Duration = Duration::from_secs(300);
const READ_INTERVAL: Duration = Duration::from_secs(10);

/// What a Namespace permits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Permissions {
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) is_terminating: bool,
}

impl Permissions {
    /// Keeps only the operator's annotations.
    pub(super) fn of(metadata: ObjectMeta) -> Self {
        let is_terminating = metadata.deletion_timestamp.is_some();
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.retain(|key, _| key.starts_with(GROUP));
        Self { annotations, is_terminating }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Listing,
    Synced,
    Failed,
}

/// What one watch delivered.
#[derive(Debug, Default)]
struct Cache {
    state: State,
    known: HashMap<String, Permissions>,
    listed: HashMap<String, Permissions>,
    /// What was permitted by Namespaces that are deleted, or that the watch did not deliver, when they were last known.
    last_known: HashMap<String, Permissions>,
}

impl Cache {
    /// Applies an event. Returns the namespaces whose permissions have changed.
    fn apply(&mut self, event: Event<PartialObjectMeta<Namespace>>) -> HashSet<String> {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(namespace) => {
                self.listed.insert(namespace.name_any(), Permissions::of(namespace.metadata));
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut self.known, std::mem::take(&mut self.listed));
                self.state = State::Synced;
                let changed = self.known.iter().filter(|(name, permissions)| before.get(*name) != Some(permissions));
                let changed = changed.map(|(name, _)| name.clone()).collect();
                before.into_iter().for_each(|(name, permissions)| self.removed(name, permissions));
                self.last_known.retain(|name, _| !self.known.contains_key(name));
                return changed;
            }
            Event::Apply(namespace) => {
                let (name, permissions) = (namespace.name_any(), Permissions::of(namespace.metadata));
                self.last_known.remove(&name);
                if self.known.insert(name.clone(), permissions.clone()) != Some(permissions) {
                    return HashSet::from([name]);
                }
            }
            Event::Delete(namespace) => {
                if let Some((name, permissions)) = self.known.remove_entry(&namespace.name_any()) {
                    self.removed(name, permissions);
                }
            }
        }
        HashSet::new()
    }

    /// What was read since is newer.
    fn removed(&mut self, name: String, permissions: Permissions) {
        self.last_known.entry(name).or_insert(permissions);
    }
}

/// The permissions of the watched namespaces.
#[derive(Debug)]
pub(crate) struct Namespaces(Vec<(Scope, watch::Sender<Cache>)>);

impl Namespaces {
    pub(super) fn new(scopes: &[Scope]) -> Self {
        Self(scopes.iter().map(|scope| (scope.clone(), watch::Sender::default())).collect())
    }

    /// The permissions of a namespace; `None` if they have to be read. Waits for the first list.
    pub(super) async fn get(&self, name: &str) -> Option<Permissions> {
        let mut cache = self.cache(name)?.subscribe();
        let cache = cache.wait_for(|cache| cache.state != State::Listing).await.ok()?;
        (cache.state == State::Synced).then(|| cache.known.get(name).cloned())?
    }

    /// Remembers what was read, unless the watch delivers it.
    pub(super) fn note_read(&self, name: &str, permissions: &Permissions) {
        let Some(cache) = self.cache(name) else { return };
        cache.send_if_modified(|cache| {
            if cache.state != State::Synced || !cache.known.contains_key(name) {
                cache.last_known.insert(name.to_owned(), permissions.clone());
            }
            false
        });
    }

    /// What a deleted Namespace permitted, if an import of it may still run and the Namespace was ever known.
    pub(super) fn last_known(&self, name: &str) -> Option<Permissions> {
        let cache = self.cache(name)?.borrow();
        cache.last_known.get(name).or_else(|| cache.known.get(name)).cloned()
    }

    /// Drops what is remembered of all Namespaces but these.
    pub(super) fn retain_last_known(&self, names: &HashSet<&str>) {
        for (_, cache) in &self.0 {
            cache.send_if_modified(|cache| {
                cache.last_known.retain(|name, _| names.contains(name.as_str()));
                false
            });
        }
    }

    /// Takes an event of the first watch, or its failure.
    #[cfg(test)]
    pub(super) fn observe(&self, event: Option<Event<PartialObjectMeta<Namespace>>>) {
        self.0[0].1.send_modify(|cache| match event {
            Some(event) => drop(cache.apply(event)),
            None => cache.state = State::Failed,
        });
    }

    /// A number that changes with the permissions of a namespace.
    pub(super) fn version(&self, name: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        if let Some(cache) = self.cache(name) {
            cache.borrow().known.get(name).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn cache(&self, name: &str) -> Option<&watch::Sender<Cache>> {
        let covers = |scope: &Scope| scope.as_ref().is_none_or(|namespace| namespace == name);
        self.0.iter().find(|(scope, _)| covers(scope)).map(|(_, cache)| cache)
    }
}

/// Watches the Namespaces, and triggers the resources that wait for a permission when it changes.
pub(super) async fn watch<P: Personalize>(context: &Context<P>, config: &watcher::Config) {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(context.client.clone());
    let watches = context.namespaces.0.iter().map(|(scope, cache)| {
        let fields = scope.as_ref().map(|name| format!("metadata.name={name}"));
        let config = watcher::Config { field_selector: fields, ..config.clone() };
        let api = &api;
        async move {
            loop {
                let mut events = watcher(api.clone(), config.clone()).boxed();
                while let Some(event) = events.next().await {
                    match event {
                        Ok(event) => update(context, cache, event),
                        Err(error) => {
                            warn!(
                                error = sanitize_display(&error),
                                "Namespaces can't be watched; they are read instead"
                            );
                            wait(context, api, scope.as_deref(), cache, is_forbidden(&error)).await;
                            // A watch that is resumed would miss that etcd was restored.
                            break;
                        }
                    }
                }
            }
        }
    });
    join_all(watches).await;
}

fn update<P: Personalize>(
    context: &Context<P>,
    cache: &watch::Sender<Cache>,
    event: Event<PartialObjectMeta<Namespace>>,
) {
    let mut changed = HashSet::new();
    cache.send_modify(|cache| changed = cache.apply(event));
    if !changed.is_empty() {
        let weight = |name: &String| (name.clone(), weight(name, cache.borrow().known.get(name)));
        context.set_weights(changed.iter().map(weight));
        context.enqueue_denied(&changed);
    }
}

/// How much of the quota a namespace gets when namespaces take turns.
fn weight(namespace: &str, permissions: Option<&Permissions>) -> u32 {
    let value = permissions.and_then(|permissions| permissions.annotations.get(QUEUE_WEIGHT));
    let weight = value.map_or(Some(1), |value| value.trim().parse().ok().filter(|weight| (1..=100).contains(weight)));
    weight.unwrap_or_else(|| {
        warn!(namespace, "the annotation {QUEUE_WEIGHT} is no integer from 1 to 100; the weight is 1");
        1
    })
}

/// Waits until a watch that failed starts over. A Role can grant to read its Namespace, but neither to list nor to watch
/// it. So one that may not be watched is read now and then.
async fn wait<P: Personalize>(
    context: &Context<P>,
    api: &Api<PartialObjectMeta<Namespace>>,
    namespace: Option<&str>,
    cache: &watch::Sender<Cache>,
    is_forbidden: bool,
) {
    let fail = || cache.send_modify(|cache| cache.state = State::Failed);
    fail();
    if !is_forbidden {
        return sleep(RESTART).await;
    }
    let Some(name) = namespace else { return sleep(FORBIDDEN).await };
    let until = Instant::now() + FORBIDDEN;
    while Instant::now() < until {
        match timeout(context.kube_timeout, api.get(name)).await {
            Ok(Ok(namespace)) => {
                let list = [Event::Init, Event::InitApply(namespace), Event::InitDone];
                list.into_iter().for_each(|event| update(context, cache, event));
            }
            Ok(Err(_)) | Err(_) => fail(),
        }
        sleep(READ_INTERVAL).await;
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.is_forbidden())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::namespace_policy::ALLOWED_ROLE_ARNS;
    use futures::FutureExt;
    use serde_json::json;

    fn namespace(name: &str, annotations: &serde_json::Value) -> PartialObjectMeta<Namespace> {
        serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}})).unwrap()
    }

    fn changed(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_a_change_of_the_permissions_counts() {
        let (open, closed) = (json!({"example.org/team": "a"}), json!({ALLOWED_ROLE_ARNS: ""}));
        let mut cache = Cache::default();
        let mut list = |namespaces: Vec<PartialObjectMeta<Namespace>>| {
            assert!(cache.apply(Event::Init).is_empty());
            assert!(namespaces.into_iter().all(|namespace| cache.apply(Event::InitApply(namespace)).is_empty()));
            cache.apply(Event::InitDone)
        };
        assert_eq!(list(vec![namespace("a", &open), namespace("b", &closed)]), changed(&["a", "b"]));
        assert_eq!(
            list(vec![namespace("a", &closed), namespace("b", &closed)]),
            changed(&["a"]),
            "the watch missed it"
        );
        assert_eq!(cache.apply(Event::Apply(namespace("a", &open))), changed(&["a"]));
        assert!(cache.apply(Event::Apply(namespace("a", &json!({"example.org/team": "b"})))).is_empty());
        assert!(cache.apply(Event::Delete(namespace("a", &open))).is_empty());
        assert_eq!(cache.apply(Event::Apply(namespace("a", &open))), changed(&["a"]), "it reappears");
    }

    #[test]
    fn invalid_weight_counts_as_one() {
        let weight = |value: &str| {
            let namespace = namespace("a", &json!({QUEUE_WEIGHT: value}));
            weight("a", Some(&Permissions::of(namespace.metadata)))
        };
        let weights = ["1", " 3 ", "100", "0", "101", "-1", "many", "", "1.5"].map(weight);
        assert_eq!(weights, [1, 3, 100, 1, 1, 1, 1, 1, 1]);
        assert_eq!(super::weight("a", None), 1);
    }

    #[test]
    fn permissions_count_only_while_the_watch_works() {
        let namespaces = Namespaces::new(&[Some("a".to_owned())]);
        assert!(namespaces.get("a").now_or_never().is_none(), "it waits for the list");
        let version = namespaces.version("a");
        for event in [Event::Init, Event::InitApply(namespace("a", &json!({}))), Event::InitDone] {
            namespaces.observe(Some(event));
        }
        assert_eq!(namespaces.get("a").now_or_never().unwrap(), Some(Permissions::default()));
        assert_eq!(namespaces.get("b").now_or_never().unwrap(), None, "it is not watched");
        assert_ne!(namespaces.version("a"), version);
        namespaces.observe(None);
        assert_eq!(namespaces.get("a").now_or_never().unwrap(), None);
    }
}
