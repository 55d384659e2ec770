//! Watches: every event of the API server updates the queue before the controller sees it.

use crate::api::{ANNOTATIONS, truncate};
use crate::controller::context::Context;
use crate::controller::leader_election::Takeover;
use crate::controller::{Guarded, Options};
use crate::http::readiness::Readiness;
use crate::import::{Key, compact_managed_fields};
use crate::personalize::Personalize;
use crate::queue::Uid;
use crate::redact::sanitize_display;
use crate::telemetry::metrics::ErrorLabel;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use kube::api::ListParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use std::collections::HashSet;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::watch::{Receiver, Sender};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// A watched namespace; `None` means all namespaces.
pub(super) type Scope = Option<String>;

fn api(client: Client, scope: Option<&str>) -> Api<Guarded> {
    match scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// Checks periodically whether the API server serves the resource, for readiness.
///
/// It also notices when etcd was restored to an earlier state, because only then does the resource version of a list
/// decrease. Then all state of this leadership is out of date, not only the watch.
pub(super) async fn monitor_api_server(
    client: Client,
    options: &Options,
    readiness: &Readiness,
    history_rewound: &Notify,
) {
    let apis: Vec<_> = scopes(options).iter().map(|scope| api(client.clone(), scope.as_deref())).collect();
    let mut was_served = None;
    let mut newest = 0;
    loop {
        let (served, cause) = match first_list(&apis, options.kube_timeout).await {
            Ok(version) => {
                let version = version.unwrap_or(newest);
                if version < newest {
                    warn!(version, newest, "the API server's data was restored to an earlier state; starting over");
                    history_rewound.notify_waiters();
                }
                newest = version;
                (true, String::new())
            }
            Err(cause) => (false, cause),
        };
        if was_served != Some(served) {
            was_served = Some(served);
            if served {
                info!("the API server serves DatasetImportJobs");
            } else {
                warn!(error = %cause, "DatasetImportJobs can't be listed: is the CRD installed, and may the operator list them?");
            }
        }
        readiness.set_crd_served(served);
        sleep(if served { Duration::from_secs(5) } else { Duration::from_secs(1) }).await;
    }
}

/// The resource version of the first of these lists that the API server answers, or the last error. One namespace that
/// can't be listed says nothing about the others.
async fn first_list(apis: &[Api<Guarded>], limit: Duration) -> Result<Option<u64>, String> {
    let mut cause = String::new();
    for api in apis {
        match timeout(limit, api.list_metadata(&ListParams::default().limit(1))).await {
            Ok(Ok(list)) => return Ok(list.metadata.resource_version.and_then(|version| version.parse().ok())),
            Ok(Err(error)) => cause = sanitize_display(&error),
            Err(_) => cause = "timeout".into(),
        }
    }
    Err(cause)
}

/// The watched namespaces.
pub(super) fn scopes(options: &Options) -> Vec<Scope> {
    if options.namespaces.is_empty() { vec![None] } else { options.namespaces.iter().cloned().map(Some).collect() }
}

type Enqueue = Box<dyn Fn(&Key) + Send + Sync>;

/// A function that enqueues a resource at the controller of its scope, and the receiver for each scope's controller.
pub(super) fn enqueue_channels(scopes: &[Scope]) -> (Enqueue, Vec<UnboundedReceiver<ObjectRef<Guarded>>>) {
    let channel = |scope: &Scope| {
        let (sender, receiver) = unbounded();
        ((scope.clone(), sender), receiver)
    };
    let (senders, receivers): (Vec<_>, Vec<_>) = scopes.iter().map(channel).unzip();
    let enqueue = move |key: &Key| {
        let covers = |scope: &Scope| scope.as_ref().is_none_or(|namespace| *namespace == key.namespace);
        if let Some((_, sender)) = senders.iter().find(|(scope, _)| covers(scope)) {
            // The channel is closed if the controller has stopped.
            let _ = sender.unbounded_send(ObjectRef::new(&key.name).within(&key.namespace));
        }
    };
    (Box::new(enqueue), receivers)
}

/// The events of a watch that starts over with a list whenever it can't be resumed. While the API server was away, etcd
/// may have been restored to an earlier state. A resumed watch would then wait silently for versions newer than the last
/// one it saw, and miss what happens until the cluster gets there.
pub(super) fn watch_or_relist(
    client: Client,
    scope: Option<&str>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<Guarded>>> + use<> {
    let api = api(client, scope);
    let events = stream::unfold(None, move |watch: Option<BoxStream<'static, _>>| {
        let mut watch = watch.unwrap_or_else(|| watcher(api.clone(), config.clone()).boxed());
        async move {
            let event = watch.next().await?;
            let can_resume = !matches!(event, Err(watcher::Error::WatchStartFailed(_)));
            Some((event, can_resume.then_some(watch)))
        }
    });
    events.default_backoff()
}

/// How many resources are read at once.
const MAX_READS: usize = 4;

/// Reads the resources with these names. Those that no longer exist are left out.
pub(super) fn reads<P: Personalize>(
    context: Arc<Context<P>>,
    names: UnboundedReceiver<ObjectRef<Guarded>>,
) -> impl Stream<Item = Guarded> {
    let read = move |name: ObjectRef<Guarded>| {
        let context = Arc::clone(&context);
        async move {
            let api = api(context.client.clone(), name.namespace.as_deref());
            loop {
                sleep(context.retry_after.remaining()).await;
                match context.kube(api.get_opt(&name.name)).await {
                    Ok(resource) => return resource,
                    Err(error) => {
                        context.metrics.error(error.label());
                        warn!(resource = %name, error = sanitize_display(&error), "a read failed; retrying");
                        sleep(context.timing.backoff_min).await;
                    }
                }
            }
        }
    };
    names.map(read).buffer_unordered(MAX_READS).filter_map(ready)
}

/// What is known of resources comes from the watch, or from a read.
pub(super) enum Source {
    Watch(watcher::Result<Event<Guarded>>),
    Read(Guarded),
}

/// Both sources as one stream.
pub(super) fn merge(
    watched: impl Stream<Item = watcher::Result<Event<Guarded>>>,
    read: impl Stream<Item = Guarded>,
) -> impl Stream<Item = Source> {
    stream::select(watched.map(Source::Watch), read.map(Source::Read))
}

/// The most objects of one page of a list. A user can make each as large as a megabyte.
const PAGE_SIZE: u32 = 20;

/// How everything is watched.
pub(super) fn config(watch_timeout: Duration) -> watcher::Config {
    // The watcher accepts at most 294 seconds.
    let watch_timeout = u32::try_from(watch_timeout.as_secs()).unwrap_or(290).clamp(1, 290);
    watcher::Config::default().timeout(watch_timeout).page_size(PAGE_SIZE)
}

/// Keeps only what the operator reads. What users and tools attach to a resource can be hundreds of kilobytes. A status
/// write does not remove it, because the API server changes only the status then.
fn reduce(resource: &mut Guarded) {
    let metadata = resource.meta_mut();
    (metadata.labels, metadata.owner_references, metadata.finalizers) = (None, None, None);
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| ANNOTATIONS.contains(&key.as_str()));
        annotations.values_mut().for_each(|value| *value = truncate(value));
    }
    match &mut resource.0 {
        Ok(resource) => compact_managed_fields(resource),
        Err(invalid) => invalid.metadata.managed_fields = None,
    }
}

/// The events of a scope; each one first updates the queue. An idle resource is removed from the cache, or not added.
/// `synced` is notified once the scope is listed.
pub(super) fn events<P: Personalize>(
    context: Arc<Context<P>>,
    scope: Scope,
    takeover: Takeover,
    sources: impl Stream<Item = Source>,
    synced: Sender<()>,
) -> impl Stream<Item = watcher::Result<Event<Guarded>>> {
    let mut unlisted: HashSet<Uid> = HashSet::new();
    sources.filter_map(move |source| {
        let event = match source {
            Source::Watch(event) => event,
            // The watch has delivered a newer version since, or the deletion.
            Source::Read(guarded) if !guarded.0.as_ref().is_ok_and(|read| context.queue().is_current(read)) => {
                return ready(None);
            }
            Source::Read(guarded) => Ok(Event::Apply(guarded)),
        };
        let event = event.map(|event| event.modify(reduce));
        let mut idle = false;
        match &event {
            Ok(Event::Init) => {
                unlisted = context.queue().relist(scope.as_deref());
            }
            Ok(Event::Apply(guarded) | Event::InitApply(guarded)) => {
                if let Some(uid) = guarded.meta().uid.as_ref() {
                    unlisted.remove(uid.as_str());
                }
                match (&guarded.0, &event) {
                    (Ok(resource), Ok(Event::InitApply(_))) => idle = context.observe_listed(resource),
                    (Ok(resource), _) => idle = context.observe(resource),
                    (Err(_), _) => guarded.meta().uid.iter().for_each(|uid| context.forget(uid)),
                }
            }
            Ok(Event::Delete(guarded)) => {
                if let Some(uid) = guarded.meta().uid.as_ref() {
                    context.forget(uid);
                }
            }
            Ok(Event::InitDone) => {
                unlisted.drain().for_each(|uid| context.forget(&uid));
                context.wake_replaced();
                let namespace = scope.as_deref().unwrap_or_default();
                if context.readiness.is_unsynced(namespace) {
                    // Before any of its resources is reconciled.
                    context.initial_list_complete(namespace, takeover);
                    context.readiness.mark_synced(namespace);
                    // Reconciles before the initial list completed were skipped; trigger them now.
                    let _ = synced.send(());
                }
            }
            Err(error) => {
                context.metrics.error(ErrorLabel::Watch);
                warn!(error = sanitize_display(error), "watch failed; retrying");
            }
        }
        ready(match event {
            Ok(Event::Apply(resource)) if idle => Some(Ok(Event::Delete(resource))),
            Ok(Event::InitApply(_)) if idle => None,
            event => Some(event),
        })
    })
}

/// A stream with an item for each change of the value.
pub(super) fn changes(value: Receiver<()>) -> impl Stream<Item = ()> {
    stream::unfold(value, |mut value| async { value.changed().await.is_ok().then_some(((), value)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ADOPT, DatasetImportJob, RECONCILE_REQUESTED_AT, SUSPEND};
    use crate::import::{MANAGER, UserInputs};
    use crate::testing;
    use kube::core::DeserializeGuard;

    #[test]
    fn store_keeps_only_what_the_operator_reads() {
        let mut resource: DatasetImportJob = testing::resource(testing::spec());
        testing::set_status_manager(&mut resource, MANAGER);
        resource.metadata.finalizers = Some(vec!["example.org/keep".into()]);
        resource.metadata.labels = Some([("team".to_owned(), "shop".to_owned())].into());
        let long = "é".repeat(1000);
        let annotations =
            [(ADOPT, "true"), (SUSPEND, "true"), (RECONCILE_REQUESTED_AT, &long), ("example.org/x", &long)];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
        resource.metadata.annotations = Some(annotations.into());
        let mut guarded = DeserializeGuard(Ok(resource.clone()));
        reduce(&mut guarded);
        let reduced = guarded.0.unwrap();
        assert_eq!(UserInputs::of(&reduced), UserInputs::of(&resource));
        assert_eq!((&reduced.spec, &reduced.status), (&resource.spec, &resource.status));
        let annotations = reduced.metadata.annotations.unwrap();
        assert_eq!((annotations.len(), annotations[RECONCILE_REQUESTED_AT].chars().count()), (3, 256));
        assert_eq!((reduced.metadata.labels, reduced.metadata.finalizers), (None, None));
        assert_eq!(reduced.metadata.uid, resource.metadata.uid);
    }
}
