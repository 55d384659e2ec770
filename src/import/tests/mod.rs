//! Tables over single decisions, and whole lives against a simulated service, with a crash before and
//! after every step.

mod anything;
mod life;
mod ownership;
mod properties;
mod recovery;
mod retries;
mod schema;
mod submission;
mod waiting;
mod world;
