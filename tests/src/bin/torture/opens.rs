//! Files that several processes open and close over and over, a file that has no name any more, and a mapping that is
//! held all the time.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::Result;
use memcharge_tests::random::Random;
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::{Value, json};

use crate::{
    board::Board,
    calls::Calls,
    mapping::Mapping,
    worker::{Place, Work},
};

/// Files that all open.
pub(crate) const FILES: u64 = 16;

/// What each of them holds, in bytes.
const LENGTH: usize = 5000;

/// The same for the file without a name.
const UNNAMED: usize = 20_000;

/// So many files stay open for a while.
const KEPT: usize = 8;

/// One of the files that all open.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("same-{number}"))
}

/// What it holds.
pub(crate) fn content(number: u64) -> Vec<u8> {
    let mut content = vec![0; LENGTH];
    Random::new(number).fill(&mut content);
    content
}

/// One who opens.
#[derive(Debug)]
pub(crate) struct Opens {
    dir: PathBuf,
    kept: Vec<(u64, OwnedFd)>,
    unnamed_path: PathBuf,
    unnamed: OwnedFd,
    unnamed_content: Vec<u8>,
    board: Board,
}

/// Makes a file, fills it and takes its name away.
fn make_unnamed(calls: &mut Calls, path: &Path, content: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = calls.ok("open(O_CREAT | O_EXCL)", path, || {
        rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o644))
    })?;
    let done = calls.ok("pwrite", path, || rustix::io::pwrite(&file, content, 0))?;
    calls.same("count of pwrite", path, content.len(), done)?;
    calls.ok("unlink", path, || rustix::fs::unlink(path))?;
    Ok(file)
}

impl Opens {
    /// The files and the board are there.
    pub(crate) fn new(place: &Place, calls: &mut Calls) -> Result<Self> {
        let unnamed_path = place.dir.join(format!("unnamed-{}", place.index));
        let unnamed_content = vec![0; UNNAMED];
        let unnamed = make_unnamed(calls, &unnamed_path, &unnamed_content)?;
        let board = Board::new(&place.dir, place.index, place.of, calls)?;
        Ok(Self { dir: place.dir.clone(), kept: Vec::new(), unnamed_path, unnamed, unnamed_content, board })
    }

    fn open(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let number = random.below(FILES);
        let place = path(&self.dir, number);
        let (call, flags) = match random.below(2) {
            0 => ("open for reading", OFlags::RDONLY),
            _ => ("open for both", OFlags::RDWR),
        };
        let file = calls
            .ok(call, &place, || rustix::fs::openat(CWD, &place, flags | OFlags::CLOEXEC, Mode::empty()))?;
        let kept = match random.below(4) {
            0 => Some(file),
            _ => {
                read(calls, &place, &file, &content(number))?;
                calls.time("close", || drop(file));
                None
            }
        };
        self.kept.extend(kept.map(|file| (number, file)));
        if self.kept.len() > KEPT {
            let (number, file) = self.kept.swap_remove(random.below(KEPT as u64) as usize);
            read(calls, &path(&self.dir, number), &file, &content(number))?;
            calls.time("close", || drop(file));
        }
        Ok(())
    }

    fn unnamed(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let path = &self.unnamed_path;
        match random.below(8) {
            0 => self.unnamed = make_unnamed(calls, path, &self.unnamed_content)?,
            1..4 => {
                let at = random.below(UNNAMED as u64) as usize;
                let length = (1 + random.below(4096) as usize).min(UNNAMED - at);
                random.fill(&mut self.unnamed_content[at..at + length]);
                let data = &self.unnamed_content[at..at + length];
                let done = calls.ok("pwrite", path, || rustix::io::pwrite(&self.unnamed, data, at as u64))?;
                calls.same("count of pwrite", path, length, done)?;
            }
            4 => {
                let mapping = calls.ok("mmap", path, || Mapping::new(&self.unnamed, UNNAMED, true))?;
                let mut found = vec![0; UNNAMED];
                calls.time("load through a mapping", || mapping.load(0, &mut found));
                calls.same_bytes("load through a mapping", path, 0, &self.unnamed_content, &found)?;
            }
            _ => {}
        }
        let stat = calls.ok("fstat", path, || rustix::fs::fstat(&self.unnamed))?;
        calls.same("number of names", path, 0, stat.st_nlink)?;
        read(calls, path, &self.unnamed, &self.unnamed_content)
    }
}

/// The file holds this, and nothing more.
fn read(calls: &mut Calls, path: &Path, file: &OwnedFd, content: &[u8]) -> Result<()> {
    let mut found = vec![0; content.len() + 1];
    let done = calls.ok("pread", path, || rustix::io::pread(file, &mut found[..], 0))?;
    calls.same_bytes("pread", path, 0, content, &found[..done])
}

impl Work for Opens {
    fn step(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        match random.below(8) {
            0..5 => self.open(calls, random)?,
            5 => self.unnamed(calls, random)?,
            6 => self.board.store(calls)?,
            _ => self.board.check(calls)?,
        }
        Ok(())
    }

    fn end(&mut self, calls: &mut Calls) -> Result<Value> {
        for (number, file) in std::mem::take(&mut self.kept) {
            read(calls, &path(&self.dir, number), &file, &content(number))?;
        }
        read(calls, &self.unnamed_path, &self.unnamed, &self.unnamed_content)?;
        self.board.check(calls)?;
        let (stored, seen) = self.board.sum();
        Ok(json!({ "stored": stored, "seen": seen }))
    }
}
