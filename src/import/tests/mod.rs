//! Plans by example and by property, and whole lives of a resource against a simulated service, with a crash before and
//! after every effect.

mod life;
mod ownership;
mod properties;
mod recovery;
mod retries;
mod scenario;
mod schema;
mod submission;
mod waiting;
