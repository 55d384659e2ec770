//! A stand-in for the import part of Amazon Personalize: the wire protocol, the constraints of the
//! service model, quotas, states, tags and paging, data that is read for real, and faults to order.

mod fault;
mod import;
mod model;
mod seed;
mod service;
mod signature;
mod state;

pub use fault::{Action, Fault};
pub use seed::{AccessKey, Account, Dataset, Durations, Job, Seed};
pub use service::Service;
