//! The state that outlives a store: a memory file, mapped by the store that serves and kept by systemd.
//!
//! A store can be killed between any two instructions. Whoever comes after it sees all stores of the dead one, in the
//! order in which they were made; so every change here is ordered such that each prefix of it means something. All fields
//! are atomics for that, not for threads: those have locks.

use std::{
    mem::offset_of,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
};

use rustix::{
    fs::{FallocateFlags, MemfdFlags},
    io::Errno,
    mm::{MapFlags, ProtFlags},
};

use crate::{
    error::{StoreError, io},
    reports::Counters,
};

/// "memcharg" in ASCII, the first byte first.
const MAGIC: u64 = u64::from_le_bytes(*b"memcharg");

/// Of the layout below: a store takes over only what it understands.
const VERSION: u32 = 1;

/// Requests whose effect is remembered until their answer is out. Serving threads need one each; the others are left by
/// stores that were killed between an answer and the note that it is out.
pub(super) const SLOTS: usize = 16;

const PAGE: usize = 4096;

/// Where the slots begin.
const SLOTS_AT: usize = 1024;

/// Where the two copies of the handover begin, and how long each can be: it names two cgroups.
const HANDOVER_AT: usize = PAGE;
const HANDOVER_MAX: usize = 3 * PAGE;

/// Where the records of inodes begin.
const NODES_AT: usize = HANDOVER_AT + 2 * HANDOVER_MAX;

/// As many inodes can be known to the kernel at once. Only what is used has pages.
const MAX_NODES: usize = 1 << 24;

/// So many bytes of records are made at once: less than the admission margin.
const NODES_STEP: usize = 64 << 10;

const LENGTH: usize = NODES_AT + MAX_NODES * size_of::<Record>();

/// What there is once.
#[repr(C)]
pub(super) struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    /// Which copy of the handover counts.
    handover: AtomicU32,
    handover_length: [AtomicU32; 2],
    /// How many records have pages.
    nodes: AtomicU32,
    /// The last backing id that the kernel gave.
    pub(super) last_backing: AtomicU32,
    /// How many stores have served this mount.
    pub(super) generation: AtomicU64,
    /// Stores in a row that have answered no request.
    pub(super) unserved: AtomicU32,
    /// Whether a store has agreed with the kernel. Before that the mount is not to be seen anywhere.
    pub(super) agreed: AtomicU32,
    /// Of all stores of this mount.
    pub(super) counters: Counters,
}

/// What is remembered of one request.
#[repr(C)]
pub(super) struct Slot {
    /// The kernel's number of the request, without its mark for one that comes again.
    pub(super) unique: AtomicU64,
    /// Of [`super::slots`].
    pub(super) phase: AtomicU32,
    /// Whether `evidence` counts.
    pub(super) armed: AtomicU32,
    /// What was seen before the effect.
    pub(super) evidence: AtomicU64,
    /// The result: a number, or an errno below zero.
    pub(super) result: AtomicI64,
    /// The record whose opens are being counted, and what they were before.
    pub(super) record: AtomicU32,
    pub(super) before: AtomicU32,
    /// A backing id that is to be closed once the result is known.
    pub(super) closing: AtomicU32,
    _reserved: [AtomicU32; 5],
}

/// What is remembered of an inode that the kernel knows.
#[repr(C)]
pub(crate) struct Record {
    /// Its number; 0: the record is free.
    pub(crate) ino: AtomicU64,
    /// References that the kernel holds. Too many after a kill, never too few.
    pub(crate) lookups: AtomicU64,
    /// Its generation, without which its handle is not complete.
    pub(crate) generation: AtomicU32,
    /// Opens that the kernel has not released.
    pub(crate) opens: AtomicU32,
    /// The kernel's name for the file behind it; 0: none.
    pub(crate) backing_id: AtomicU32,
    /// Of a free record: the next free one.
    pub(crate) next: AtomicU32,
}

const _: () =
    assert!(size_of::<Header>() <= SLOTS_AT && size_of::<Slot>() == 64 && size_of::<Record>() == 32);
const _: () = assert!(SLOTS_AT + SLOTS * size_of::<Slot>() <= HANDOVER_AT && NODES_AT.is_multiple_of(PAGE));

/// The memory file, mapped for as long as the process lives.
pub(crate) struct State {
    base: NonNull<u8>,
    file: OwnedFd,
}

// SAFETY: the mapping lives as long as the value, and all access to it is atomic or under a lock.
unsafe impl Send for State {}
// SAFETY: as above.
unsafe impl Sync for State {}

impl State {
    /// Makes a new one.
    pub(crate) fn create() -> Result<Self, StoreError> {
        let failed = || io::<Errno>("make the memory file of the store's state");
        let file = rustix::fs::memfd_create("memcharge-state", MemfdFlags::CLOEXEC).map_err(failed())?;
        rustix::fs::ftruncate(&file, LENGTH as u64).map_err(failed())?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, NODES_AT as u64).map_err(failed())?;
        let state = Self::map(file)?;
        state.touch(0, NODES_AT);
        state.header().version.store(VERSION, Ordering::SeqCst);
        state.header().magic.store(MAGIC, Ordering::SeqCst);
        Ok(state)
    }

    /// Takes over the one of a store that is gone.
    pub(crate) fn open(file: OwnedFd) -> Result<Self, StoreError> {
        let length = rustix::fs::fstat(&file).map_err(io("look at the store's state"))?.st_size;
        if length != LENGTH as i64 {
            return Err(StoreError::State(format!("it has {length} bytes, not {LENGTH}")));
        }
        let state = Self::map(file)?;
        let header = state.header();
        let (magic, version) = (header.magic.load(Ordering::SeqCst), header.version.load(Ordering::SeqCst));
        if magic != MAGIC || version != VERSION {
            return Err(StoreError::State(format!(
                "its layout is version {version}, and this program knows {VERSION}"
            )));
        }
        state.touch(0, NODES_AT + state.record_count() as usize * size_of::<Record>());
        Ok(state)
    }

    /// What memcharged has handed over, as it was last written down in `file`: read without mapping it, so that a store
    /// can go where it belongs before it takes memory.
    pub(super) fn handover_in(file: BorrowedFd<'_>) -> Result<Vec<u8>, StoreError> {
        let failed = || io::<Errno>("read the store's state");
        let number = |at: usize| {
            let mut bytes = [0; 4];
            rustix::io::pread(file, &mut bytes, at as u64).map_err(failed())?;
            Ok::<_, StoreError>(u32::from_ne_bytes(bytes) as usize)
        };
        let copy = number(offset_of!(Header, handover))? & 1;
        let length = number(offset_of!(Header, handover_length) + copy * size_of::<u32>())?;
        let mut text = vec![0; length.min(HANDOVER_MAX)];
        let read = rustix::io::pread(file, &mut text, (HANDOVER_AT + copy * HANDOVER_MAX) as u64);
        text.truncate(read.map_err(failed())?);
        Ok(text)
    }

    fn map(file: OwnedFd) -> Result<Self, StoreError> {
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), LENGTH, protection, flags, &file, 0) };
        let start = start.map_err(io("map the store's state"))?;
        let base =
            NonNull::new(start.cast()).ok_or_else(|| StoreError::State("it is mapped at 0".to_owned()))?;
        Ok(Self { base, file })
    }

    /// The file, for systemd to keep.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What there is once.
    pub(super) fn header(&self) -> &Header {
        // SAFETY: within the mapping, whose first bytes have pages; any bytes are valid atomics.
        unsafe { self.base.cast().as_ref() }
    }

    /// The requests.
    pub(super) fn slots(&self) -> &[Slot] {
        // SAFETY: as for the header; the slots are behind it and do not overlap anything.
        unsafe { slice::from_raw_parts(self.base.add(SLOTS_AT).cast().as_ptr(), SLOTS) }
    }

    /// How many records there are.
    pub(crate) fn record_count(&self) -> u32 {
        self.header().nodes.load(Ordering::SeqCst).min(MAX_NODES as u32)
    }

    /// A record that is there.
    pub(crate) fn record(&self, index: u32) -> &Record {
        debug_assert!(index < self.record_count());
        let at = NODES_AT + (index as usize).min(MAX_NODES - 1) * size_of::<Record>();
        // SAFETY: within the mapping; any bytes are valid atomics.
        unsafe { self.base.add(at).cast().as_ref() }
    }

    /// Makes more records, all of them free. Returns the first and how many there are then. ENOSPC: no more are possible.
    pub(crate) fn more_records(&self) -> Result<(u32, u32), Errno> {
        let first = self.record_count();
        let more = (NODES_STEP / size_of::<Record>()) as u32;
        if first as usize + more as usize > MAX_NODES {
            return Err(Errno::NOSPC);
        }
        let at = NODES_AT + first as usize * size_of::<Record>();
        rustix::fs::fallocate(&self.file, FallocateFlags::empty(), at as u64, NODES_STEP as u64)?;
        self.touch(at, at + NODES_STEP);
        self.header().nodes.store(first + more, Ordering::SeqCst);
        Ok((first, first + more))
    }

    /// No page of it faults later, at the target's limit.
    fn touch(&self, from: usize, to: usize) {
        for at in (from..to).step_by(PAGE) {
            // SAFETY: within the mapping, of a page that was allocated; an atomic that adds nothing changes nothing.
            unsafe { self.base.add(at).cast::<AtomicU64>().as_ref() }.fetch_add(0, Ordering::SeqCst);
        }
    }

    /// Writes down what was handed over: beside what is there, which counts until all of it is written. Called by one
    /// thread at a time.
    pub(super) fn set_handover(&self, text: &[u8]) -> Result<(), StoreError> {
        if text.len() > HANDOVER_MAX {
            return Err(StoreError::State(format!("a handover of {} bytes does not fit", text.len())));
        }
        let copy = (self.header().handover.load(Ordering::SeqCst) as usize + 1) & 1;
        let start = self.base.as_ptr().wrapping_add(HANDOVER_AT + copy * HANDOVER_MAX);
        // SAFETY: within the mapping; this copy does not count, so nobody reads it.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), start, text.len()) };
        self.header().handover_length[copy].store(text.len() as u32, Ordering::SeqCst);
        self.header().handover.store(copy as u32, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; nothing refers to it any more. A failure leaves it mapped.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_for_the_next() {
        let state = State::create().unwrap();
        state.set_handover(b"first").unwrap();
        state.set_handover(b"the second").unwrap();
        assert!(state.set_handover(&[0; HANDOVER_MAX + 1]).is_err());
        let (first, end) = state.more_records().unwrap();
        assert_eq!((first, end), (0, 2048));
        assert_eq!(state.more_records().unwrap(), (2048, 4096));
        state.record(4095).ino.store(7, Ordering::SeqCst);
        let next = State::open(state.file.try_clone().unwrap()).unwrap();
        drop(state);
        assert_eq!(State::handover_in(next.file()).unwrap(), b"the second");
        assert_eq!((next.record_count(), next.record(4095).ino.load(Ordering::SeqCst)), (4096, 7));
    }

    #[test]
    fn another_layout_is_refused() {
        let state = State::create().unwrap();
        state.header().version.store(VERSION + 1, Ordering::SeqCst);
        assert!(matches!(State::open(state.file.try_clone().unwrap()), Err(StoreError::State(_))));
        let short = rustix::fs::memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
        assert!(matches!(State::open(short), Err(StoreError::State(_))));
    }
}
