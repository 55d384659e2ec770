//! The operator as a user meets it, scenario by scenario.

mod admission;
mod exactly_once;
mod lifecycle;
mod queueing;
mod states;
mod tenancy;
