//! Amazon Personalize dataset imports as Kubernetes resources.
//!
//! A [`api::DatasetImportJob`] says which data a dataset should hold. [`decide`] is the pure core: what
//! to do next for one resource; [`queue`] says whose turn it is; everything else carries decisions out.

pub mod api;
pub mod arn;
pub mod conditions;
pub mod config;
pub mod controller;
pub mod decide;
mod events;
pub mod health;
pub mod identity;
pub mod leader;
mod memories;
pub mod metrics;
pub mod personalize;
pub mod queue;
mod reconcile;
pub mod rest;
pub mod schedule;
pub mod server;
pub mod tenancy;
pub mod text;
