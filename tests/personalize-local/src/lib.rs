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

mod arn;
mod auth;
mod clockwork;
mod constraints;
mod control;
mod csv_check;
mod error;
mod fault;
mod job;
mod ledger;
mod model;
mod operations;
mod page;
mod pages;
mod refusal;
mod schema;
mod seed;
mod server;
mod service;
mod sessions;
mod source;
mod state_file;
mod text;
mod throttle;
mod wire;
mod world;

pub use error::StartError;
pub use fault::{Action, Fault};
pub use job::{Job, Outcome, Tag};
pub use ledger::Entry;
pub use model::{Kind, Member, OPERATIONS, Operation};
pub use seed::{AccessKey, Account, Dataset, Durations, Refusals, Seed, SeedJob, Throttle};
pub use service::{Config, Service};
