//! One account and region: who is admitted. What is kept here follows from the entries and the time, so that an event
//! costs the logarithm of their number.

use super::dataset::{DatasetQueue, Waiting};
use super::entry::{Entry, QueueState, Reservation};
use super::line::{Forecast, Line, Shares, Turns};
use super::place::Place;
use super::stats::{PoolStats, QueueLine, WaitingResource};
use crate::api::conditions::Reason;
use crate::import::{Admission, Backoff, CooldownCause, Key};
use crate::personalize::{AccountRegion, DatasetArn};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// A pause of submissions after the service accepted none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Cooldown {
    pub(super) backoff: Backoff,
    pub(super) cause: CooldownCause,
}

impl Cooldown {
    fn until(&self) -> Timestamp {
        self.backoff.until().unwrap_or(Timestamp::MIN)
    }
}

/// The resources of one account and region.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    quota: usize,
    /// The latest time that `advance` was called with. It never goes back, so a resource that was due stays due.
    now: Timestamp,
    datasets: BTreeMap<DatasetArn, DatasetQueue>,
    /// The first resource of each free dataset, if it is due.
    line: Line,
    /// The first resource of each free dataset, if it is not due yet.
    delayed: BTreeSet<(Timestamp, Arc<Place>)>,
    /// The resources that wait to submit, and that no other waits for until then.
    skipped: BTreeMap<(Timestamp, Arc<Place>), Waiting>,
    /// The imports that run, or may run.
    in_flight: BTreeSet<Arc<Place>>,
    /// The reconciliations that were admitted.
    reserved: BTreeSet<Arc<Place>>,
    /// The resources that wait to submit, and since when.
    pending: BTreeMap<Arc<Place>, Timestamp>,
    pending_since: BTreeSet<(Timestamp, Arc<Place>)>,
    /// The resources that are deleted or marked for deletion.
    deleted: BTreeSet<Arc<Place>>,
    /// The resources that are not deleted, by reason.
    by_reason: BTreeMap<Option<Reason>, BTreeSet<Arc<Place>>>,
    pub(super) cooldown: Option<Cooldown>,
}

/// Adds or removes a member of a set.
pub(super) fn set<T: Ord>(set: &mut BTreeSet<T>, item: T, is_member: bool) {
    if is_member {
        set.insert(item);
    } else {
        set.remove(&item);
    }
}

impl Pool {
    pub(super) fn new(quota: usize) -> Self {
        Self {
            quota,
            now: Timestamp::MIN,
            datasets: BTreeMap::new(),
            line: Line::default(),
            delayed: BTreeSet::new(),
            skipped: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            reserved: BTreeSet::new(),
            pending: BTreeMap::new(),
            pending_since: BTreeSet::new(),
            deleted: BTreeSet::new(),
            by_reason: BTreeMap::new(),
            cooldown: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.datasets.is_empty() && self.deleted.is_empty() && self.by_reason.is_empty() && self.cooldown.is_none()
    }

    /// Whose turn it is.
    pub(super) fn turns(&self) -> &Turns {
        &self.line.turns
    }

    /// The ARN of this dataset, shared with the other resources of it.
    pub(super) fn shared(&self, dataset: &DatasetArn) -> Option<DatasetArn> {
        self.datasets.get_key_value(dataset).map(|(shared, _)| shared.clone())
    }

    pub(super) fn datasets(&self) -> impl Iterator<Item = (&DatasetArn, &DatasetQueue)> {
        self.datasets.iter()
    }

    pub(super) fn dataset(&self, dataset: &DatasetArn) -> Option<&DatasetQueue> {
        self.datasets.get(dataset)
    }

    /// Replaces the entry of a resource.
    pub(super) fn replace(&mut self, shares: &Shares, before: Option<&Entry>, after: Option<&Entry>) {
        for (entry, is_member) in before.map(|entry| (entry, false)).into_iter().chain(after.map(|entry| (entry, true)))
        {
            self.set_member(shares, entry, is_member);
        }
        for entry in [before, after].into_iter().flatten() {
            if self.datasets.get(entry.dataset()).is_some_and(DatasetQueue::is_empty) {
                self.datasets.remove(entry.dataset());
            }
        }
    }

    fn set_member(&mut self, shares: &Shares, entry: &Entry, is_member: bool) {
        let (place, activity) = (&entry.place, entry.activity());
        let reason = self.by_reason.entry(entry.reason).or_default();
        set(reason, Arc::clone(place), is_member && !entry.is_deleted());
        if reason.is_empty() {
            self.by_reason.remove(&entry.reason);
        }
        set(&mut self.deleted, Arc::clone(place), is_member && entry.is_deleted());
        set(&mut self.reserved, Arc::clone(place), is_member && activity.reservation != Reservation::None);
        self.withdraw_head(shares, entry.dataset());
        let dataset = self.datasets.entry(entry.dataset().clone()).or_default();
        dataset.set_current(place, is_member && entry.is_data_current);
        if matches!(entry.state, QueueState::Succeeded(_)) {
            dataset.set_success(entry, is_member);
        }
        if entry.is_in_flight() {
            set(&mut dataset.in_flight, Arc::clone(place), is_member);
            set(&mut self.in_flight, Arc::clone(place), is_member);
            self.line.set_in_flight(shares, place, is_member);
        } else if entry.is_pending() {
            let since = activity.pending_since.unwrap_or(place.created);
            set(&mut self.pending_since, (since, Arc::clone(place)), is_member);
            let waiting = entry.waiting();
            if is_member {
                self.pending.insert(Arc::clone(place), since);
                match activity.skipped_until.filter(|until| self.now < *until) {
                    Some(until) => drop(self.skipped.insert((until, Arc::clone(place)), waiting)),
                    None => dataset.enter_line(place, waiting),
                }
            } else {
                self.pending.remove(place);
                dataset.leave_line(place, waiting);
                activity.skipped_until.and_then(|until| self.skipped.remove(&(until, Arc::clone(place))));
            }
        }
        self.present_head(shares, entry.dataset());
    }

    /// Takes the first resource of a dataset out of the line while the dataset changes.
    fn withdraw_head(&mut self, shares: &Shares, dataset: &DatasetArn) {
        let Some((place, requeue_at)) = self.datasets.get(dataset).and_then(DatasetQueue::head) else { return };
        let is_delayed = requeue_at.is_some_and(|at| self.delayed.remove(&(at, Arc::clone(&place))));
        if !is_delayed {
            self.line.set_ready(shares, &place, false);
        }
    }

    /// Puts the first resource of a dataset into the line. It goes first even if it is not due yet.
    fn present_head(&mut self, shares: &Shares, dataset: &DatasetArn) {
        let Some((place, requeue_at)) = self.datasets.get(dataset).and_then(DatasetQueue::head) else { return };
        match requeue_at.filter(|at| self.now < *at) {
            Some(at) => drop(self.delayed.insert((at, place))),
            None => self.line.set_ready(shares, &place, true),
        }
    }

    /// Time has passed.
    pub(super) fn advance(&mut self, shares: &Shares, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some(first) = self.skipped.first_entry().filter(|first| first.key().0 <= self.now) {
            let ((_, place), waiting) = first.remove_entry();
            self.withdraw_head(shares, &place.dataset);
            self.datasets.entry(place.dataset.clone()).or_default().enter_line(&place, waiting);
            self.present_head(shares, &place.dataset);
        }
        while self.delayed.first().is_some_and(|(at, _)| *at <= self.now) {
            if let Some((_, place)) = self.delayed.pop_first() {
                self.line.set_ready(shares, &place, true);
            }
        }
    }

    pub(super) fn weight_changed(&mut self, shares: &Shares, namespace: &str) {
        self.line.weight_changed(shares, namespace);
    }

    /// A resource was admitted that had nothing in flight.
    pub(super) fn admit(&mut self, shares: &Shares, place: &Place) {
        self.line.admit(shares, place);
    }

    fn forecast<'a>(&'a self, shares: &'a Shares) -> Forecast<'a> {
        self.line.forecast(shares, self.quota, &self.in_flight)
    }

    /// As [`Self::forecast`], if the resource that asks could go.
    fn forecast_with<'a>(&'a self, shares: &'a Shares, asking: &'a Arc<Place>) -> Forecast<'a> {
        let mut forecast = self.forecast(shares);
        forecast.push(asking);
        forecast
    }

    fn free(&self) -> usize {
        self.quota.saturating_sub(self.in_flight.len())
    }

    /// The resources that would be admitted now if there is no cooldown, in this order.
    pub(super) fn admissible(&self, shares: &Shares) -> Vec<Key> {
        self.forecast(shares).take(self.free()).map(|place| place.key.clone()).collect()
    }

    /// Whether a resource has an import in flight, or would be admitted now if there is no cooldown.
    pub(super) fn is_next(&self, own: &Entry, shares: &Shares) -> bool {
        own.is_in_flight() || self.forecast(shares).take(self.free()).any(|place| *place == own.place)
    }

    /// Whether a resource may submit now.
    pub(super) fn admission(&self, own: &Entry, shares: &Shares) -> Admission {
        if own.is_in_flight() {
            return Admission::Admitted;
        }
        self.dataset_obstacle(own)
            .or_else(|| self.cooldown_obstacle(own, shares))
            .or_else(|| self.quota_obstacle(own, shares))
            .unwrap_or(Admission::Admitted)
    }

    /// What keeps a resource from importing into its dataset.
    fn dataset_obstacle(&self, own: &Entry) -> Option<Admission> {
        let is_busy = self.datasets.get(own.dataset()).is_some_and(|dataset| dataset.is_busy_for(&own.place));
        // The message names no other resource: the next one changes, and may be in another team's namespace.
        let message =
            || format!("waiting for another import into the same dataset ({}) to finish", own.dataset().name());
        is_busy.then(|| Admission::Pending { message: message(), until: None })
    }

    /// During a cooldown no resource submits. When it is over, only the first in line is admitted, to find out whether
    /// the service accepts imports again; if it does, the cooldown ends for the others. A rejected resource is not in
    /// line until it has asked: it is admitted when it is due, unless a resource that is in line goes first.
    fn cooldown_obstacle(&self, own: &Entry, shares: &Shares) -> Option<Admission> {
        let cooldown = self.cooldown.as_ref()?;
        let until = cooldown.until();
        let next = self.forecast_with(shares, &own.place).take(self.free()).next();
        let is_first = next.is_none_or(|first| *first == own.place);
        if until <= self.now && is_first && self.reserved.is_empty() {
            return None;
        }
        let message = match cooldown.cause {
            CooldownCause::Quota => self.quota_message(own),
            CooldownCause::Throttled => {
                format!("waiting: the service is throttling requests for {}", own.dataset().account_region())
            }
        };
        Some(Admission::Pending { message, until: Some(until).filter(|until| is_first && *until > self.now) })
    }

    fn quota_obstacle(&self, own: &Entry, shares: &Shares) -> Option<Admission> {
        let is_next = self.forecast_with(shares, &own.place).take(self.free()).any(|place| *place == own.place);
        (!is_next).then(|| Admission::Pending { message: self.quota_message(own), until: None })
    }

    fn quota_message(&self, own: &Entry) -> String {
        let (quota, account_region) = (self.quota, own.dataset().account_region());
        format!("waiting for a running import to finish: at most {quota} run at once in {account_region}")
    }

    /// The waiting resources, in the order in which they would be admitted if all imports took equally long. Those that
    /// wait for something else come last.
    fn waiting<'a>(&'a self, shares: &'a Shares, limit: usize) -> Vec<&'a Arc<Place>> {
        let mut forecast = self.forecast(shares);
        let mut running: VecDeque<&Arc<Place>> = self.in_flight.iter().collect();
        let mut lines = HashMap::new();
        let mut places = Vec::new();
        while places.len() < limit {
            let next = if running.len() < self.quota { forecast.next() } else { None };
            let Some(at) = next.or_else(|| running.pop_front()) else { break };
            let Some(dataset) = self.datasets.get(&at.dataset) else { continue };
            let line = lines.entry(&at.dataset).or_insert_with(|| dataset.line().peekable());
            if next.is_some() {
                line.next();
                running.push_back(at);
                places.push(at);
            } else {
                forecast.end(at);
                let next = line.peek().filter(|(_, requeue_at)| requeue_at.is_none_or(|at| at <= self.now));
                next.into_iter().for_each(|(place, _)| forecast.push(place));
            }
        }
        let known: HashSet<&Arc<Place>> = places.iter().copied().collect();
        let room = limit.saturating_sub(places.len());
        places.extend(self.pending.keys().filter(|place| !known.contains(place)).take(room));
        places
    }

    /// What `/queue` shows of this account and region: at most `limit` of the resources that wait.
    pub(super) fn view(&self, of: &AccountRegion, shares: &Shares, limit: usize) -> QueueLine {
        let PoolStats { in_flight, pending, .. } = self.stats();
        let waiting = self.waiting(shares, limit).into_iter().zip(1..).map(|(place, position)| WaitingResource {
            position,
            namespace: place.key.namespace.clone(),
            name: place.key.name.clone(),
            dataset: place.dataset.name().to_owned(),
            since: Time(self.pending.get(place).copied().unwrap_or(place.created)),
        });
        let (account, region) = (of.account.clone(), of.region.clone());
        QueueLine { account, region, in_flight, quota: self.quota, pending, waiting: waiting.collect() }
    }

    pub(super) fn stats(&self) -> PoolStats {
        PoolStats {
            in_flight: self.in_flight.len(),
            pending: self.pending.len(),
            pending_since: self.pending_since.first().map(|(since, _)| *since),
        }
    }

    /// The imports that run, or may run.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.in_flight.iter()
    }

    /// The resources that are deleted or marked for deletion.
    pub(super) fn deleted(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.deleted.iter()
    }

    /// The resources that are not deleted, by their reason.
    pub(super) fn by_reason(&self) -> impl Iterator<Item = (Option<Reason>, &BTreeSet<Arc<Place>>)> {
        self.by_reason.iter().map(|(reason, places)| (*reason, places))
    }
}

pub(super) fn not_synced() -> Admission {
    Admission::Pending { message: "waiting for the operator's cache to sync".into(), until: None }
}
