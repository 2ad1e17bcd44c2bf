//! The kernel's log, from a moment on.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

use std::process::Command;

/// A moment in the kernel's log.
#[derive(Debug)]
pub struct Mark {
    lines: usize,
}

fn lines() -> Vec<String> {
    let output = Command::new("dmesg").output().expect("dmesg");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

impl Mark {
    /// Now.
    pub fn now() -> Self {
        Self { lines: lines().len() }
    }

    /// What was logged since.
    pub fn since(&self) -> Vec<String> {
        // An emulated machine can be slow to answer its own timer, and says so.
        let of_the_machine = |line: &String| line.contains("hrtimer: interrupt took");
        lines().split_off(self.lines).into_iter().filter(|line| !of_the_machine(line)).collect()
    }

    /// Nothing was logged since (R21).
    pub fn assert_silent(&self) {
        let new = self.since();
        assert!(new.is_empty(), "the kernel log has something new:\n{}", new.join("\n"));
    }
}
