//! In which order the resources of one account and region are admitted.
//!
//! [`Line`] holds the resources that could go if there were room, in groups. An admission or an end costs the logarithm
//! of their number. [`Forecast`] looks ahead without changing it.

use super::place::Place;
use std::collections::btree_set::{self, BTreeSet};
use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;
use std::sync::Arc;

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
    pub(super) fn weight(&self, namespace: &str) -> u64 {
        self.weights.get(namespace).map_or(1, |weight| u64::from(*weight).max(1))
    }

    /// The group of a resource: its namespace if these take turns, or else the only one.
    fn group<'a>(&self, place: &'a Place) -> &'a str {
        match self.order {
            QueueOrder::OldestFirst => "",
            QueueOrder::FairShares => &place.key.namespace,
        }
    }
}

/// Whose turn it is (start-time fair queueing). An admission moves the next turn of its group by a distance that is
/// shorter the greater its weight is. A group that was idle starts at the current turn, so it has nothing saved up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Turns {
    current: u64,
    /// The next turns that are after the current one.
    next: BTreeMap<String, u64>,
    in_order: BTreeSet<(u64, String)>,
}

impl Turns {
    fn next(&self, group: &str) -> u64 {
        self.next.get(group).copied().unwrap_or_default().max(self.current)
    }

    /// Moves on to a turn of a group, and sets its next one.
    fn advance(&mut self, group: &str, turn: u64, weight: u64) {
        self.current = turn.max(self.current);
        if let Some(before) = self.next.remove(group) {
            self.in_order.remove(&(before, group.to_owned()));
        }
        let next = self.current + DISTANCE / weight;
        self.next.insert(group.to_owned(), next);
        self.in_order.insert((next, group.to_owned()));
        while let Some((_, passed)) = self.in_order.first().filter(|(turn, _)| *turn <= self.current) {
            self.next.remove(passed);
            self.in_order.pop_first();
        }
    }
}

/// The part of the line that belongs to one namespace, or all of it.
#[derive(Debug, Clone)]
struct Group {
    weight: u64,
    in_flight: u64,
    /// Its turn, since it waits.
    turn: u64,
    places: BTreeSet<Arc<Place>>,
}

impl Group {
    fn is_active(&self) -> bool {
        self.in_flight > 0 || !self.places.is_empty()
    }
}

/// The resources that could go if there were room, and the numbers of those in flight.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    pub(super) turns: Turns,
    groups: BTreeMap<String, Group>,
    /// The groups that wait, by their turn and first place.
    waiting: BTreeSet<(u64, Arc<Place>)>,
    /// The weights of the groups that wait or have an import in flight.
    total_weight: u64,
}

impl Line {
    /// Changes a group, and removes it if it is idle then.
    fn change(&mut self, shares: &Shares, name: &str, change: impl FnOnce(&mut Group, u64)) {
        let turn = self.turns.next(name);
        if !self.groups.contains_key(name) {
            let weight = shares.weight(name);
            self.total_weight += weight;
            self.groups.insert(name.to_owned(), Group { weight, in_flight: 0, turn, places: BTreeSet::new() });
        }
        let Some(group) = self.groups.get_mut(name) else { return };
        if let Some(first) = group.places.first() {
            self.waiting.remove(&(group.turn, Arc::clone(first)));
        } else {
            group.turn = turn;
        }
        change(group, turn);
        if let Some(first) = group.places.first() {
            self.waiting.insert((group.turn, Arc::clone(first)));
        }
        if !group.is_active() {
            self.total_weight -= group.weight;
            self.groups.remove(name);
        }
    }

    /// Whether the resource could go if there were room.
    pub(super) fn set_ready(&mut self, shares: &Shares, place: &Arc<Place>, is_ready: bool) {
        self.change(shares, shares.group(place), |group, _| {
            if is_ready {
                group.places.insert(Arc::clone(place));
            } else {
                group.places.remove(place);
            }
        });
    }

    /// Whether the resource has an import in flight.
    pub(super) fn set_in_flight(&mut self, shares: &Shares, place: &Place, is_in_flight: bool) {
        self.change(shares, shares.group(place), |group, _| {
            group.in_flight = if is_in_flight { group.in_flight + 1 } else { group.in_flight.saturating_sub(1) };
        });
    }

    /// The weight of a group has changed.
    pub(super) fn weight_changed(&mut self, shares: &Shares, name: &str) {
        if let Some(group) = self.groups.get_mut(name) {
            let weight = shares.weight(name);
            self.total_weight = self.total_weight - group.weight + weight;
            group.weight = weight;
        }
    }

    /// A resource was admitted: the turn of its group is over.
    pub(super) fn admit(&mut self, shares: &Shares, place: &Place) {
        let name = shares.group(place);
        if shares.order == QueueOrder::OldestFirst {
            return;
        }
        let waiting = self.groups.get(name).filter(|group| !group.places.is_empty());
        let turn = waiting.map_or_else(|| self.turns.next(name), |group| group.turn);
        self.turns.advance(name, turn, shares.weight(name));
        self.change(shares, name, |group, next| group.turn = next);
    }

    /// Looks ahead. `in_flight` holds the resources with an import in flight.
    pub(super) fn forecast<'a>(
        &'a self,
        shares: &'a Shares,
        quota: usize,
        in_flight: impl IntoIterator<Item = &'a Arc<Place>>,
    ) -> Forecast<'a> {
        let mut forecast = Forecast {
            line: self,
            shares,
            quota: quota.try_into().unwrap_or(u64::MAX),
            current: self.turns.current,
            total_weight: self.total_weight,
            untouched: self.waiting.iter().peekable(),
            touched: HashMap::new(),
        };
        in_flight.into_iter().for_each(|place| forecast.change(shares.group(place), |_| {}));
        forecast
    }
}

/// A group as a forecast sees it.
struct Touched<'a> {
    weight: u64,
    in_flight: u64,
    turn: u64,
    places: Peekable<btree_set::Iter<'a, Arc<Place>>>,
    /// Resources that are not in the line itself.
    pushed: BTreeSet<&'a Arc<Place>>,
}

impl<'a> Touched<'a> {
    fn first(&mut self) -> Option<&'a Arc<Place>> {
        let first = self.places.peek().copied();
        first.into_iter().chain(self.pushed.first().copied()).min()
    }

    fn pop(&mut self, place: &Arc<Place>) {
        self.pushed.remove(place);
        self.places.next_if(|first| *first == place);
    }

    fn is_active(&mut self) -> bool {
        self.in_flight > 0 || self.first().is_some()
    }
}

/// The order of the next admissions, as an iterator. Each costs the logarithm of the line's length, and the number of
/// groups that have an import in flight or were admitted by the forecast.
pub(super) struct Forecast<'a> {
    line: &'a Line,
    shares: &'a Shares,
    quota: u64,
    current: u64,
    total_weight: u64,
    /// The groups that have nothing in flight and were not changed.
    untouched: Peekable<btree_set::Iter<'a, (u64, Arc<Place>)>>,
    touched: HashMap<&'a str, Touched<'a>>,
}

impl<'a> Forecast<'a> {
    fn change(&mut self, name: &'a str, change: impl FnOnce(&mut Touched<'a>)) {
        let Self { line, shares, touched, .. } = self;
        let group = touched.entry(name).or_insert_with(|| {
            let known = line.groups.get(name);
            Touched {
                weight: known.map_or_else(|| shares.weight(name), |group| group.weight),
                in_flight: known.map_or(0, |group| group.in_flight),
                turn: known.map_or(0, |group| group.turn),
                places: known.map_or_else(Default::default, |group| group.places.iter()).peekable(),
                pushed: BTreeSet::new(),
            }
        });
        let was_active = group.is_active();
        if group.first().is_none() {
            group.turn = group.turn.max(line.turns.next(name)).max(self.current);
        }
        change(group);
        match (was_active, group.is_active()) {
            (false, true) => self.total_weight += group.weight,
            (true, false) => self.total_weight -= group.weight,
            _ => {}
        }
    }

    /// The resource could go, too.
    pub(super) fn push(&mut self, place: &'a Arc<Place>) {
        self.change(self.shares.group(place), |group| {
            group.pushed.insert(place);
        });
    }

    /// The import of a resource has ended.
    pub(super) fn end(&mut self, place: &'a Place) {
        self.change(self.shares.group(place), |group| group.in_flight = group.in_flight.saturating_sub(1));
    }
}

impl<'a> Iterator for Forecast<'a> {
    type Item = &'a Arc<Place>;

    /// Admits the next resource. With namespaces in turn, one that has its share of the quota in flight lets the others
    /// go first; among those that have less, the one whose turn is next goes.
    fn next(&mut self) -> Option<Self::Item> {
        let Self { shares, quota, total_weight, touched, untouched, .. } = self;
        while untouched.next_if(|(_, first)| touched.contains_key(shares.group(first))).is_some() {}
        let rank = |group: &mut Touched<'a>| {
            let first = group.first()?;
            // The same as in flight >= quota * weight / total, without fractions.
            let has_share = group.in_flight.saturating_mul(*total_weight) >= quota.saturating_mul(group.weight);
            Some((has_share, group.turn, first))
        };
        let first_untouched = untouched.peek().map(|(turn, first)| (false, *turn, first));
        let (_, turn, place) = touched.values_mut().filter_map(rank).chain(first_untouched).min()?;
        self.current = turn.max(self.current);
        let current = self.current;
        self.change(self.shares.group(place), |group| {
            group.pop(place);
            group.in_flight += 1;
            group.turn = current + DISTANCE / group.weight;
        });
        Some(place)
    }
}
