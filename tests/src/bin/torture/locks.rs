//! Counters that several processes increase, each under another kind of lock: two that count at once lose a number.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use memcharge_tests::random::Random;
use rustix::{
    fs::{CWD, FlockOperation, Mode, OFlags},
    io::Errno,
};
use serde_json::{Value, json};

use crate::{
    calls::Calls,
    worker::{Place, Work},
};

/// The counters, named by what guards them.
pub(crate) const COUNTERS: [&str; 3] = ["by-lock-file", "by-flock", "by-fcntl"];

/// How long it waits before it asks for a lock again.
const AGAIN: Duration = Duration::from_millis(1);

/// The longest that a lock is held beside what the calls take, in milliseconds.
const HOLD: u64 = 20;

/// Three counters, each open.
#[derive(Debug)]
pub(crate) struct Locks {
    dir: PathBuf,
    counters: Vec<(PathBuf, OwnedFd)>,
    added: BTreeMap<&'static str, u64>,
}

/// The lock file of the first counter.
pub(crate) fn lock_file(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// Reads a counter.
pub(crate) fn count(calls: &mut Calls, path: &Path, file: impl AsFd) -> Result<u64> {
    let mut bytes = [0; 8];
    let done = calls.ok("pread", path, || rustix::io::pread(&file, &mut bytes[..], 0))?;
    calls.same("count of pread", path, bytes.len(), done)?;
    Ok(u64::from_le_bytes(bytes))
}

impl Locks {
    /// Opens the counters, which are there.
    pub(crate) fn new(place: &Place, calls: &mut Calls) -> Result<Self> {
        let mut counters = Vec::new();
        for name in COUNTERS {
            // One descriptor for good: closing any of a file gives up a process' fcntl locks on it.
            let path = place.dir.join(name);
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let file = calls.ok("open", &path, || rustix::fs::openat(CWD, &path, flags, Mode::empty()))?;
            counters.push((path, file));
        }
        let added = COUNTERS.map(|name| (name, 0)).into();
        Ok(Self { dir: place.dir.clone(), counters, added })
    }

    fn add(&mut self, calls: &mut Calls, random: &mut Random, which: usize) -> Result<()> {
        let (path, file) = &self.counters[which];
        let before = count(calls, path, file)?;
        std::thread::sleep(Duration::from_millis(random.below(HOLD)));
        let after = (before + 1).to_le_bytes();
        let done = calls.ok("pwrite", path, || rustix::io::pwrite(file, &after, 0))?;
        calls.same("count of pwrite", path, after.len(), done)?;
        let found = count(calls, path, file)?;
        calls.same("counter that is locked", path, before + 1, found)?;
        *self.added.entry(COUNTERS[which]).or_default() += 1;
        Ok(())
    }

    fn by_lock_file(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let path = lock_file(&self.dir);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let call = "open(O_CREAT | O_EXCL) of a lock file";
        let lock = wait(calls, call, &path, Errno::EXIST, || {
            rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(0o644))
        })?;
        self.add(calls, random, 0)?;
        drop(lock);
        calls.ok("unlink of the lock file", &path, || rustix::fs::unlink(&path))
    }

    fn by_call(&mut self, calls: &mut Calls, random: &mut Random, which: usize) -> Result<()> {
        let call = if which == 1 { "flock" } else { "fcntl(F_SETLK)" };
        let act = |file: &OwnedFd, operation| match which {
            1 => rustix::fs::flock(file, operation),
            _ => rustix::fs::fcntl_lock(file, operation),
        };
        let (path, file) = &self.counters[which];
        wait(calls, call, path, Errno::AGAIN, || act(file, FlockOperation::NonBlockingLockExclusive))?;
        self.add(calls, random, which)?;
        let (path, file) = &self.counters[which];
        calls.ok(call, path, || act(file, FlockOperation::Unlock))
    }
}

/// Asks until it gets a lock; whoever has it makes the call say `taken`.
fn wait<T>(
    calls: &mut Calls,
    call: &'static str,
    path: &Path,
    taken: Errno,
    act: impl Fn() -> rustix::io::Result<T>,
) -> Result<T> {
    loop {
        match calls.time(call, &act) {
            Ok(lock) => return Ok(lock),
            Err(e) if e == taken => std::thread::sleep(AGAIN),
            Err(e) => return Err(calls.wrong(call, path, format!("success or {taken}"), e)),
        }
    }
}

impl Work for Locks {
    fn step(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        match random.below(3) {
            0 => self.by_lock_file(calls, random),
            which => self.by_call(calls, random, which as usize),
        }
    }

    fn end(&mut self, _calls: &mut Calls) -> Result<Value> {
        Ok(json!(self.added))
    }
}

/// Says which locks this process would get on a file, as one line of JSON.
pub(crate) fn tell(path: &Path) -> Result<()> {
    let file = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let gets = |result: rustix::io::Result<()>| match result {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(e) => Err(e),
    };
    let flock = gets(rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive))?;
    let fcntl = gets(rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive))?;
    println!("{}", json!({ "flock": flock, "fcntl": fcntl }));
    Ok(())
}
