//! One process: steps at random until its time is over, then a last look.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use memcharge_tests::random::Random;
use serde_json::{Value, json};

use crate::{Torture, calls::Calls, files::Files, locks::Locks, log::Log, names::Names, opens::Opens};

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Data of a file of its own.
    Files,
    /// Names in a directory of its own.
    Names,
    /// Counts under locks, with others.
    Locks,
    /// Appends to a log, with others.
    Log,
    /// Opens the same files as others.
    Opens,
}

impl Kind {
    /// All kinds.
    pub(crate) const ALL: [Self; 5] = [Self::Files, Self::Names, Self::Locks, Self::Log, Self::Opens];

    /// Its directory, and the first part of a worker's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Names => "names",
            Self::Locks => "locks",
            Self::Log => "log",
            Self::Opens => "opens",
        }
    }
}

/// What a worker has for itself.
#[derive(Debug)]
pub(crate) struct Place {
    /// The directory of its kind.
    pub(crate) dir: PathBuf,
    /// Which of its kind it is.
    pub(crate) index: u64,
    /// How many of its kind there are.
    pub(crate) of: u64,
    /// How many bytes it may have in files.
    pub(crate) bytes: u64,
    /// Whether a page below a file's end can be missing.
    pub(crate) holes: bool,
    /// When it ends.
    pub(crate) time: Duration,
}

/// A worker at work.
pub(crate) trait Work {
    /// Does one thing.
    fn step(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()>;

    /// Looks at everything for the last time. Returns what the others' work is held against.
    fn end(&mut self, calls: &mut Calls) -> Result<Value>;
}

/// Runs one worker to its end; prints what it did as one line of JSON.
pub(crate) fn run(kind: Kind, index: u64, torture: &Torture) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let dir = torture.dir.as_ref().context("no directory")?.join(kind.name());
    let place = Place {
        dir,
        index,
        of: torture.writers,
        // Half for the files, a quarter for the log; the rest is small.
        bytes: (torture.mib << 20) / torture.writers / if kind == Kind::Files { 2 } else { 4 },
        holes: torture.sigbus,
        time: Duration::from_secs(torture.seconds),
    };
    let mut calls = Calls::new(format!("{}-{index}", kind.name()));
    let mut random = Random::new(torture.seed * 1000 + kind as u64 * 100 + index);
    let start = Instant::now();
    let calls = &mut calls;
    let mut work: Box<dyn Work> = match kind {
        Kind::Files => Box::new(Files::new(&place, calls)?),
        Kind::Names => Box::new(Names::new(&place, calls)?),
        Kind::Locks => Box::new(Locks::new(&place, calls)?),
        Kind::Log => Box::new(Log::new(&place, calls)?),
        Kind::Opens => Box::new(Opens::new(&place, calls)?),
    };
    while start.elapsed() < place.time {
        calls.next_step();
        work.step(calls, &mut random)?;
    }
    let own = work.end(calls)?;
    let (operations, longest, longest_call) = calls.sum();
    println!(
        "{}",
        json!({
            "operations": operations,
            "longest_us": longest.as_micros() as u64,
            "longest_call": longest_call,
            "own": own,
        })
    );
    Ok(())
}
