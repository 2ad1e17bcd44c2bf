//! The decisions of memcharge as pure functions: no I/O, no clock, no threads.
//!
//! What is read from the kernel comes in as values (samples, sizes), what shall happen goes out as values.
//! The rooms that touch the kernel (`memcharge-cgroup`, `memcharge-store`, `memcharged`) are thin around this one.

pub mod admission;
mod bytes;
mod error;
mod kernel;
pub mod link;
mod mount;
pub mod mountinfo;
mod mountpoint;
mod name;
pub mod sample;
mod target;
mod time;

pub use bytes::{Bytes, PAGE_SIZE, pages_end};
pub use error::PolicyError;
pub use kernel::{KernelVersion, MIN_KERNEL};
pub use mount::{
    KillPolicy, KillScope, KillVictim, MountOption, MountPolicy, OnFull, SizeCap, Sparse, check_options,
};
pub use mountpoint::{UNSAFE_MOUNT_POINTS, is_unsafe_mount_point};
pub use name::MountName;
pub use target::Target;
pub use time::parse_duration;
