//! Space in files: growth, fallocate, holes.

use std::os::fd::{AsFd, BorrowedFd};

use memcharge_policy::{Bytes, PAGE_SIZE, Sparse, pages_end};
use rustix::{
    fs::{FallocateFlags, SeekFrom, Stat},
    io::Errno,
};

use super::{
    Fs,
    data::{Parts, had_pages_beyond, has_pages_beyond},
};
use crate::{case::Case, gate::PAGE, liveness::beat};

/// How much is allocated between two looks at the target, in bytes.
const STEP: u64 = 1 << 20;

/// What punched holes are filled with under `sparse = "reserve"`.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Fs {
    /// fallocate(2): allocates, or punches a hole. Other modes are what tmpfs refuses as well.
    pub(crate) fn fallocate(
        &self,
        case: &Case,
        ino: u64,
        offset: u64,
        length: u64,
        mode: i32,
    ) -> Result<(), Errno> {
        let end = offset.checked_add(length).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::FBIG)?;
        let flags = FallocateFlags::from_bits_retain(mode as u32);
        let file = self.inodes.data_fd(&self.backing, ino)?;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if flags == punch {
            self.punch(case, file.as_fd(), offset, end)
        } else if flags.is_empty() || flags == FallocateFlags::KEEP_SIZE {
            self.preallocate(case, file.as_fd(), offset, end, flags.is_empty())
        } else {
            Err(Errno::OPNOTSUPP)
        }
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE.
    pub(crate) fn lseek(&self, ino: u64, offset: i64, whence: i32) -> Result<u64, Errno> {
        let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        let from = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        // The position of a shared description moves; nothing here depends on it.
        rustix::fs::seek(self.inodes.data_fd(&self.backing, ino)?, from)
    }

    fn preallocate(
        &self,
        case: &Case,
        file: BorrowedFd<'_>,
        offset: u64,
        end: u64,
        extend: bool,
    ) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(file)?;
        let size = stat.st_size as u64;
        match self.gate.sparse() {
            Sparse::Reserve if extend => self.allocate_growth(file, &stat, end, case)?,
            Sparse::Reserve => {
                let from = pages_end(size).max(offset - offset % PAGE_SIZE);
                self.allocate(file, &stat, from, pages_end(end), case)?;
            }
            Sparse::Sigbus => {
                self.allocate(file, &stat, offset - offset % PAGE_SIZE, pages_end(end), case)?;
            }
        }
        if extend && end > size {
            rustix::fs::ftruncate(file, end)?;
        }
        Ok(())
    }

    /// Allocates every page between the file's end and `size`, or none of them.
    pub(super) fn allocate_growth(
        &self,
        file: BorrowedFd<'_>,
        stat: &Stat,
        size: u64,
        case: &Case,
    ) -> Result<(), Errno> {
        self.allocate(file, stat, pages_end(stat.st_size as u64), pages_end(size), case)
    }

    /// Allocates the pages from `from` to `to`. What lies beyond the file's end is given back if not all of it is
    /// admitted; holes within the file that were filled stay filled (a client may have stored into them meanwhile).
    fn allocate(
        &self,
        file: BorrowedFd<'_>,
        stat: &Stat,
        from: u64,
        to: u64,
        case: &Case,
    ) -> Result<(), Errno> {
        if from >= to {
            return Ok(());
        }
        let size_end = pages_end(stat.st_size as u64);
        // Pages that are there need no grant, and how many of a range are there the kernel does not say: so steps of
        // such a file are tried without one first, against a size that has no room for new pages.
        let some_exist = from < size_end || has_pages_beyond(stat);
        let kept = had_pages_beyond(case, stat);
        if some_exist {
            self.gate.trim(&self.backing);
        } else {
            self.gate.would_fit(&self.backing, Bytes(to - from), case)?;
        }
        let mut at = from;
        while at < to {
            beat();
            let step = STEP.min(to - at);
            let fill = || rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, at, step);
            if !some_exist || fill().is_err() {
                let least = if at < size_end { PAGE } else { Bytes(step) };
                if let Err(e) = self.granted(Bytes(step), least, case, Parts::All, &fill) {
                    self.give_back(file, stat, at.max(size_end), kept);
                    return Err(e);
                }
            }
            at += step;
        }
        Ok(())
    }

    /// Gives back what a failed growth has allocated beyond the file's end, up to `done`. A file that had pages there
    /// before (fallocate with KEEP_SIZE) has them `kept`, all of them: they cannot be told from the new ones.
    fn give_back(&self, file: BorrowedFd<'_>, before: &Stat, done: u64, kept: bool) {
        let size = before.st_size as u64;
        if (done > pages_end(size) || has_pages_beyond(before)) && !kept {
            // Setting the size that a file has drops its pages beyond that.
            let _ = rustix::fs::ftruncate(file, size);
        }
        self.gate.tighten(&self.backing);
    }

    /// Allocates from `from` on as far as it is admitted, and is content with that.
    pub(super) fn allocate_front(
        &self,
        case: &Case,
        file: BorrowedFd<'_>,
        from: u64,
        to: u64,
    ) -> Result<(), Errno> {
        let (mut at, to) = (pages_end(from), pages_end(to));
        while at < to {
            beat();
            let want = Bytes(STEP.min(to - at));
            let Ok(permit) = self.gate.grow(&self.backing, want, PAGE, case) else { return Ok(()) };
            let step = permit.bytes().0;
            match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, at, step) {
                Ok(()) => at += step,
                Err(Errno::NOSPC | Errno::NOMEM) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Punches a hole. Under `reserve` no page below the file's end may be missing, so there the hole is filled with
    /// zeros and keeps its pages.
    fn punch(&self, case: &Case, file: BorrowedFd<'_>, offset: u64, end: u64) -> Result<(), Errno> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if self.gate.sparse() == Sparse::Sigbus {
            rustix::fs::fallocate(file, punch, offset, end - offset)?;
            self.gate.tighten(&self.backing);
            return Ok(());
        }
        let stat = rustix::fs::fstat(file)?;
        let size = stat.st_size as u64;
        let mut at = offset;
        while at < end.min(size) {
            beat();
            let length = ZEROS.len().min((end.min(size) - at) as usize);
            at += self.with_room(case, file, &stat, at, length, &|_, at, length| {
                rustix::io::pwrite(file, &ZEROS[..length], at)
            })? as u64;
        }
        let beyond = pages_end(size).max(offset);
        if beyond < end {
            rustix::fs::fallocate(file, punch, beyond, end - beyond)?;
        }
        Ok(())
    }
}
