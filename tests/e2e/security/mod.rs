//! Permissions, secrets, untrusted text and resource limits.

mod bounds;
mod injection;
mod permissions;
mod secrets;
