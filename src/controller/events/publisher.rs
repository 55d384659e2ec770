//! Publishes events without delaying an import.

use super::EventSpec;
use crate::api::DatasetImportJob;
use crate::personalize::{AccountRegion, DatasetArn, ServiceError};
use crate::redact::{sanitize, sanitize_display};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::runtime::events::Reporter;
use kube::{Api, Client, Resource};
use lru::LruCache;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{Instrument, Span, warn};

/// The maximum length of a note in bytes, a little below the API server's limit of 1024.
const MAX_NOTE: usize = 1000;

/// How much of the resource's name an event's name keeps, in bytes: with the suffix it stays below the limit of 253.
const MAX_NAME_PREFIX: usize = 230;

/// The maximum length of the reporting instance in bytes, a limit of the API server.
const MAX_INSTANCE: usize = 128;

/// The maximum number of pending events. Beyond it, the newest one of the namespace with the most is dropped.
const MAX_PENDING: usize = 4096;

/// How many events are published at once, of as many namespaces: a webhook may be slow for one of them.
const MAX_CONCURRENT: usize = 4;

/// While the service throttles or refuses the calls of an account and region, one resource of each namespace gets an
/// event in this time: the first. The status of each resource says the same.
const SHARED_EVENT_INTERVAL: Duration = Duration::from_secs(600);

/// The maximum number of shared events that are remembered. Users choose the accounts and regions.
const MAX_SHARED_EVENTS: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// The timeout for one event.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout for all pending events at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// A namespace, or none if it is the same for all, an account and region, and a reason.
type SharedCause = (String, Option<AccountRegion>, &'static str);

/// Publishes events. Those of one namespace go one after the other, in the order in which they were created.
pub(crate) struct EventPublisher {
    reporter: Reporter,
    pending: Arc<Pending>,
    /// The time in the name of the last event, in nanoseconds.
    last_time: AtomicI64,
    /// When an event was published for all resources of a namespace, account and region.
    shared: Mutex<LruCache<SharedCause, Instant>>,
}

impl EventPublisher {
    pub(crate) fn new(client: Client, reporter: Reporter) -> Self {
        let (pending, shared) = (Arc::new(Pending::new(client)), Mutex::new(LruCache::new(MAX_SHARED_EVENTS)));
        Self { reporter, pending, last_time: AtomicI64::new(0), shared }
    }

    /// Adds events to the pending ones and does not wait: an API server that accepts no events must not delay an
    /// import.
    pub(crate) fn publish(&self, resource: &DatasetImportJob, events: Vec<EventSpec>) {
        for spec in events {
            if spec.is_shared && !self.is_shared_event_due(resource, spec.reason, Instant::now()) {
                continue;
            }
            self.publish_about(resource.object_ref(&()), &spec);
        }
    }

    /// Adds an event about any object to the pending ones.
    pub(in crate::controller) fn publish_about(&self, regarding: ObjectReference, spec: &EventSpec) {
        let namespace = regarding.namespace.clone().unwrap_or_default();
        self.pending.add(namespace, (self.event(regarding, spec), Span::current()));
    }

    /// Says, once for an account and region, that imports continue although the data deletion jobs can't be listed.
    pub(crate) fn deletions_unchecked(&self, resource: &DatasetImportJob, dataset: &DatasetArn, error: &ServiceError) {
        const REASON: &str = "DataDeletionsUnchecked";
        let account_region = dataset.account_region();
        let key = (String::new(), Some(account_region.clone()), REASON);
        if self.shared().put(key, Instant::now()).is_some() {
            return;
        }
        let note = format!(
            "the data deletion jobs of {account_region} can't be listed ({}), so imports are also submitted while users are being deleted, and a deletion may miss their data; allow personalize:ListDataDeletionJobs. This is said once for the account and region",
            error.code
        );
        warn!("{note}");
        let spec = EventSpec { warning: true, is_shared: false, reason: REASON, action: "ListDataDeletionJobs", note };
        self.publish(resource, vec![spec]);
    }

    fn shared(&self) -> MutexGuard<'_, LruCache<SharedCause, Instant>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all pending events are published, at most [`FLUSH_TIMEOUT`].
    pub(crate) async fn flush(&self) {
        let mut count = self.pending.count.subscribe();
        if timeout(FLUSH_TIMEOUT, count.wait_for(|count| *count == 0)).await.is_err() {
            warn!("some events could not be published before the shutdown");
        }
    }

    /// Whether this resource gets the event for all resources of its namespace, account and region.
    fn is_shared_event_due(&self, resource: &DatasetImportJob, reason: &'static str, now: Instant) -> bool {
        let dataset = DatasetArn::parse(&resource.spec.dataset_arn).ok();
        let account_region = dataset.map(|dataset| dataset.account_region().clone());
        let key = (resource.metadata.namespace.clone().unwrap_or_default(), account_region, reason);
        let mut shared = self.shared();
        let is_due = shared.get(&key).is_none_or(|last| now.duration_since(*last) >= SHARED_EVENT_INTERVAL);
        if is_due {
            shared.put(key, now);
        }
        is_due
    }

    fn event(&self, regarding: ObjectReference, spec: &EventSpec) -> Event {
        let now = Timestamp::now();
        let prefix = truncate(regarding.name.as_deref().unwrap_or_default(), MAX_NAME_PREFIX);
        let instance = self.reporter.instance.as_deref().filter(|instance| !instance.is_empty());
        Event {
            metadata: ObjectMeta {
                namespace: regarding.namespace.clone(),
                // `kubectl describe` sorts events by name, so names are in the order of creation.
                name: Some(format!("{}.{:016x}", prefix.trim_end_matches(['.', '-']), self.unique_time(now))),
                ..ObjectMeta::default()
            },
            regarding: Some(regarding),
            type_: Some(if spec.warning { "Warning" } else { "Normal" }.into()),
            reason: Some(spec.reason.into()),
            action: Some(spec.action.into()),
            note: Some(truncate(&sanitize(&spec.note), MAX_NOTE).into()),
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(self.reporter.controller.clone()),
            reporting_instance: Some(truncate(instance.unwrap_or(&self.reporter.controller), MAX_INSTANCE).into()),
            ..Event::default()
        }
    }

    /// The time in nanoseconds, or the next nanosecond that no event has used.
    fn unique_time(&self, now: Timestamp) -> i64 {
        let now = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        let next = |last: i64| now.max(last.saturating_add(1));
        self.last_time.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).map_or(now, next)
    }
}

/// An event to publish, and the span of the reconcile that created it.
type PendingEvent = (Event, Span);

/// The pending events.
struct Pending {
    client: Client,
    /// Namespace -> its events. Each namespace in it has a task that publishes them.
    namespaces: Mutex<HashMap<String, VecDeque<PendingEvent>>>,
    /// The number of events, with those that are being published.
    count: watch::Sender<usize>,
    concurrent: Semaphore,
}

impl Pending {
    fn new(client: Client) -> Self {
        let (namespaces, count) = (Mutex::default(), watch::Sender::new(0));
        Self { client, namespaces, count, concurrent: Semaphore::new(MAX_CONCURRENT) }
    }

    fn namespaces(&self) -> MutexGuard<'_, HashMap<String, VecDeque<PendingEvent>>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, namespace: String, event: PendingEvent) {
        let mut namespaces = self.namespaces();
        namespaces
            .entry(namespace.clone())
            .or_insert_with(|| {
                tokio::spawn(Arc::clone(self).publish_all(namespace));
                VecDeque::new()
            })
            .push_back(event);
        if *self.count.borrow() < MAX_PENDING {
            self.count.send_modify(|count| *count += 1);
        } else if let Some(longest) = namespaces.values_mut().max_by_key(|events| events.len()) {
            longest.pop_back();
            warn!("event dropped: too many events are pending");
        }
    }

    /// Publishes the events of a namespace until there is none.
    async fn publish_all(self: Arc<Self>, namespace: String) {
        while let Ok(_permit) = self.concurrent.acquire().await {
            let Some((event, span)) = self.next(&namespace) else { break };
            publish_event(&self.client, &event).instrument(span).await;
            self.count.send_modify(|count| *count -= 1);
        }
    }

    fn next(&self, namespace: &str) -> Option<PendingEvent> {
        let mut namespaces = self.namespaces();
        let event = namespaces.get_mut(namespace).and_then(VecDeque::pop_front);
        if event.is_none() {
            namespaces.remove(namespace);
        }
        event
    }
}

async fn publish_event(client: &Client, event: &Event) {
    let api: Api<Event> = Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or_default());
    let reason = event.reason.as_deref();
    match timeout(PUBLISH_TIMEOUT, api.create(&PostParams::default(), event)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => warn!(reason, error = sanitize_display(&error), "an event could not be published"),
        Err(_) => warn!(reason, "an event could not be published in time"),
    }
}

/// The longest prefix of `text` with at most `max` bytes.
fn truncate(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;
    use kube::client::Body;

    /// A publisher whose API server answers no request for the namespace `hangs`, and the namespaces of the events that
    /// were published.
    fn publisher(instance: Option<String>) -> (EventPublisher, Arc<Mutex<Vec<String>>>) {
        let reporter = Reporter { controller: "personalize-operator".into(), instance };
        let published: Arc<Mutex<Vec<String>>> = Arc::default();
        let recorded = Arc::clone(&published);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let namespace = request.uri().path().split('/').nth(5).unwrap_or_default().to_owned();
            let recorded = Arc::clone(&recorded);
            async move {
                if namespace == "hangs" {
                    std::future::pending::<()>().await;
                }
                recorded.lock().unwrap().push(namespace);
                Ok::<_, kube::Error>(http::Response::new(request.into_body()))
            }
        });
        (EventPublisher::new(Client::new(service, "shop"), reporter), published)
    }

    fn resource(name: &str) -> DatasetImportJob {
        let mut resource = DatasetImportJob::new(name, spec());
        resource.metadata.namespace = Some("shop".into());
        resource.metadata.uid = Some("uid".into());
        resource
    }

    fn spec_with(note: &str) -> EventSpec {
        EventSpec { warning: false, is_shared: false, reason: "Queued", action: "Reconcile", note: note.into() }
    }

    #[tokio::test]
    async fn long_names_notes_and_instances_are_truncated_to_the_limits_of_the_api_server() {
        for instance in [None, Some(String::new()), Some("é".repeat(100))] {
            let (publisher, _published) = publisher(instance);
            for name in ["a".repeat(253), format!("{}.{}", "a".repeat(229), "b".repeat(23)), "short".into()] {
                let event = publisher.event(resource(&name).object_ref(&()), &spec_with(&"é".repeat(900)));
                let event_name = event.metadata.name.unwrap();
                assert!(event_name.len() <= 253, "{event_name}");
                let valid = |label: &str| {
                    label.starts_with(|c: char| c.is_ascii_alphanumeric())
                        && label.ends_with(|c: char| c.is_ascii_alphanumeric())
                };
                assert!(event_name.split('.').all(valid), "{event_name}");
                assert_eq!(event.regarding.unwrap().name.unwrap(), name, "the reference keeps the whole name");
                let note = event.note.unwrap();
                assert!((900..=1000).contains(&note.len()), "{}", note.len());
                let instance = event.reporting_instance.unwrap();
                assert!((1..=128).contains(&instance.len()), "{instance}");
            }
        }
    }

    #[tokio::test]
    async fn event_names_are_in_the_order_of_creation() {
        let (publisher, _published) = publisher(None);
        let names: Vec<_> = (0..1000)
            .map(|_| publisher.event(resource("nightly").object_ref(&()), &spec_with("x")).metadata.name.unwrap())
            .collect();
        assert!(names.is_sorted_by(|a, b| a < b));
    }

    #[tokio::test]
    async fn flood_and_slow_webhook_of_one_namespace_cost_no_event_of_another() {
        let (publisher, published) = publisher(None);
        let mut slow = resource("nightly");
        slow.metadata.namespace = Some("hangs".into());
        publisher.publish(&slow, vec![spec_with("flood"); 2 * MAX_PENDING]);
        let mut count = publisher.pending.count.subscribe();
        assert_eq!(*count.borrow(), MAX_PENDING);
        publisher.publish(&resource("nightly"), ["a", "b", "c"].map(spec_with).to_vec());
        assert_eq!(publisher.pending.namespaces()["hangs"].len(), MAX_PENDING - 3, "the flood loses events");
        let others_published = count.wait_for(|count| *count == MAX_PENDING - 3);
        timeout(FLUSH_TIMEOUT, others_published).await.expect("one slow namespace occupies one publisher").unwrap();
        assert_eq!(*published.lock().unwrap(), ["shop"; 3]);
        assert!(!publisher.pending.namespaces().contains_key("shop"), "only namespaces in use are kept");
    }

    #[tokio::test]
    async fn one_resource_of_a_namespace_account_and_region_gets_the_event_that_is_the_same_for_all() {
        let (publisher, _published) = publisher(None);
        let now = Instant::now();
        let is_due = |namespace: &str, region: &str, reason, now| {
            let mut resource = resource("nightly");
            resource.metadata.namespace = Some(namespace.into());
            resource.spec.dataset_arn = format!("arn:aws:personalize:{region}:123456789012:dataset/shop/ITEMS");
            publisher.is_shared_event_due(&resource, reason, now)
        };
        assert!(is_due("shop", "eu-west-1", "Throttled", now));
        assert!(!is_due("shop", "eu-west-1", "Throttled", now));
        assert!(is_due("shop", "eu-west-1", "CredentialsRefused", now), "another cause");
        assert!(is_due("shop", "us-east-1", "Throttled", now), "another region");
        assert!(is_due("other", "eu-west-1", "Throttled", now), "a team sees the events of its own namespace");
        let later = now + SHARED_EVENT_INTERVAL;
        assert!(is_due("shop", "eu-west-1", "Throttled", later) && !is_due("shop", "eu-west-1", "Throttled", later));
    }
}
