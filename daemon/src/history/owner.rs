//! The thread that owns the history.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use memcharge_policy::outcome::{EventId, Victim};
use tokio::sync::{mpsc::Receiver, oneshot::Sender};

use super::{
    Message,
    entries::{Change, Entries},
    file::Disk,
    line::Intent,
};
use crate::error::Result;

/// A kill whose end nobody has told for so long stays untold: its store is gone, too.
const UNFINISHED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The history in memory and on disk.
#[derive(Debug)]
pub(super) struct Owner {
    entries: Entries,
    disk: Disk,
}

impl Owner {
    /// Reads the file in `dir`, and says which kills of an earlier daemon have no end in it.
    pub(super) fn load(dir: &Path, mut entries: Entries) -> Self {
        let disk = Disk::load(dir, &mut entries);
        entries.forget_intents(now_usec().saturating_sub(micros(UNFINISHED)));
        let kills: Vec<_> = entries.intents().map(describe).collect();
        if !kills.is_empty() {
            tracing::warn!(
                "unfinished kills: memcharged ended before it could tell whether it killed {}",
                kills.join(", ")
            );
        }
        Self { entries, disk }
    }

    /// The events of kills of which nobody has told the end yet.
    #[cfg(test)]
    pub(super) fn unfinished(&self) -> Vec<EventId> {
        self.entries.intents().map(|kill| kill.id).collect()
    }

    /// Answers until the last handle is gone, or the end is asked for.
    pub(super) fn run(mut self, mut inbox: Receiver<Message>) {
        let mut end = None;
        while let Some(message) = inbox.blocking_recv() {
            end = self.answer(message);
            if end.is_some() {
                break;
            }
        }
        self.disk.end(&mut self.entries);
        if let Some(done) = end {
            done.send(()).ok();
        }
    }

    /// Returns who waits for the end, if it was asked for. Who has asked may have gone away: then the answer is dropped.
    fn answer(&mut self, message: Message) -> Option<Sender<()>> {
        match message {
            Message::Add(event, reply) => {
                let (added, change) = self.entries.add(*event);
                self.write(&change);
                drop(reply.send(added));
            }
            Message::Repeats(id, repeats) => {
                let change = self.entries.repeats(id, repeats);
                self.write(&change);
            }
            Message::Intend(id, victim, reply) => drop(reply.send(self.intend(id, victim))),
            Message::Spared(id) => {
                let change = self.entries.spared(id);
                self.write(&change);
            }
            Message::Bound(bounds) => {
                let change = self.entries.bound(bounds);
                self.write(&change);
            }
            Message::Query(query, reply) => drop(reply.send(self.entries.query(&query))),
            Message::Get(prefix, reply) => drop(reply.send(self.entries.get(&prefix))),
            Message::Last(mount, reply) => drop(reply.send(self.entries.last(&mount))),
            Message::End(done) => return Some(done),
        }
        None
    }

    fn intend(&mut self, id: EventId, victim: Victim) -> Result<()> {
        let change = self.entries.intend(Intent { id, victim, realtime_usec: now_usec() })?;
        self.write(&change);
        Ok(())
    }

    fn write(&mut self, change: &Change) {
        self.disk.write(change, &mut self.entries);
    }
}

fn describe(kill: &Intent) -> String {
    let Intent { id, victim, .. } = kill;
    let comm = super::wording::clean(&victim.comm);
    format!("{comm} (pid {}) of {} for the event {id}", victim.pid, super::wording::clean(&victim.cgroup))
}

/// The time in microseconds since 1970; a clock before that is 1970.
fn now_usec() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// At most 2^64 - 1, in half a million years.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
