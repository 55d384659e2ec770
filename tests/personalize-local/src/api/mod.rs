//! The service's API: awsJson1.1 over `POST /`.

pub(crate) mod auth;
pub(crate) mod constraints;
pub(crate) mod error;
pub(crate) mod model;
pub(crate) mod operations;
pub(crate) mod pagination;
pub(crate) mod protocol;
pub(crate) mod throttle;
