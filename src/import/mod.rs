//! The pure core: what to do next for one resource.

mod adopt;
mod outcome;
mod ownership;
pub mod phase;
pub mod plan;
mod poll;
pub mod request;
mod submit;
#[cfg(test)]
mod tests;
pub mod timing;
