//! A stand-in for the Amazon Personalize import API: awsJson1.1 over HTTP, signed with SigV4, with the service's
//! constraints, quota, states, tags and paging, real CSV checks, and fault injection.
//!
//! | module | what it contains |
//! |---|---|
//! | `api` | the service's API: protocol, signatures, constraints, operations |
//! | `control` | the endpoints under `/_local/`: live control, dashboard, temporary credentials |
//! | `data` | S3 locations, dataset schemas, CSV checks |
//! | `store` | accounts, datasets and jobs, their seed and their state file, the ledger |
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use personalize_local::{Config, Outcome, Seed, Service};
//! let seed = Seed::from_yaml("accounts: [{id: '111122223333', accessKeys: [{id: AKIALOCAL, secret: local}]}]")?;
//! let service = Service::start(Config::new(seed, "data")).await?;
//! println!("{}", service.url());
//! service.finish("my-job", Outcome::Active);
//! # Ok(()) }
//! ```

mod api;
mod app;
mod arn;
mod clock;
mod control;
mod data;
mod error;
mod fault;
mod sanitize;
mod server;
mod service;
mod store;

pub use api::model::{Member, OPERATIONS, Operation, Shape};
pub use error::StartError;
pub use fault::{Action, Fault};
pub use service::{Config, Service};
pub use store::{
    deletion::DeletionJob,
    job::{Job, Outcome, Tag},
    ledger::LedgerEntry,
    seed::{AccessKey, Account, Dataset, Durations, Refusals, Seed, SeedJob, Throttle},
};
