//! A log to which several processes append records: at the end each is there once, and whole.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use memcharge_tests::random::Random;
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::{Value, json};

use crate::{
    calls::Calls,
    worker::{Place, Work},
};

/// A record, in bytes. No divisor of a page, so that records cross pages.
const RECORD: usize = 144;

/// The log's name.
pub(crate) const NAME: &str = "log";

/// How long one waits whose records would not last.
const AHEAD: Duration = Duration::from_millis(5);

/// One who appends.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: OwnedFd,
    index: u64,
    written: u64,
    /// So many records it may write in all that time, which has begun then.
    budget: u64,
    time: Duration,
    start: Instant,
}

/// The record `number` of the worker `index`. Every byte follows from both.
fn record(index: u64, number: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    Random::new(index << 32 | number).fill(&mut record);
    record[..8].copy_from_slice(&index.to_le_bytes());
    record[8..16].copy_from_slice(&number.to_le_bytes());
    record
}

impl Log {
    /// Opens the log, which is there.
    pub(crate) fn new(place: &Place, calls: &mut Calls) -> Result<Self> {
        let path = place.dir.join(NAME);
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let file =
            calls.ok("open for appending", &path, || rustix::fs::openat(CWD, &path, flags, Mode::empty()))?;
        let budget = place.bytes / RECORD as u64;
        Ok(Self {
            path,
            file,
            index: place.index,
            written: 0,
            budget,
            time: place.time,
            start: Instant::now(),
        })
    }
}

impl Work for Log {
    fn step(&mut self, calls: &mut Calls, _random: &mut Random) -> Result<()> {
        let share = self.start.elapsed().as_secs_f64() / self.time.as_secs_f64();
        if self.written as f64 >= self.budget as f64 * share.min(1.0) {
            std::thread::sleep(AHEAD);
            return Ok(());
        }
        let record = record(self.index, self.written);
        let done = calls.ok("append of a record", &self.path, || rustix::io::write(&self.file, &record))?;
        calls.same("count of the append of a record", &self.path, RECORD, done)?;
        self.written += 1;
        Ok(())
    }

    fn end(&mut self, _calls: &mut Calls) -> Result<Value> {
        Ok(json!(self.written))
    }
}

/// Whether a log holds each record of each worker, of whom `written` says how many, once and in its order.
pub(crate) fn check(path: &Path, written: &[u64]) -> Result<()> {
    let log = std::fs::read(path)?;
    let mut next = vec![0; written.len()];
    for (at, found) in log.chunks(RECORD).enumerate() {
        let at = at * RECORD;
        ensure!(found.len() == RECORD, "the record at {at} of {} is torn: {found:02x?}", path.display());
        let number = |from| u64::from_le_bytes(std::array::from_fn(|i| found[from + i]));
        let (index, number) = (number(0), number(8));
        let Some(expected) = next.get_mut(index as usize) else {
            bail!("the record at {at} of {} is nobody's: {found:02x?}", path.display());
        };
        ensure!(
            number == *expected,
            "the record at {at} of {}: worker {index}'s number {expected} must come next, and {number} is there",
            path.display()
        );
        ensure!(
            found == record(index, number),
            "the record at {at} of {} (number {number} of worker {index}) has wrong bytes: {found:02x?}",
            path.display()
        );
        *expected += 1;
    }
    ensure!(next == written, "{}: {next:?} records are there, {written:?} were written", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_doubled_and_torn_records_are_found() {
        let path = std::env::temp_dir().join(format!("memcharge-torture-log-{}", std::process::id()));
        let of = |records: &[(u64, u64)]| -> Vec<u8> {
            records.iter().flat_map(|(index, number)| record(*index, *number)).collect()
        };
        let says = |log: &[u8]| {
            std::fs::write(&path, log).unwrap();
            check(&path, &[2, 1]).map_err(|e| e.to_string())
        };
        let good = of(&[(0, 0), (1, 0), (0, 1)]);
        assert_eq!(says(&good), Ok(()));
        for (log, says_what) in [
            (of(&[(0, 0), (1, 0)]), "[1, 1] records are there"),
            (of(&[(0, 0), (0, 0), (1, 0), (0, 1)]), "must come next"),
            (of(&[(0, 0), (5, 0)]), "is nobody's"),
            (good[..good.len() - 1].to_vec(), "is torn"),
            ([&good[..RECORD], &good[RECORD + 1..], &[0]].concat(), "must come next"),
        ] {
            let said = says(&log).unwrap_err();
            assert!(said.contains(says_what), "{said}");
        }
        let mut wrong = good;
        wrong[RECORD - 1] ^= 1;
        assert!(says(&wrong).unwrap_err().contains("wrong bytes"));
        std::fs::remove_file(path).unwrap();
    }
}
