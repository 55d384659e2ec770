//! Checks the data of an import before it is submitted. Pure, apart from the reads through [`Objects`].
//!
//! The service finds out after minutes, when the import is billed and has replaced the data, what the first rows of a file
//! already show. [`inspect()`] reads little of each file and compares it with the dataset's schema and the rules of the
//! developer guide. A [`Finding`] names the place and the shape of what is there, never a value.
//!
//! ```
//! use personalize_operator::preflight::Schema;
//!
//! let schema = r#"{"type": "record", "name": "Users", "fields": [
//!     {"name": "USER_ID", "type": "string"}, {"name": "AGE", "type": ["int", "null"]}]}"#;
//! assert!(Schema::parse(schema, None, None).is_ok());
//! let errors = Schema::parse(&schema.replace("AGE", "USERID"), None, None).unwrap_err();
//! assert!(errors[0].to_string().contains("the name of another field"));
//! ```

mod contents;
mod file;
mod finding;
mod inspect;
mod lines;
mod location;
mod schema;
mod set;
#[cfg(test)]
mod tests;
mod value;

pub use contents::list;
pub use finding::{Finding, Level, MAX_FINDINGS, Position};
pub use inspect::{Depth, Expected, Object, Objects, Page, Piece, Progress, inspect};
pub use location::Location;
pub use schema::{DatasetType, Domain, Field, Kind, Schema};
pub use set::Report;
