//! Plans by example and by property, and complete imports against a simulated service, with a crash before and after
//! every effect.

mod data_check;
mod idle;
mod lifecycle;
mod ownership;
mod properties;
mod recovery;
mod retries;
mod scenario;
mod schema;
mod submission;
mod summary;
mod waiting;
