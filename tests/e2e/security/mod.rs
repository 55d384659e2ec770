//! What the operator may do, what it must not tell, and how much it may take.

mod bounds;
mod injection;
mod permissions;
mod secrets;
