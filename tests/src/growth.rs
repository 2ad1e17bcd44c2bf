//! Clients that go on after a refusal, and count them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use rustix::fs::FallocateFlags;

use crate::random::Random;

/// Files of each client of a storm.
pub const FILES: u64 = 4;

/// Appends to a file, a `block` at a time, until it was refused so often; returns how often that was.
pub fn grow(path: &Path, refusals: u64, block: usize) -> u64 {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    let mut end = file.metadata().unwrap().len();
    let (data, mut refused) = (vec![b'g'; block], 0);
    while refused < refusals {
        match file.write_at(&data, end) {
            Ok(written) => end += written as u64,
            Err(e) => refused += count_refusal(&e),
        }
    }
    refused
}

/// One. Whatever else than ENOSPC ends the probe.
fn count_refusal(e: &io::Error) -> u64 {
    assert_eq!(e.raw_os_error(), Some(libc::ENOSPC), "{e}");
    1
}

/// Grows and removes files of its own at random until it was refused so often; returns how often that was. The files are
/// `SEED-0` to `SEED-3`.
pub fn storm(dir: &Path, refusals: u64, seed: u64) -> u64 {
    let (mut random, mut refused) = (Random::new(seed), 0);
    while refused < refusals {
        let path = dir.join(format!("{seed}-{}", random.below(FILES)));
        // Rarely: what is removed must be written again before there is another refusal.
        let result = match random.below(64) {
            0 => fs::remove_file(path),
            how => grow_once(&path, how, &mut random),
        };
        match result {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => refused += count_refusal(&e),
        }
    }
    refused
}

/// One growth, at most one refusal.
fn grow_once(path: &Path, how: u64, random: &mut Random) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let end = file.metadata()?.len();
    let more = (1 + random.below(64)) << 12;
    match how {
        1..8 => file.set_len(end + more),
        8..16 => rustix::fs::fallocate(&file, FallocateFlags::empty(), end, more).map_err(Into::into),
        _ => file.write_at(&vec![b's'; more as usize], end).map(drop),
    }
}
