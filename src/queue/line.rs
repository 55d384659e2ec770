//! In which order the resources of one account and region are admitted.

use super::entry::Place;
use std::collections::{BTreeMap, BTreeSet};

/// How far an admission moves the next turn of a namespace of weight 1.
const DISTANCE: u64 = 1_000_000;

/// In which order resources are admitted. Per dataset it is always that of their age.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum QueueOrder {
    /// The oldest resource first, whatever its namespace.
    #[default]
    OldestFirst,
    /// Namespaces take turns, and the oldest resource of each goes first.
    FairShares,
}

/// The order, and what each namespace gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Shares {
    pub(super) order: QueueOrder,
    /// The weights of namespaces. A namespace that is missing has weight 1.
    pub(super) weights: BTreeMap<String, u32>,
}

impl Shares {
    fn weight(&self, namespace: &str) -> u64 {
        self.weights.get(namespace).map_or(1, |weight| u64::from(*weight).max(1))
    }
}

/// Whose turn it is (start-time fair queueing). An admission moves the next turn of its namespace by a distance that is
/// shorter the greater the weight is. A namespace that was idle starts at the current turn, so it has nothing saved up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Turns {
    current: u64,
    /// The next turns that are after the current one.
    next: BTreeMap<String, u64>,
}

impl Turns {
    /// A resource of this namespace was admitted.
    pub(super) fn take(&mut self, namespace: &str, shares: &Shares) {
        if shares.order == QueueOrder::FairShares {
            let turn = self.next.remove(namespace).unwrap_or_default();
            let next = advance(&mut self.current, turn, shares.weight(namespace));
            self.next.retain(|_, turn| *turn > self.current);
            self.next.insert(namespace.to_owned(), next);
        }
    }
}

/// Moves on to a turn of a namespace. Returns its next one.
fn advance(current: &mut u64, turn: u64, weight: u64) -> u64 {
    *current = turn.max(*current);
    *current + DISTANCE / weight
}

/// The part of the line that belongs to one namespace.
#[derive(Debug)]
struct Group<'a> {
    weight: u64,
    turn: u64,
    in_flight: u64,
    places: BTreeSet<&'a Place>,
}

/// The resources that could go if there were room.
#[derive(Debug)]
pub(super) struct Line<'a> {
    shares: &'a Shares,
    turns: &'a Turns,
    quota: u64,
    current: u64,
    groups: BTreeMap<&'a str, Group<'a>>,
}

impl<'a> Line<'a> {
    pub(super) fn new(shares: &'a Shares, turns: &'a Turns, quota: usize) -> Self {
        let quota = quota.try_into().unwrap_or(u64::MAX);
        Self { shares, turns, quota, current: turns.current, groups: BTreeMap::new() }
    }

    fn group(&mut self, place: &'a Place) -> &mut Group<'a> {
        let namespace = place.key.namespace.as_str();
        self.groups.entry(namespace).or_insert_with(|| Group {
            weight: self.shares.weight(namespace),
            turn: self.turns.next.get(namespace).copied().unwrap_or_default(),
            in_flight: 0,
            places: BTreeSet::new(),
        })
    }

    /// The resource could go.
    pub(super) fn push(&mut self, place: &'a Place) {
        self.group(place).places.insert(place);
    }

    /// The resource has an import in flight.
    pub(super) fn begin(&mut self, place: &'a Place) {
        self.group(place).in_flight += 1;
    }

    /// Its import has ended.
    pub(super) fn end(&mut self, place: &'a Place) {
        let group = self.group(place);
        group.in_flight = group.in_flight.saturating_sub(1);
    }

    /// Admits the next resource. With namespaces in turn, one that has its share of the quota in flight lets the others
    /// go first; among those that have less, the one whose turn is next goes.
    pub(super) fn admit_next(&mut self) -> Option<&'a Place> {
        let (order, quota, current) = (self.shares.order, self.quota, self.current);
        let active = self.groups.values().filter(|group| group.in_flight > 0 || !group.places.is_empty());
        let total: u64 = active.map(|group| group.weight).sum();
        let rank = |group: &Group<'a>| match order {
            QueueOrder::OldestFirst => (false, 0),
            QueueOrder::FairShares => {
                // The same as in flight >= quota * weight / total, without fractions.
                let has_share = group.in_flight.saturating_mul(total) >= quota.saturating_mul(group.weight);
                (has_share, group.turn.max(current))
            }
        };
        let waiting = self.groups.values_mut().filter(|group| !group.places.is_empty());
        let group = waiting.min_by_key(|group| (rank(group), group.places.first().copied()))?;
        let place = group.places.pop_first()?;
        group.in_flight += 1;
        group.turn = advance(&mut self.current, group.turn, group.weight);
        Some(place)
    }
}
