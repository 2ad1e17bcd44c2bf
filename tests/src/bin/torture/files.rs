//! Data of a private file, against a copy of it in memory: three descriptors and mappings, each of which must show the
//! same bytes.

use std::{os::fd::OwnedFd, path::PathBuf};

use anyhow::Result;
use memcharge_tests::random::Random;
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags};
use serde_json::{Value, json};

use crate::{
    calls::Calls,
    mapping::Mapping,
    worker::{Place, Work},
};

/// Most operations are small; a few take more than one request.
const SMALL: u64 = 8 << 10;
const LARGE: u64 = 300 << 10;

/// Steps between two comparisons of the whole file.
const COMPARE: u64 = 50;

/// A page, in bytes.
const PAGE: usize = 4096;

/// The file, and what must be in it.
#[derive(Debug)]
pub(crate) struct Files {
    path: PathBuf,
    /// The file is never longer.
    max: u64,
    holes: bool,
    model: Vec<u8>,
    open: Open,
    /// How often it was made.
    made: u64,
}

/// A writable descriptor is served by the store; a reading one is not.
#[derive(Debug)]
struct Open {
    both: OwnedFd,
    reading: OwnedFd,
    appending: OwnedFd,
}

fn open(calls: &mut Calls, path: &PathBuf, more: OFlags) -> Result<Open> {
    let mut open = |call, flags| {
        calls.ok(call, path, || {
            rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))
        })
    };
    Ok(Open {
        both: open("open for both", OFlags::RDWR | more)?,
        reading: open("open for reading", OFlags::RDONLY)?,
        appending: open("open for appending", OFlags::WRONLY | OFlags::APPEND)?,
    })
}

const NEW: OFlags = OFlags::CREATE.union(OFlags::EXCL);

impl Files {
    /// An empty file.
    pub(crate) fn new(place: &Place, calls: &mut Calls) -> Result<Self> {
        let path = place.dir.join(format!("data-{}", place.index));
        let open = open(calls, &path, NEW)?;
        Ok(Self { path, max: place.bytes, holes: place.holes, model: Vec::new(), open, made: 1 })
    }

    fn size(&self) -> u64 {
        self.model.len() as u64
    }

    /// An offset and a length that end at `limit` or before; nothing if there is no byte.
    fn range(&self, random: &mut Random, limit: u64) -> Option<(u64, usize)> {
        if limit == 0 {
            return None;
        }
        let most = if random.below(8) == 0 { LARGE } else { SMALL };
        let offset = match random.below(4) {
            // At a page or beside its edge: where mistakes live.
            0 => (random.below(limit) / PAGE as u64) * PAGE as u64,
            // Near the end.
            1 => limit.saturating_sub(1 + random.below(most)),
            _ => random.below(limit),
        };
        let length = (1 + random.below(most)).min(limit - offset);
        Some((offset, length as usize))
    }

    fn write(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let Some((offset, length)) = self.range(random, self.max.min(self.size() + LARGE)) else {
            return Ok(());
        };
        let data = bytes(random, length);
        let done = calls.ok("pwrite", &self.path, || rustix::io::pwrite(&self.open.both, &data, offset))?;
        calls.same("count of pwrite", &self.path, length, done)?;
        self.put(offset as usize, &data);
        Ok(())
    }

    /// What a write does to the copy.
    fn put(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if end > self.model.len() {
            self.model.resize(end, 0);
        }
        self.model[offset..end].copy_from_slice(data);
    }

    fn append(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let room = self.max - self.size();
        if room == 0 {
            return self.truncate(calls, random.below(self.max));
        }
        let length = (1 + random.below(SMALL)).min(room) as usize;
        let data = bytes(random, length);
        let done = calls.ok("append", &self.path, || rustix::io::write(&self.open.appending, &data))?;
        calls.same("count of append", &self.path, data.len(), done)?;
        self.put(self.model.len(), &data);
        self.check_size(calls)
    }

    fn read(&self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        // Also beyond the end, where there is less or nothing.
        let Some((offset, length)) = self.range(random, self.size() + SMALL) else { return Ok(()) };
        let (call, file) = match random.below(2) {
            0 => ("pread (writable descriptor)", &self.open.both),
            _ => ("pread (reading descriptor)", &self.open.reading),
        };
        self.read_and_compare(calls, call, file, offset as usize, length)
    }

    fn read_and_compare(
        &self,
        calls: &mut Calls,
        call: &'static str,
        file: &OwnedFd,
        offset: usize,
        length: usize,
    ) -> Result<()> {
        let mut found = vec![0xaa; length];
        let done = calls.ok(call, &self.path, || rustix::io::pread(file, &mut found[..], offset as u64))?;
        let (start, end) = (offset.min(self.model.len()), (offset + length).min(self.model.len()));
        calls.same_bytes(call, &self.path, offset, &self.model[start..end], &found[..done])
    }

    fn truncate(&mut self, calls: &mut Calls, size: u64) -> Result<()> {
        calls.ok("ftruncate", &self.path, || rustix::fs::ftruncate(&self.open.both, size))?;
        self.model.resize(size as usize, 0);
        self.check_size(calls)
    }

    fn fallocate(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let Some((offset, length)) = self.range(random, self.max) else { return Ok(()) };
        let (call, flags) = match random.below(4) {
            0 => ("fallocate, size kept", FallocateFlags::KEEP_SIZE),
            1 => ("fallocate, punch", FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
            _ => ("fallocate", FallocateFlags::empty()),
        };
        calls
            .ok(call, &self.path, || rustix::fs::fallocate(&self.open.both, flags, offset, length as u64))?;
        let (offset, end) = (offset as usize, offset as usize + length);
        let within = self.model.len();
        if flags.is_empty() && end > within {
            self.model.resize(end, 0);
        }
        if flags.contains(FallocateFlags::PUNCH_HOLE) {
            self.model[offset.min(within)..end.min(within)].fill(0);
        }
        self.check_size(calls)
    }

    fn copy(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let Some((from, length)) = self.range(random, self.size()) else { return Ok(()) };
        // Behind the source: a range must not be copied to itself.
        let to = from + length as u64 + random.below(SMALL);
        if to + length as u64 > self.max {
            return Ok(());
        }
        let (mut read_at, mut write_at, mut left) = (from, to, length);
        while left > 0 {
            let done = calls.ok("copy_file_range", &self.path, || {
                let file = &self.open.both;
                rustix::fs::copy_file_range(file, Some(&mut read_at), file, Some(&mut write_at), left)
            })?;
            if done == 0 || done > left {
                return Err(calls.wrong("copy_file_range", &self.path, format!("1 to {left}"), done));
            }
            left -= done;
        }
        let data = self.model[from as usize..from as usize + length].to_vec();
        self.put(to as usize, &data);
        self.check_size(calls)
    }

    /// Loads or stores through a mapping of the whole file; what was stored is read back by a call.
    fn map(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let Some((offset, length)) = self.range(random, self.size()) else { return Ok(()) };
        if self.holes {
            // A touch of a hole would be a SIGBUS there.
            calls.ok("fallocate of what is mapped", &self.path, || {
                let none = FallocateFlags::empty();
                rustix::fs::fallocate(&self.open.both, none, offset, length as u64)
            })?;
        }
        let mapping =
            calls.ok("mmap", &self.path, || Mapping::new(&self.open.both, self.model.len(), true))?;
        let offset = offset as usize;
        let mut found = vec![0; length];
        calls.time("load through a mapping", || mapping.load(offset, &mut found));
        let expected = &self.model[offset..offset + length];
        calls.same_bytes("load through a mapping", &self.path, offset, expected, &found)?;
        if random.below(2) == 0 {
            let data = bytes(random, length);
            calls.time("store through a mapping", || mapping.store(offset, &data));
            self.put(offset, &data);
            self.read_and_compare(calls, "pread after a mapped store", &self.open.both, offset, length)?;
        }
        Ok(())
    }

    fn check_size(&self, calls: &mut Calls) -> Result<()> {
        for (call, file) in [
            ("fstat (writable descriptor)", &self.open.both),
            ("fstat (reading descriptor)", &self.open.reading),
        ] {
            let stat = calls.ok(call, &self.path, || rustix::fs::fstat(file))?;
            calls.same(call, &self.path, self.size(), stat.st_size as u64)?;
        }
        Ok(())
    }

    /// Every byte, read in every way.
    fn compare(&self, calls: &mut Calls) -> Result<()> {
        self.check_size(calls)?;
        for (call, file) in [
            ("whole pread (writable descriptor)", &self.open.both),
            ("whole pread (reading descriptor)", &self.open.reading),
        ] {
            // One byte more: there must be none.
            for offset in (0..=self.model.len()).step_by(LARGE as usize) {
                self.read_and_compare(calls, call, file, offset, LARGE as usize)?;
            }
        }
        if !self.holes && !self.model.is_empty() {
            let mapping =
                calls.ok("mmap", &self.path, || Mapping::new(&self.open.reading, self.model.len(), false))?;
            let mut found = vec![0; self.model.len()];
            calls.time("load of everything", || mapping.load(0, &mut found));
            calls.same_bytes("load of everything", &self.path, 0, &self.model, &found)?;
        }
        Ok(())
    }

    /// Closes and opens everything anew; now and then with a new file under the old name.
    fn reopen(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        if random.below(8) == 0 {
            calls.ok("unlink", &self.path, || rustix::fs::unlink(&self.path))?;
            // The old file is still there for who has it open.
            self.compare(calls)?;
            self.open = open(calls, &self.path, NEW)?;
            self.model.clear();
            self.made += 1;
        } else {
            self.open = open(calls, &self.path, OFlags::empty())?;
        }
        self.check_size(calls)
    }
}

fn bytes(random: &mut Random, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    random.fill(&mut data);
    data
}

impl Work for Files {
    fn step(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        match random.below(32) {
            0..9 => self.write(calls, random)?,
            9..14 => self.read(calls, random)?,
            14..18 => self.append(calls, random)?,
            18..20 => self.truncate(calls, random.below(self.max + 1))?,
            20..23 => self.fallocate(calls, random)?,
            23..25 => self.copy(calls, random)?,
            25..30 => self.map(calls, random)?,
            30 => self.reopen(calls, random)?,
            _ => calls.ok("fsync", &self.path, || rustix::fs::fsync(&self.open.both))?,
        }
        if calls.step().is_multiple_of(COMPARE) {
            self.compare(calls)?;
        }
        Ok(())
    }

    fn end(&mut self, calls: &mut Calls) -> Result<Value> {
        self.compare(calls)?;
        Ok(json!({ "made": self.made, "bytes": self.model.len() }))
    }
}
