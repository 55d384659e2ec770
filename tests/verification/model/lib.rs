//! A model checker: every interleaving, up to a bound, of two operators, an API server, the service and a user.
//!
//! The operators run the code that ships: `import`, `queue` and [`personalize_operator::reconciliation`]. Only what is
//! around them is modelled. docs/model.md says what is covered, and up to which bound.

#![cfg(test)]

mod checker;
mod environment;
mod executor;
mod holds;
mod liveness;
mod mutations;
mod rules;
mod search;
mod state;
mod walks;
