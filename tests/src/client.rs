//! Client processes: `memcharge-probe` in a cgroup of the test's choice.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use crate::{cgroup::Cg, service::Said};

/// The probe, beside the test.
const PROBE: &str = "/mnt/files/memcharge-probe";

fn command(cg: &Cg, words: &[&str]) -> Command {
    let mut command = Command::new(PROBE);
    command.args(["--cgroup", cg.path()]).args(words);
    command
}

/// Runs a probe in `cg` to its end.
pub fn probe(cg: &Cg, words: &[&str]) -> Said {
    command(cg, words).output().expect("memcharge-probe").into()
}

/// What a probe says of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Bytes, or things.
    pub done: u64,
    /// The error that ended it.
    pub errno: Option<i32>,
}

impl Report {
    fn parse(line: &str) -> Self {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| unreachable!("{line:?}: {e}"));
        let errno = value["errno"].as_i64().map(|errno| i32::try_from(errno).unwrap());
        Self { done: value["done"].as_u64().unwrap(), errno }
    }
}

/// Runs a probe in `cg` that comes to its end; what it says of its work.
pub fn report(cg: &Cg, words: &[&str]) -> Report {
    Report::parse(&probe(cg, words).ok().out)
}

/// Runs a probe in `cg`, and `look` while it has done its work and is still there.
pub fn report_while<T>(cg: &Cg, words: &[&str], look: impl FnOnce() -> T) -> (Report, T) {
    let mut command = Command::new(PROBE);
    command.args(["--cgroup", cg.path(), "--stay"]).args(words);
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().expect("memcharge-probe");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let seen = look();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "{words:?}");
    (Report::parse(&line), seen)
}

/// A probe that has done its work and waits; it is killed when this is dropped.
#[derive(Debug)]
pub struct Waiting {
    child: Child,
}

impl Waiting {
    /// Starts a probe in `cg` and waits until it says that it is ready.
    pub fn start(cg: &Cg, words: &[&str]) -> Self {
        let mut child =
            command(cg, words).stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().expect("memcharge-probe");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{words:?}");
        Self { child }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it and waits for its end.
    pub fn end(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.stop();
    }
}
