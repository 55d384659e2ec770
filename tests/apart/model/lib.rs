//! Every interleaving, to a bound, of two operators, an API server, the service and a person.
//!
//! The operators are the real ones: [`personalize_operator::pass`], `decide` and `queue`, as they ship. What
//! is modelled is everything around them. docs/model.md tells what is covered, to which bound.

#![cfg(test)]

mod broken;
mod carry;
mod checker;
mod fair;
mod intact;
mod outside;
mod rules;
mod search;
mod walks;

mod world;
