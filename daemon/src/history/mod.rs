//! The record of arbitrations: bounded, in memory and in a file, so that it outlives the daemon.
//!
//! One thread owns both, since a disk can stall and the daemon's loop must not. What it was given is written before it
//! answers. Nothing is synced for each line: the record survives the daemon's end at any instant, not a power cut.
//!
//! The history is the truth: an event is in it once. The journal and the bus tell it after that, and at most once. A
//! daemon that ends in between leaves an event that nobody is told of but who asks for the history; to tell it again
//! would tell others twice. The same holds for a victim that turns out to live: the history is corrected, what was told
//! is not.

mod entries;
mod entry;
mod file;
mod journal;
mod line;
mod owner;
mod throttle;
mod wording;

use std::{path::Path, thread};

use memcharge_config::HistorySettings;
use memcharge_policy::outcome::{Event, EventId, Victim};
use tokio::sync::{mpsc, oneshot};

use self::{entries::Entries, owner::Owner};
pub(crate) use self::{
    entries::{Added, Query},
    journal::Journal,
};
use crate::error::{DaemonError, Result};

/// How many messages may wait for the disk. Who has one more waits.
const WAITING: usize = 64;

/// What the owner is asked, and where the answer goes. Who does not wait for it any more gets none.
#[derive(Debug)]
enum Message {
    Add(Box<Event>, oneshot::Sender<Added>),
    Repeats(EventId, u64),
    Intend(EventId, Victim, oneshot::Sender<Result<()>>),
    Spared(EventId),
    Bound(HistorySettings),
    Query(Query, oneshot::Sender<Vec<Event>>),
    Get(String, oneshot::Sender<Result<Event>>),
    Last(String, oneshot::Sender<Option<Event>>),
    End(oneshot::Sender<()>),
}

/// The history as the rest of the daemon sees it. The thread ends with the last handle, or with
/// [`HistoryHandle::end`].
#[derive(Debug, Clone)]
pub(crate) struct HistoryHandle {
    owner: mpsc::Sender<Message>,
}

/// Starts the history that is kept in the directory `dir`, which is made if it is missing. What is wrong with the file
/// is logged, and the history goes on in memory.
pub(crate) fn start(dir: &Path, bounds: HistorySettings) -> Result<HistoryHandle> {
    let (owner, inbox) = mpsc::channel(WAITING);
    let dir = dir.to_owned();
    thread::Builder::new()
        .name("history".to_owned())
        .spawn(move || Owner::load(&dir, Entries::new(bounds)).run(inbox))
        .map_err(DaemonError::io("start", "the history's thread"))?;
    Ok(HistoryHandle { owner })
}

impl HistoryHandle {
    /// Records an event, and returns when the kernel has it. One that is there already is not added twice, but its
    /// repeats are brought up to date. Where the file cannot be written the event is in memory only.
    pub(crate) async fn add(&self, event: Event) -> Result<Added> {
        self.ask(|reply| Message::Add(Box::new(event), reply)).await
    }

    /// Brings an event's repeats up to date; they never go down. Of an event that is not there nothing is kept.
    pub(crate) async fn repeats(&self, id: EventId, repeats: u64) {
        // At the daemon's end the store keeps the number, and tells the next daemon.
        drop(self.owner.send(Message::Repeats(id, repeats)).await);
    }

    /// Writes down, before a kill, what is about to happen, so that it is known even if the daemon does not live to
    /// tell. Where the file cannot be written the intent is in memory only. The error is that the daemon stops, or that
    /// the event is recorded already, so that nobody needs the kill any more.
    pub(crate) async fn intend_kill(&self, id: EventId, victim: Victim) -> Result<()> {
        self.ask(|reply| Message::Intend(id, victim, reply)).await?
    }

    /// Withdraws what [`Self::intend_kill`] has written: no signal was sent, and none will be. What is recorded after this
    /// returns does not name the victim, and an event that was recorded before does not any more.
    pub(crate) async fn spared(&self, id: EventId) {
        // At the daemon's end the intent stays, and the next daemon says that it does not know.
        drop(self.owner.send(Message::Spared(id)).await);
    }

    /// Keeps other bounds from now on: what is too much is dropped at once.
    pub(crate) async fn bound(&self, bounds: HistorySettings) {
        // At the daemon's end there is nothing left to bound.
        drop(self.owner.send(Message::Bound(bounds)).await);
    }

    /// The newest events that match, the newest last.
    pub(crate) async fn query(&self, query: Query) -> Result<Vec<Event>> {
        self.ask(|reply| Message::Query(query, reply)).await
    }

    /// The event whose id begins with these hex digits.
    pub(crate) async fn get(&self, prefix: &str) -> Result<Event> {
        let prefix = prefix.to_owned();
        self.ask(|reply| Message::Get(prefix, reply)).await?
    }

    /// The newest event of a mount.
    pub(crate) async fn last(&self, mount: &str) -> Result<Option<Event>> {
        let mount = mount.to_owned();
        self.ask(|reply| Message::Last(mount, reply)).await
    }

    /// Ends the history; returns when all that came before is written. Later calls are errors.
    pub(crate) async fn end(&self) {
        // It has ended already: as good.
        drop(self.ask(Message::End).await);
    }

    /// A history that is not there.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Self { owner: mpsc::channel(1).0 }
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.owner.send(message(reply)).await.map_err(|_| DaemonError::Stopping)?;
        answer.await.map_err(|_| DaemonError::Stopping)
    }
}

#[cfg(test)]
mod tests;
