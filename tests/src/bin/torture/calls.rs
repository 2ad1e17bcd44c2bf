//! System calls whose results are known before: each is timed, and a wrong one becomes a message.

use std::{
    fmt::{Debug, Display},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Error, anyhow, ensure};
use rustix::io::Result;

/// What one worker has called.
#[derive(Debug)]
pub(crate) struct Calls {
    worker: String,
    step: u64,
    operations: u64,
    longest: Duration,
    longest_call: &'static str,
}

impl Calls {
    /// Nothing so far.
    pub(crate) fn new(worker: String) -> Self {
        Self { worker, step: 0, operations: 0, longest: Duration::ZERO, longest_call: "" }
    }

    /// The next step begins.
    pub(crate) fn next_step(&mut self) {
        self.step += 1;
    }

    /// Which step it is.
    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    /// Makes a call and times it; whatever it says is right so far.
    pub(crate) fn time<T>(&mut self, call: &'static str, act: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = act();
        let took = start.elapsed();
        self.operations += 1;
        if took > self.longest {
            (self.longest, self.longest_call) = (took, call);
        }
        result
    }

    /// Makes a call that must succeed.
    pub(crate) fn ok<T>(
        &mut self,
        call: &'static str,
        path: &Path,
        act: impl FnOnce() -> Result<T>,
    ) -> anyhow::Result<T> {
        self.time(call, act).map_err(|e| self.wrong(call, path, "success", e))
    }

    /// Makes a call that must end as it is known: in success, or in this error.
    pub(crate) fn exactly<T>(
        &mut self,
        call: &'static str,
        path: &Path,
        expected: Result<()>,
        act: impl FnOnce() -> Result<T>,
    ) -> anyhow::Result<Option<T>> {
        match (self.time(call, act), expected) {
            (Ok(value), Ok(())) => Ok(Some(value)),
            (Err(found), Err(expected)) if found == expected => Ok(None),
            (found, expected) => Err(self.wrong(call, path, told(&expected), told(&found))),
        }
    }

    /// Compares what was found with what must be there.
    pub(crate) fn same<T: PartialEq + Debug>(
        &self,
        what: &str,
        path: &Path,
        expected: T,
        found: T,
    ) -> anyhow::Result<()> {
        ensure!(expected == found, self.wrong(what, path, format!("{expected:?}"), format!("{found:?}")));
        Ok(())
    }

    /// Compares bytes from `offset` of a file on; the message names the first wrong one.
    pub(crate) fn same_bytes(
        &self,
        call: &str,
        path: &Path,
        offset: usize,
        expected: &[u8],
        found: &[u8],
    ) -> anyhow::Result<()> {
        self.same(&format!("length of {call} at {offset}"), path, expected.len(), found.len())?;
        // The comparison of all at once first: the other one takes its time in a build for tests.
        if expected == found {
            return Ok(());
        }
        let Some(at) = (0..found.len()).find(|at| expected[*at] != found[*at]) else { return Ok(()) };
        let wrong = (at..found.len()).filter(|at| expected[*at] != found[*at]).count();
        let part = |bytes: &[u8]| format!("{:02x?}", &bytes[at..bytes.len().min(at + 16)]);
        let what = format!("{call}, byte {} ({wrong} wrong of {})", offset + at, found.len());
        Err(self.wrong(&what, path, part(expected), part(found)))
    }

    /// A message about a wrong result.
    pub(crate) fn wrong(
        &self,
        call: &str,
        path: &Path,
        expected: impl Display,
        found: impl Display,
    ) -> Error {
        anyhow!(
            "{}, step {}: {call} of {}: expected {expected}, found {found}",
            self.worker,
            self.step,
            path.display()
        )
    }

    /// How many calls, how long the longest took, and which it was.
    pub(crate) fn sum(&self) -> (u64, Duration, &'static str) {
        (self.operations, self.longest, self.longest_call)
    }
}

fn told<T>(result: &Result<T>) -> String {
    match result {
        Ok(_) => "success".to_owned(),
        Err(e) => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_wrong_result_names_everything() {
        let mut calls = Calls::new("names-1".to_owned());
        calls.next_step();
        let path = Path::new("/x/a");
        let wrong =
            calls.exactly("unlink", path, Ok(()), || Err::<(), _>(Errno::NOENT)).unwrap_err().to_string();
        assert!(wrong.starts_with("names-1, step 1: unlink of /x/a: expected success, found "), "{wrong}");
        assert!(calls.exactly("mkdir", path, Err(Errno::EXIST), || Ok(())).is_err());
        assert!(calls.exactly("mkdir", path, Err(Errno::EXIST), || Err::<(), _>(Errno::NOENT)).is_err());
        assert_eq!(
            calls.exactly("mkdir", path, Err(Errno::EXIST), || Err::<(), _>(Errno::EXIST)).unwrap(),
            None
        );
        let bytes = calls.same_bytes("pread", path, 4096, b"abcd", b"abxd").unwrap_err().to_string();
        assert!(bytes.contains("byte 4098 (1 wrong of 4)"), "{bytes}");
        assert!(calls.same_bytes("pread", path, 0, b"abcd", b"abc").is_err());
        assert_eq!(calls.sum().0, 4);
    }
}
