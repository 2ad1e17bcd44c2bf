//! Programs of the system, called as an administrator calls them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

use std::process::{Command, Output};

/// A program's output as text.
#[derive(Debug)]
pub struct Said {
    /// Exit status; 128 + n after signal n.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        Self {
            status,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Success, or the test fails with all that was said.
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 0, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// Failure with this status, or the test fails.
    #[must_use]
    pub fn failed(self, status: i32) -> Self {
        assert_eq!(self.status, status, "out: {}\nerr: {}", self.out, self.err);
        self
    }
}

/// Runs a program to its end. The first word is the program.
pub fn run(words: &[&str]) -> Said {
    let output = Command::new(words[0]).args(&words[1..]).output();
    output.unwrap_or_else(|e| unreachable!("{}: {e}", words[0])).into()
}

/// Runs a line of shell.
pub fn sh(line: &str) -> Said {
    run(&["bash", "-c", line])
}

/// memchargectl, as root.
pub fn ctl(words: &[&str]) -> Said {
    run(&[&["memchargectl"], words].concat())
}

/// Starts the daemon, with no mounts configured unless the test has written files before.
pub fn start_daemon() {
    let _ = run(&["systemctl", "start", "memcharged"]).ok();
}

/// A property of a unit.
pub fn unit_property(unit: &str, property: &str) -> String {
    run(&["systemctl", "show", "--value", "-p", property, unit]).ok().out.trim().to_owned()
}
