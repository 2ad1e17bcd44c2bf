//! Tests on a real kernel: what a test needs on the host (a VM) and in the VM (cgroups, mounts, client processes).
//!
//! A test is an ordinary Rust test. Started on a host it runs itself in a VM of its own, with the package installed;
//! what it prints there is printed here.

pub mod cgroup;
pub mod client;
pub mod growth;
pub mod history;
pub mod host;
pub mod kernel_log;
pub mod killer;
pub mod mount;
pub mod people;
pub mod random;
pub mod service;
pub mod table;
pub mod torture;
pub mod wait;
