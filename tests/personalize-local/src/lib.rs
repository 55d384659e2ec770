//! A stand-in for the Amazon Personalize import API: awsJson1.1 over HTTP, signed with SigV4, with the service's
//! constraints, quota, states, tags and paging, real CSV checks, and faults on demand.
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

use api::{auth, constraints, error as refusal, model, operations, pagination as pages, protocol as wire, throttle};
use clock as clockwork;
use control::{dashboard as page, sessions};
use data::{csv_check, schema, source};
use sanitize as text;
use store::{self as world, job, ledger, seed, state_file};

pub use error::StartError;
pub use fault::{Action, Fault};
pub use job::{Job, Outcome, Tag};
pub use ledger::Entry;
pub use model::{Kind, Member, OPERATIONS, Operation};
pub use seed::{AccessKey, Account, Dataset, Durations, Refusals, Seed, SeedJob, Throttle};
pub use service::{Config, Service};
