//! Import data: locations, schemas and CSV checks.

pub(crate) mod csv_check;
pub(crate) mod schema;
pub(crate) mod source;
