//! Tests on a real kernel: what a test needs on the host (a VM) and in the VM (cgroups, mounts, client processes).
//!
//! A test is an ordinary Rust test. Started on a host it runs itself in a VM of its own, with the package installed;
//! what it prints there is printed here.

pub mod cgroup;
pub mod client;
pub mod host;
pub mod kernel_log;
pub mod mount;
pub mod service;
pub mod table;
pub mod wait;
