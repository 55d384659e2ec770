//! Amazon Personalize dataset imports as Kubernetes resources.
//!
//! A [`api::DatasetImportJob`] says which data a dataset should hold. The operator submits the import exactly once,
//! follows the job and reports its end in the status.
//!
//! | module | what is in it |
//! |---|---|
//! | [`api`] | what users write and read: spec, status, conditions, annotations |
//! | [`import`] | the core: what to do next for one resource |
//! | [`preflight`] | checks of the data before an import |
//! | [`queue`] | who may submit now |
//! | [`reconciliation`] | one reconciliation, driven by effects and observations |
//! | [`personalize`] | the service: its operations, errors and ARNs |
//! | [`redact`] | text from outside, made safe to show |
//! | `accounts` | with which role the calls for an account are signed |
//! | `aws` | the service through the AWS SDK |
//! | `controller` | watches, workers, leader election, events |
//! | `telemetry` | logs and metrics |
//! | `http` | health, readiness and metrics over HTTP |
//! | `check` | the command `check`: the data of an import |
//! | `cli` | flags and environment variables |
//! | `run` | the command `run`: start and shutdown |
//! | `testing` | fixtures for tests |
//!
//! The modules above `accounts` are pure. They have no client, no clock and no async runtime, and compile without the
//! feature `operator`. This plans the first step for a new resource:
//!
//! ```
//! use jiff::Timestamp;
//! use personalize_operator::api::DatasetImportJob;
//! use personalize_operator::import::{Effect, LocalState, Next, Observations, Timing, Trust, plan};
//! let resource: DatasetImportJob = serde_yaml::from_str(
//!     r#"
//!     apiVersion: personalize-operator.io/v1alpha1
//!     kind: DatasetImportJob
//!     metadata: { name: interactions, namespace: shop, uid: "1" }
//!     spec:
//!       datasetArn: arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS
//!       dataSource: { dataLocation: "s3://shop-data/interactions.csv" }
//!       roleArn: arn:aws:iam::123456789012:role/PersonalizeRead
//!     "#,
//! )?;
//! let (nothing, local) = (Observations::default(), LocalState::default());
//! let next = plan(&resource, Trust::Trusted, &nothing, &local, Timestamp::now(), &Timing::default());
//! assert_eq!(next, Next::Perform(Effect::CheckNamespace));
//! # Ok::<(), serde_yaml::Error>(())
//! ```

pub mod api;
pub mod import;
pub mod personalize;
pub mod preflight;
pub mod queue;
pub mod reconciliation;
pub mod redact;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

// The modules with effects. Without the feature the crate is its pure core.
cfg_if::cfg_if! {
    if #[cfg(feature = "operator")] {
        pub mod accounts;
        pub mod aws;
        pub mod check;
        pub mod cli;
        pub mod controller;
        pub mod http;
        pub mod run;
        pub mod telemetry;
    }
}
