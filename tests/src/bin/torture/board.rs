//! A file that every opener has mapped all the time: each stores into a place of its own, and sees the others' places.

use std::{os::fd::OwnedFd, path::Path, path::PathBuf};

use anyhow::Result;
use rustix::fs::{CWD, Mode, OFlags};

use crate::{calls::Calls, mapping::Mapping};

/// Its name.
pub(crate) const NAME: &str = "board";

/// A place, in bytes: one number that is stored through the mapping, one that is written by a call.
const PLACE: usize = 64;
const STORED: usize = 0;
const WRITTEN: usize = 8;

/// How large the file is for so many.
pub(crate) fn size(of: u64) -> u64 {
    of * PLACE as u64
}

/// The number that one of them has stored last.
pub(crate) fn stored(mapping: &Mapping, index: u64) -> u64 {
    mapping.load_number(index as usize * PLACE + STORED)
}

/// One who stores and looks.
#[derive(Debug)]
pub(crate) struct Board {
    path: PathBuf,
    file: OwnedFd,
    mapping: Mapping,
    index: u64,
    /// The own number.
    last: u64,
    /// What the others had stored when it was looked at last.
    others: Vec<u64>,
    /// How often something new of others was seen.
    seen: u64,
}

impl Board {
    /// Maps the board, which is there.
    pub(crate) fn new(dir: &Path, index: u64, of: u64, calls: &mut Calls) -> Result<Self> {
        let path = dir.join(NAME);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = calls.ok("open", &path, || rustix::fs::openat(CWD, &path, flags, Mode::empty()))?;
        let mapping = calls.ok("mmap", &path, || Mapping::new(&file, size(of) as usize, true))?;
        Ok(Self { path, file, mapping, index, last: 0, others: vec![0; of as usize], seen: 0 })
    }

    /// Stores the next number through the mapping, writes it by a call, and reads each the other way.
    pub(crate) fn store(&mut self, calls: &mut Calls) -> Result<()> {
        self.last += 1;
        let (at, last) = (self.index as usize * PLACE, self.last);
        calls.time("store through a mapping", || self.mapping.store_number(at + STORED, last));
        let mut found = [0; 8];
        let _ = calls.ok("pread after a mapped store", &self.path, || {
            rustix::io::pread(&self.file, &mut found[..], (at + STORED) as u64)
        })?;
        calls.same("pread after a mapped store", &self.path, last, u64::from_le_bytes(found))?;
        let done = calls.ok("pwrite", &self.path, || {
            rustix::io::pwrite(&self.file, &last.to_le_bytes(), (at + WRITTEN) as u64)
        })?;
        calls.same("count of pwrite", &self.path, 8, done)?;
        self.check(calls)
    }

    /// The own numbers are in the mapping, and no number of others goes back.
    pub(crate) fn check(&mut self, calls: &mut Calls) -> Result<()> {
        for place in [STORED, WRITTEN] {
            let found = self.mapping.load_number(self.index as usize * PLACE + place);
            calls.same("load of an own number", &self.path, self.last, found)?;
        }
        for (index, before) in self.others.iter_mut().enumerate() {
            let now = stored(&self.mapping, index as u64);
            if now < *before {
                let expected = format!("{before} of worker {index}, or more");
                return Err(calls.wrong("load of another's number", &self.path, expected, now));
            }
            self.seen += u64::from(now > *before && index as u64 != self.index);
            *before = now;
        }
        Ok(())
    }

    /// The number that it has stored last, and how often it saw something new of others.
    pub(crate) fn sum(&self) -> (u64, u64) {
        (self.last, self.seen)
    }
}
