//! The operator from a user's point of view.

mod admission;
mod exactly_once;
mod lifecycle;
mod queueing;
mod states;
mod tenancy;
