//! Reading and preparing cgroups: the only room that opens files below the cgroup root.
//!
//! Cgroups are held by file descriptor from the moment they are resolved, so that a rename or a symlink cannot swap
//! one for another. Synchronous; parsing is pure ([`parse`]); the root is an argument, so that tests can use a plain
//! directory.

mod cgroup;
mod error;
mod events;
mod ledger;
pub mod parse;
mod permission;
mod processes;
mod sampler;

pub use cgroup::{Cgroup, Hierarchy};
pub use error::CgroupError;
pub use ledger::{LEDGER_DEPTH, LEDGER_SLOTS, Ledger};
pub use permission::User;
pub use processes::Member;
pub use sampler::Sampler;
