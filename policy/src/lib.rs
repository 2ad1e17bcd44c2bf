//! The decisions of memcharge as pure functions: no I/O, no clock, no threads.
//!
//! What is read from the kernel comes in as values (samples, sizes), what shall happen goes out as values.
//! The rooms that touch the kernel (`memcharge-cgroup`, `memcharge-store`, `memcharged`) are thin around this one.

pub mod admission;
pub mod arbiter;
mod bytes;
mod change;
mod error;
pub mod events;
mod kernel;
pub mod link;
mod mount;
pub mod mountinfo;
mod mountpoint;
mod name;
pub mod outcome;
pub mod sample;
mod target;
mod time;
mod words;

pub use bytes::{Bytes, PAGE_SIZE, pages_end};
pub use change::PolicyPatch;
pub use error::PolicyError;
pub use kernel::{KernelVersion, MIN_KERNEL};
pub use mount::{
    KillPolicy, KillScope, KillVictim, MountOption, MountPolicy, OnFull, SizeCap, Sparse, check_options,
};
pub use mountpoint::{UNSAFE_MOUNT_POINTS, is_unsafe_mount_point};
pub use name::MountName;
pub use target::Target;
pub use time::parse_duration;
