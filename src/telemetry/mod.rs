//! What the operator shows of itself: logs and metrics.

pub mod logging;
pub mod metrics;
