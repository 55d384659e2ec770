//! A model checker: every order of events, up to a bound, between two operators, an API server, the service and a user.
//!
//! The operators run the code that ships: `import`, `queue` and [`personalize_operator::reconciliation`]. Only what is
//! around them is modelled. docs/model.md says what is covered, and up to which bound.

#![cfg(test)]

mod checker;
mod config;
mod environment;
mod executor;
mod holds;
mod liveness;
mod mutations;
mod protocol;
mod state;
mod walks;
