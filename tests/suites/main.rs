//! Tests on a real kernel, each in a VM of its own. See `memcharge_tests::host`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by a panic.

mod accounting;
mod attach;
mod bus;
mod change;
mod clients;
mod condition;
mod conformance;
mod crash;
mod crash_daemon;
mod crash_open;
mod demo;
mod faults;
mod faults_reload;
mod kill;
mod kill_units;
mod lifecycle;
mod limits;
mod nongoals;
mod package;
mod permission;
mod postgres;
mod reboot;
mod record;
mod reference;
mod reload;
mod retarget;
mod rooms;
mod selftest;
mod semantics;
mod services;
mod shares;
mod storm;
mod told;
mod torture;
mod watchdog;
