//! Getting a store into its target: by systemd where the target is a unit, by hand where it is a bare cgroup.

pub(crate) mod handover;
pub(crate) mod raw;
pub(crate) mod systemd;
pub(crate) mod target;
pub(crate) mod unit;
