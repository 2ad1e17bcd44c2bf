//! Tests on a real kernel, each in a VM of its own. See `memcharge_tests::host`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by a panic.

mod accounting;
mod attach;
mod bus;
mod clients;
mod conformance;
mod demo;
mod lifecycle;
mod limits;
mod package;
mod rooms;
mod selftest;
mod semantics;
