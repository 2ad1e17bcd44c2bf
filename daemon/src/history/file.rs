//! The file, `history.jsonl`: lines are added until it is too long or holds too many, then it is written anew.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

use super::{
    entries::{Change, Entries},
    line::{Line, MAX_LINE},
};
use crate::error::{DaemonError, Result};

/// The file's name, and that of the next one until it is complete.
const NAME: &str = "history.jsonl";
const NEXT: &str = "history.jsonl.new";

/// Root writes it; its group may read it.
const MODE: u32 = 0o640;

/// Of the directory.
const DIR_MODE: u32 = 0o750;

/// How long a file that cannot be written is left alone; also how often that is logged.
const PATIENCE: Duration = Duration::from_secs(60);

/// The file, as far as it can be used.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It holds all that is in memory, in so many bytes.
    Open(File, u64),
    /// It lacks something, and is written anew from this moment on.
    Behind(Instant),
    /// It could not be read, and so is not touched: what is in it is not in memory.
    Unreadable,
}

impl Disk {
    fn new(dir: &Path) -> Self {
        Self { path: dir.join(NAME), state: State::Unreadable }
    }

    /// Opens the file in `dir`, and takes what is in it into `entries`. What is wrong is logged.
    pub(super) fn load(dir: &Path, entries: &mut Entries) -> Self {
        let mut disk = Self::new(dir);
        let skipped = match disk.read(entries) {
            Ok(skipped) => skipped,
            Err(error) => {
                tracing::error!("{error}; the history is kept in memory only, until memcharged is restarted");
                return disk;
            }
        };
        if skipped > 0 {
            let path = disk.path.display();
            tracing::warn!("{skipped} lines of {path} are torn or of another program, and were skipped");
        }
        match disk.open() {
            Ok((file, size)) if size <= entries.max_bytes() && !entries.dropped() => {
                disk.state = State::Open(file, size);
            }
            Ok(_) => disk.rewrite(entries),
            Err(error) => disk.fail(&error),
        }
        disk
    }

    /// Writes a change of `entries`. What cannot be written is logged, and written later.
    pub(super) fn write(&mut self, change: &Change, entries: &mut Entries) {
        match &mut self.state {
            State::Unreadable => {}
            State::Behind(again) => {
                if *change != Change::Unchanged && Instant::now() >= *again {
                    self.rewrite(entries);
                }
            }
            State::Open(file, size) => match change {
                Change::Unchanged => {}
                Change::Rewrite => self.rewrite(entries),
                Change::Line(line) => match append(file, size, line, entries.max_bytes()) {
                    Ok(true) => {}
                    Ok(false) => {
                        entries.shrink();
                        self.rewrite(entries);
                    }
                    Err(error) => {
                        let error = DaemonError::io("write", self.path.display().to_string())(error);
                        self.fail(&error);
                    }
                },
            },
        }
    }

    /// Writes what could not be written before.
    pub(super) fn end(&mut self, entries: &mut Entries) {
        if matches!(self.state, State::Behind(_)) {
            self.rewrite(entries);
        }
    }

    /// Returns how many lines were skipped.
    fn read(&self, entries: &mut Entries) -> Result<u64> {
        let shown = self.path.display().to_string();
        // A pipe or a device of this name must neither hang nor be written to.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            opened => opened.map_err(DaemonError::io("open", &shown))?,
        };
        if !file.metadata().map_err(DaemonError::io("read", &shown))?.is_file() {
            return Err(DaemonError::io("read", shown)(io::Error::other("it is not a regular file")));
        }
        replay(BufReader::new(file), entries).map_err(DaemonError::io("read", shown))
    }

    /// Opens the file for adding lines, and makes it if it is missing.
    fn open(&self) -> Result<(File, u64)> {
        if let Some(dir) = self.path.parent() {
            let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
            made.map_err(DaemonError::io("make", dir.display().to_string()))?;
        }
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(MODE)
            .custom_flags(flags)
            .open(&self.path)
            .and_then(|mut file| {
                // It may be an older one, of another mode.
                file.set_permissions(Permissions::from_mode(MODE))?;
                end_last_line(&mut file)?;
                let size = file.metadata()?.len();
                Ok((file, size))
            })
            .map_err(DaemonError::io("open", self.path.display().to_string()))
    }

    /// Replaces the file by one with all that is in memory.
    fn rewrite(&mut self, entries: &Entries) {
        let text: io::Result<Vec<Vec<u8>>> = entries.lines().map(|line| line.text()).collect();
        let written = text
            .and_then(|text| {
                // The directory may be what was missing.
                if let Some(dir) = self.path.parent() {
                    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
                }
                replace(&self.path, &text.concat())
            })
            .map_err(DaemonError::io("write", self.path.display().to_string()));
        let was_behind = matches!(self.state, State::Behind(_));
        match written.and_then(|()| self.open()) {
            Ok((file, size)) => self.state = State::Open(file, size),
            Err(error) => return self.fail(&error),
        }
        if was_behind {
            tracing::info!("{} is written again, and is complete", self.path.display());
        }
    }

    fn fail(&mut self, error: &DaemonError) {
        tracing::error!("{error}; the history goes on in memory, and is written when that works again");
        self.state = State::Behind(Instant::now() + PATIENCE);
    }
}

/// Adds a line, unless the file would get too long.
fn append(file: &mut File, size: &mut u64, line: &Line, max: u64) -> io::Result<bool> {
    let text = line.text()?;
    if *size + text.len() as u64 > max {
        return Ok(false);
    }
    file.write_all(&text)?;
    *size += text.len() as u64;
    Ok(true)
}

/// Writes the next file, and gives it its name. Where that fails the old one stays.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let next = path.with_file_name(NEXT);
    // Made anew: what has this name may be half a file, a pipe that hangs, or a link to somewhere else.
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&next)
        .and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&next, path));
    if written.is_err() {
        // The first error is the one that counts. A full disk needs the room.
        drop(fs::remove_file(&next));
    }
    written
}

/// Ends the last line where a daemon was killed while it wrote it: the next one must not continue it.
fn end_last_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

/// Takes in all lines; returns how many were skipped.
fn replay(mut file: impl BufRead, entries: &mut Entries) -> io::Result<u64> {
    let (mut skipped, mut line, mut too_long) = (0, Vec::new(), false);
    loop {
        line.clear();
        let read = file.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(skipped);
        }
        let continued = too_long;
        // Without an end it was cut at the bound (or is the last).
        too_long = read == MAX_LINE && !line.ends_with(b"\n");
        if continued {
            continue;
        }
        match Line::parse(&line) {
            Some(line) if !too_long => entries.replay(line),
            _ => skipped += 1,
        }
    }
}

#[cfg(test)]
mod tests;
