//! Amazon Personalize dataset imports as Kubernetes resources.
//!
//! A [`api::DatasetImportJob`] says which data a dataset should hold. [`import`] is the pure core: what
//! to do next for one resource; [`queue`] says whose turn it is; everything else carries decisions out.

pub mod api;
pub mod import;
pub mod personalize;
pub mod queue;
pub mod reconciliation;
pub mod redact;

// Everything with effects: without the feature the crate is its pure core.
cfg_if::cfg_if! {
    if #[cfg(feature = "operator")] {
        pub mod aws;
        pub mod cli;
        pub mod controller;
        pub mod http;
        pub mod run;
        pub mod telemetry;
    }
}
