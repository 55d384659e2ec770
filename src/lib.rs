//! Amazon Personalize dataset imports as Kubernetes resources.
//!
//! A [`api::DatasetImportJob`] says which data a dataset should hold. [`decide`] is the pure core: what
//! to do next for one resource; [`queue`] says whose turn it is; everything else carries decisions out.

pub mod api;
pub mod arn;
pub mod conditions;
#[cfg(feature = "operator")]
pub mod config;
#[cfg(feature = "operator")]
pub mod controller;
pub mod decide;
#[cfg(feature = "operator")]
mod events;
#[cfg(feature = "operator")]
pub mod exposition;
#[cfg(feature = "operator")]
pub mod health;
pub mod identity;
#[cfg(feature = "operator")]
pub mod leader;
#[cfg(feature = "operator")]
pub mod log;
#[cfg(feature = "operator")]
mod memories;
#[cfg(feature = "operator")]
pub mod metrics;
pub mod pass;
pub mod personalize;
#[cfg(feature = "operator")]
pub mod probe;
pub mod queue;
#[cfg(feature = "operator")]
mod reconcile;
#[cfg(feature = "operator")]
pub mod rest;
pub mod schedule;
#[cfg(feature = "operator")]
pub mod server;
#[cfg(feature = "operator")]
pub mod tenancy;
pub mod text;
