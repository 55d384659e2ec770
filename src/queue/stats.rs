//! What the queue reports to the metrics.

use jiff::Timestamp;

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
