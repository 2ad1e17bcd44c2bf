//! A shared mapping of a file.

use std::{os::fd::AsFd, ptr};

use rustix::{
    io::Result,
    mm::{MapFlags, ProtFlags},
};

/// A shared mapping, undone when it is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    /// Maps the first `length` bytes of a file, at least one. Nobody may make the file shorter while this lives.
    pub(crate) fn new(file: impl AsFd, length: usize, writable: bool) -> Result<Self> {
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start =
            unsafe { rustix::mm::mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, file, 0) }?;
        Ok(Self { start: start.cast(), length })
    }

    /// Copies out what is there.
    pub(crate) fn load(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.length);
        // SAFETY: within the mapping; other processes may store meanwhile, so nothing refers to it.
        unsafe { ptr::copy_nonoverlapping(self.start.add(offset), into.as_mut_ptr(), into.len()) }
    }

    /// Stores bytes. The mapping is writable.
    pub(crate) fn store(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        // SAFETY: within the mapping; other processes may load meanwhile, so nothing refers to it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(offset), bytes.len()) }
    }

    /// Loads a number at a multiple of 8: never half of it.
    pub(crate) fn load_number(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.length);
        // SAFETY: within the mapping, and aligned since a mapping begins at a page.
        unsafe { self.start.add(offset).cast::<u64>().read_volatile() }
    }

    /// Stores a number at a multiple of 8: nobody sees half of it.
    pub(crate) fn store_number(&self, offset: usize, number: u64) {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.length);
        // SAFETY: within the mapping, and aligned since a mapping begins at a page.
        unsafe { self.start.add(offset).cast::<u64>().write_volatile(number) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new`; nothing refers to it.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.length) };
    }
}
