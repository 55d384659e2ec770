//! What the queue reports to the metrics and to `/queue`.

use crate::personalize::DatasetArn;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use std::time::Duration;

/// The imports of one account and region.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct PoolStats {
    /// Imports in flight.
    pub in_flight: usize,
    /// Resources that wait to submit.
    pub pending: usize,
    /// Since when the resource that has waited longest waits.
    pub pending_since: Option<Timestamp>,
}

/// The last successful import into a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct LastSuccess {
    /// The dataset.
    pub dataset: DatasetArn,
    /// When the import ended.
    pub ended: Timestamp,
    /// How old the data may get.
    pub max_age: Option<Duration>,
}

/// The line of one account and region.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueLine {
    /// The account.
    pub account: String,
    /// The region.
    pub region: String,
    /// Imports in flight.
    pub in_flight: usize,
    /// How many may be in flight.
    pub quota: usize,
    /// Resources that wait to submit.
    pub pending: usize,
    /// The first of them, in the order in which they would be admitted.
    pub waiting: Vec<WaitingResource>,
}

/// A resource that waits to submit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WaitingResource {
    /// 1 is the next.
    pub position: usize,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The name of its dataset.
    pub dataset: String,
    /// Since when it waits.
    pub since: Time,
}
