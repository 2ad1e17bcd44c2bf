//! Data: read, write, copy_file_range.
//!
//! A write within a file goes straight to the backing file. What grows the file passes the gate first; what meets a
//! hole (only under `sparse = "sigbus"`, or where a client removed pages with MADV_REMOVE) is refused by the backing
//! tmpfs' own size, passes the gate then, and is tried again.

use std::os::fd::{AsFd, BorrowedFd};

use memcharge_policy::{Bytes, PAGE_SIZE, Sparse, pages_end};
use rustix::{fs::Stat, io::Errno};

use super::{Fs, attr::clear_set_ids};
use crate::{case::Case, gate::PAGE, liveness::beat};

/// The most that one copy_file_range request moves. The reply is a short count then, and the client asks again: no
/// request keeps a serving thread for long.
const COPY_MAX: u64 = 8 << 20;

/// How much is copied between two looks at the target, in bytes.
const COPY_STEP: u64 = 512 << 10;

/// How often room is made for one piece that meets a hole.
const HOLE_TRIES: u32 = 16;

/// Whether a step that is granted less than it needs does a part of it, or fails by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parts {
    Some,
    All,
}

/// One write-like operation: it moves up to `usize` bytes to the offset `u64`, having moved `usize` before.
type Move<'a> = &'a dyn Fn(usize, u64, usize) -> Result<usize, Errno>;

impl Fs {
    /// Reads up to `size` bytes at `offset` and passes them to `with`.
    pub(crate) fn read<T>(
        &self,
        ino: u64,
        offset: u64,
        size: usize,
        with: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Errno> {
        let file = self.inodes.data_fd(&self.backing, ino)?;
        let mut buffer = self.buffers.take();
        let size = size.min(buffer.len());
        let length = rustix::io::pread(&file, &mut buffer[..size], offset)?;
        Ok(with(&buffer[..length]))
    }

    /// Writes `data` at `offset`. Returns how many bytes were written, which may be fewer at the limit.
    /// `clear_ids`: the writer may not keep the set-id bits.
    pub(crate) fn write(
        &self,
        case: &Case,
        ino: u64,
        offset: u64,
        data: &[u8],
        clear_ids: bool,
    ) -> Result<usize, Errno> {
        let file = self.inodes.data_fd(&self.backing, ino)?;
        let stat = rustix::fs::fstat(&file)?;
        if clear_ids {
            clear_set_ids(file.as_fd(), &stat)?;
        }
        self.with_room(case, file.as_fd(), &stat, offset, data.len(), &|done, at, length| {
            rustix::io::pwrite(&file, &data[done..done + length], at)
        })
    }

    /// Copies up to `length` bytes between two files of the mount. Returns how many, which may be fewer.
    pub(crate) fn copy(
        &self,
        case: &Case,
        from: (u64, u64),
        to: (u64, u64),
        length: u64,
    ) -> Result<usize, Errno> {
        let source = self.inodes.data_fd(&self.backing, from.0)?;
        let sink = self.inodes.data_fd(&self.backing, to.0)?;
        let there = (rustix::fs::fstat(&source)?.st_size as u64).saturating_sub(from.1);
        let length = length.min(there).min(COPY_MAX);
        let mut copied = 0;
        while copied < length {
            beat();
            let step = COPY_STEP.min(length - copied) as usize;
            let (read_at, write_at) = (from.1 + copied, to.1 + copied);
            let stat = rustix::fs::fstat(&sink)?;
            let result = self.with_room(case, sink.as_fd(), &stat, write_at, step, &|done, at, length| {
                let (mut read_at, mut at) = (read_at + done as u64, at);
                rustix::fs::copy_file_range(&source, Some(&mut read_at), &sink, Some(&mut at), length)
            });
            match result {
                Ok(0) => break,
                Ok(moved) => copied += moved as u64,
                Err(_) if copied > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(copied as usize)
    }

    /// Runs `step` on `[offset, offset + length)` with room for what it allocates.
    pub(super) fn with_room(
        &self,
        case: &Case,
        file: BorrowedFd<'_>,
        stat: &Stat,
        offset: u64,
        length: usize,
        step: Move<'_>,
    ) -> Result<usize, Errno> {
        let end =
            offset.checked_add(length as u64).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::FBIG)?;
        let size_end = pages_end(stat.st_size as u64);
        if has_holes(stat) {
            // Made by MADV_REMOVE, which no request tells of: the pages that it freed are not granted to anybody.
            self.gate.tighten(&self.backing);
        }
        let grows = self.gate.sparse() == Sparse::Reserve && pages_end(end) > size_end;
        let mut length = length;
        let kept = !grows || had_pages_beyond(case, stat);
        let _permit;
        if grows {
            let gap = offset - offset % PAGE_SIZE;
            if gap > size_end {
                self.allocate_growth(file, stat, gap, case)?;
            }
            let have = size_end.max(gap);
            let need = Bytes(pages_end(end) - have);
            // fallocate with KEEP_SIZE has made pages beyond the end: those need no grant, and nobody is asked for them. The
            // pinned size refuses what would go beyond them, and then it is asked for.
            if has_pages_beyond(stat) {
                self.gate.trim(&self.backing);
            } else {
                match self.gate.grow(&self.backing, need, PAGE.min(need), case) {
                    Ok(permit) => {
                        length = length.min((have + permit.bytes().0 - offset) as usize);
                        _permit = permit;
                    }
                    Err(_) if offset < size_end => length = (size_end - offset) as usize,
                    Err(e) => {
                        self.drop_gap(file, stat, gap > size_end && !kept);
                        return Err(e);
                    }
                }
            }
        }
        let result = self.fill(offset, length, step, case);
        if matches!(result, Err(_) | Ok(0)) {
            self.drop_gap(file, stat, !kept);
        }
        result
    }

    /// Moves bytes; where the backing has no room it asks the gate for it, once for each piece that was refused.
    fn fill(&self, offset: u64, length: usize, step: Move<'_>, case: &Case) -> Result<usize, Errno> {
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            match step(done, at, length - done) {
                Ok(0) => break,
                Ok(moved) => done += moved,
                Err(Errno::NOSPC | Errno::NOMEM) => {
                    match self.fill_hole(at, length - done, case, |at, rest| step(done, at, rest)) {
                        Ok(0) => break,
                        Ok(moved) => done += moved,
                        Err(_) if done > 0 => break,
                        Err(e) => return Err(e),
                    }
                }
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn fill_hole(
        &self,
        at: u64,
        length: usize,
        case: &Case,
        step: impl Fn(u64, usize) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let need = Bytes(pages_end(at + length as u64) - (at - at % PAGE_SIZE));
        self.granted(need, PAGE, case, Parts::Some, &|| step(at, length))
    }

    /// Runs `step` with the right to allocate `need` bytes, or as many as there are, at least `least`; again where others have
    /// taken the room that was made for it: clients that touch holes, and requests that try without a grant whether their
    /// pages exist.
    pub(super) fn granted<T>(
        &self,
        need: Bytes,
        least: Bytes,
        case: &Case,
        parts: Parts,
        step: &dyn Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut tries = HOLE_TRIES;
        loop {
            let permit = self.gate.grow(&self.backing, need, least, case)?;
            tries -= 1;
            match step() {
                Err(Errno::NOSPC) if tries > 0 && (parts == Parts::Some || permit.bytes() == need) => {}
                result => return result,
            }
        }
    }

    /// Takes back pages beyond the end of a file that a failed write leaves there.
    fn drop_gap(&self, file: BorrowedFd<'_>, before: &Stat, grew: bool) {
        if grew {
            let _ = rustix::fs::ftruncate(file, before.st_size as u64);
        }
    }
}

/// Whether a file lacks pages below its end (it may: pages beyond the end hide as many holes).
pub(super) fn has_holes(stat: &Stat) -> bool {
    (stat.st_blocks as u64 * 512) < pages_end(stat.st_size as u64)
}

/// Whether a file had pages beyond its end before this request, which a store that was killed may have begun.
pub(super) fn had_pages_beyond(case: &Case, stat: &Stat) -> bool {
    match case.run.armed() {
        Some(had) => had != 0,
        None => {
            let has = has_pages_beyond(stat);
            case.run.arm(u64::from(has));
            has
        }
    }
}

/// Whether a file has pages beyond its end (it may: a file with as many holes looks as if it had none).
pub(super) fn has_pages_beyond(stat: &Stat) -> bool {
    stat.st_blocks as u64 * 512 > pages_end(stat.st_size as u64)
}
