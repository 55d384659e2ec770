//! The data of an import: where it lies, what its columns are, and whether it is valid.

pub(crate) mod csv_check;
pub(crate) mod schema;
pub(crate) mod source;
