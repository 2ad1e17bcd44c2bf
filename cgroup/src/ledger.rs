//! What each store has been granted and has not allocated yet, for all stores of the machine to see.
//!
//! A grant does not show in `memory.current` until its pages are allocated. Stores below one limit would each take the
//! same bytes, if each counted its own grants only. So every store writes down what it holds *before* it samples, and
//! counts what the others below the same cgroup hold.
//!
//! The ledger is a file in `/run`, mapped by the daemon and by every store: one line for each store, written by it
//! alone. The daemon gives the lines out and takes those of dead stores back.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use memcharge_policy::Bytes;
use rustix::{
    fs::FallocateFlags,
    mm::{MapFlags, ProtFlags},
};

/// Lines, the first of which is no store's: there can be one store less.
pub const LEDGER_SLOTS: usize = 1025;

/// Cgroups on a store's path that have the memory controller, at most; deeper ones cannot be targets.
pub const LEDGER_DEPTH: usize = 14;

/// One store's line: 128 bytes, two cache lines.
#[repr(C)]
struct Line {
    /// Granted, and not allocated yet, in bytes. In the first line: the number of the last line that was ever given out,
    /// so that nobody reads a thousand lines for three stores.
    outstanding: AtomicU64,
    /// How many of `levels` are in use; 0: a free line.
    depth: AtomicU64,
    /// The ids of the cgroups on the store's path.
    levels: [AtomicU64; LEDGER_DEPTH],
}

/// The ledger, mapped.
#[derive(Debug)]
pub struct Ledger {
    lines: NonNull<Line>,
}

// SAFETY: the mapping lives as long as the value, and all access to it is atomic.
unsafe impl Send for Ledger {}
// SAFETY: as above.
unsafe impl Sync for Ledger {}

const LENGTH: usize = LEDGER_SLOTS * size_of::<Line>();

impl Ledger {
    /// Opens the ledger at `path`; makes it, with all its pages, if it is missing.
    pub fn open_file(path: &Path) -> io::Result<File> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        // Every page is there before a store maps it: nothing is allocated on a tenant's bill, or at its limit.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, LENGTH as u64)?;
        Ok(file)
    }

    /// Maps the ledger.
    pub fn map(file: impl AsFd) -> io::Result<Self> {
        if rustix::fs::fstat(&file)?.st_size < LENGTH as i64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the ledger is too short"));
        }
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                LENGTH,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                &file,
                0,
            )
        }?;
        let lines = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { lines })
    }

    fn lines(&self) -> &[Line] {
        // SAFETY: the mapping has this length, is aligned to a page, lives as long as `self`, and any bytes are valid
        // atomics.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr(), LEDGER_SLOTS) }
    }

    /// Gives the first free line to a store with these cgroups on its path. `None`: there is no free line, or the path
    /// is too deep. To be called by the daemon alone.
    pub fn take(&self, levels: &[u64]) -> Option<u32> {
        let slot = (1..LEDGER_SLOTS).find(|slot| self.lines()[*slot].depth.load(Ordering::SeqCst) == 0)?;
        self.set_levels(slot, levels).then(|| u32::try_from(slot).ok()).flatten()
    }

    /// Gives a line that was given out to a store with these cgroups on its path from now on. `false`: the path is too
    /// deep. To be called by the daemon alone.
    pub fn assign(&self, slot: u32, levels: &[u64]) -> bool {
        self.set_levels(slot as usize, levels)
    }

    fn set_levels(&self, slot: usize, levels: &[u64]) -> bool {
        let Some(line) = self.lines().get(slot).filter(|_| slot > 0) else { return false };
        if levels.is_empty() || levels.len() > LEDGER_DEPTH {
            return false;
        }
        for (place, id) in line.levels.iter().zip(levels) {
            place.store(*id, Ordering::SeqCst);
        }
        line.depth.store(levels.len() as u64, Ordering::SeqCst);
        self.lines()[0].outstanding.fetch_max(slot as u64, Ordering::SeqCst);
        true
    }

    /// Takes a line back whose store is gone.
    pub fn release(&self, slot: u32) {
        if let Some(line) = self.line(slot) {
            line.depth.store(0, Ordering::SeqCst);
            line.outstanding.store(0, Ordering::SeqCst);
        }
    }

    /// Takes back all lines but these.
    pub fn retain(&self, slots: &[u32]) {
        (1..LEDGER_SLOTS as u32).filter(|slot| !slots.contains(slot)).for_each(|slot| self.release(slot));
    }

    /// Writes down what the store of this line holds now.
    pub fn write_down(&self, slot: u32, outstanding: Bytes) {
        if let Some(line) = self.line(slot) {
            line.outstanding.store(outstanding.0, Ordering::SeqCst);
        }
    }

    /// What stores other than that of `slot` hold below the cgroup `level`.
    pub fn held_by_others(&self, slot: u32, level: u64) -> Bytes {
        let last = (self.lines()[0].outstanding.load(Ordering::SeqCst) as usize).min(LEDGER_SLOTS - 1);
        let others = (1..=last).filter(|other| *other != slot as usize).map(|other| &self.lines()[other]);
        others.fold(Bytes(0), |sum, line| {
            let held = line.outstanding.load(Ordering::SeqCst);
            if held != 0 && line.is_below(level) { sum.plus(Bytes(held)) } else { sum }
        })
    }

    fn line(&self, slot: u32) -> Option<&Line> {
        self.lines().get(slot as usize).filter(|_| slot > 0)
    }
}

impl Line {
    fn is_below(&self, level: u64) -> bool {
        let depth = (self.depth.load(Ordering::SeqCst) as usize).min(LEDGER_DEPTH);
        self.levels[..depth].iter().any(|id| id.load(Ordering::SeqCst) == level)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; nothing refers to it any more. A failure leaves it mapped.
        let _ = unsafe { rustix::mm::munmap(self.lines.as_ptr().cast(), LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_hold_counts_below_a_common_cgroup_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let ledger = Ledger::map(Ledger::open_file(&path).unwrap()).unwrap();
        let other_view = Ledger::map(Ledger::open_file(&path).unwrap()).unwrap();
        let (a, b, c) = (
            ledger.take(&[11, 10]).unwrap(),
            ledger.take(&[12, 10]).unwrap(),
            ledger.take(&[21, 20]).unwrap(),
        );
        for (slot, bytes) in [(a, 100), (b, 200), (c, 400)] {
            ledger.write_down(slot, Bytes(bytes));
        }
        assert_eq!(other_view.held_by_others(a, 10), Bytes(200));
        assert_eq!(other_view.held_by_others(a, 11), Bytes(0), "its own does not count");
        assert_eq!(other_view.held_by_others(a, 20), Bytes(400));
        ledger.release(b);
        assert_eq!(other_view.held_by_others(a, 10), Bytes(0));
        assert_eq!(ledger.take(&[13, 10]), Some(b), "a free line is given out again, empty");
        assert_eq!(other_view.held_by_others(a, 10), Bytes(0));
        ledger.retain(&[a]);
        assert_eq!(other_view.held_by_others(b, 20), Bytes(0));
        assert_eq!(other_view.held_by_others(c, 10), Bytes(100));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::map(Ledger::open_file(&dir.path().join("ledger")).unwrap()).unwrap();
        assert_eq!(ledger.take(&[]), None);
        assert_eq!(ledger.take(&[1; LEDGER_DEPTH + 1]), None);
        for _ in 1..LEDGER_SLOTS {
            ledger.take(&[1]).unwrap();
        }
        assert_eq!(ledger.take(&[1]), None);
        assert!(Ledger::map(tempfile::tempfile().unwrap()).is_err());
    }
}
