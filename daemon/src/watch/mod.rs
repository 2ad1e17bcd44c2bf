//! Wake-ups when files of cgroups change.
//!
//! One inotify instance serves the whole daemon: a user may have 128 of them, and root shares them with all other
//! services. A wake-up carries no data, and the kernel merges them. Whoever is woken reads the files again and
//! decides on what has changed.
//!
//! What gives a wake-up, as seen on Linux 6.12: events in `memory.events`, `memory.events.local` and `cgroup.events`;
//! and every write by anybody to a limit, to `cgroup.freeze`, to `cgroup.subtree_control` or to `cgroup.procs`, a
//! first time before the kernel has acted on it if the writer truncates, and again after.
//!
//! What does not: **the removal of a cgroup gives no event on its files, nor on its directory**, be it held or not.
//! It gives one on the parent's directory, as does making it anew ([`Watcher::add_directory`]). And a controller that
//! is disabled and enabled again makes new files: **the old watches stay silent for good**. Both writes show in the
//! parent's `cgroup.subtree_control`, so watch that, and add the watches again after it has changed.

mod waiters;

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
    task::{self, AbortHandle},
};

use self::waiters::{Waiter, Waiters};
use crate::error::{DaemonError, Result};

/// For files. Opening, reading and closing are left out: the readers' own would wake them for ever.
const FILE: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::MASK_ADD);

/// For directories: who comes and goes in them.
const DIRECTORY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::MASK_ADD);

/// What is read at once, in bytes: some fifteen events with the longest names.
const BUFFER: usize = 4096;

/// Events that are handled before other tasks get their turn: tenants can cause any number of them.
const BATCH: usize = 256;

/// The daemon's inotify instance. It is closed with the last clone, and so are its watches.
#[derive(Debug, Clone)]
pub(crate) struct Watcher {
    running: Arc<Running>,
}

/// Files that are watched until this is dropped.
#[derive(Debug)]
#[must_use = "nothing is watched any more once this is dropped"]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    waiters: Vec<Waiter>,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    reader: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    inotify: OwnedFd,
    waiters: Mutex<Waiters>,
}

impl Watcher {
    /// Makes the instance and starts the task that reads it.
    pub(crate) fn start() -> Result<Self> {
        let make = || {
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let fd = inotify.try_clone()?;
            // SAFETY: an `OwnedFd` is open and stays the same as long as it lives, and nobody takes it out again.
            let events = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
            Ok::<_, io::Error>((inotify, events))
        };
        let (inotify, events) = make().map_err(DaemonError::io("make", "an inotify instance"))?;
        let shared = Arc::new(Shared { inotify, waiters: Mutex::default() });
        let reader = task::spawn(read(events, Arc::clone(&shared))).abort_handle();
        Ok(Self { running: Arc::new(Running { shared, reader }) })
    }

    /// Wakes `wake` whenever one of these files of `cgroup` changes, until the result is dropped. Changes before the
    /// call are not told, so read the files after it. One task may wait on `wake`; several watches may share it.
    pub(crate) fn add(&self, cgroup: impl AsFd, files: &[&str], wake: &Arc<Notify>) -> Result<Watch> {
        let mut watch = self.watch_nothing();
        for file in files {
            watch.add(cgroup.as_fd().as_raw_fd(), &format!("/{file}"), FILE, wake)?;
        }
        Ok(watch)
    }

    /// Wakes `wake` whenever something is made or removed in the directory `dir`: this tells of a cgroup that goes or
    /// comes back. Until the result is dropped.
    pub(crate) fn add_directory(&self, dir: impl AsFd, wake: &Arc<Notify>) -> Result<Watch> {
        let mut watch = self.watch_nothing();
        watch.add(dir.as_fd().as_raw_fd(), "", DIRECTORY, wake)?;
        Ok(watch)
    }

    fn watch_nothing(&self) -> Watch {
        Watch { shared: Arc::clone(&self.running.shared), waiters: Vec::new() }
    }
}

impl Watch {
    /// The file is found below the directory that is held, so that a cgroup which is made anew is not taken for it.
    fn add(&mut self, dir: i32, below: &str, mask: WatchFlags, wake: &Arc<Notify>) -> Result<()> {
        let path = format!("/proc/self/fd/{dir}{below}");
        // Held meanwhile: the event of this very watch may come before its waiter is known.
        let mut waiters = self.shared.lock();
        let number =
            inotify::add_watch(&self.shared.inotify, &path, mask).map_err(DaemonError::io("watch", path))?;
        self.waiters.push(waiters.add(number, Arc::clone(wake)));
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiters = self.shared.lock();
        for waiter in self.waiters.drain(..) {
            if waiters.remove(waiter)
                && let Err(e) = inotify::remove_watch(&self.shared.inotify, waiter.number)
            {
                // The file is gone, and IN_IGNORED is on its way.
                tracing::debug!("cannot remove an inotify watch: {e}");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiters> {
        // Nothing is left half done in there.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what events there are, up to [`BATCH`]. `true`: all of them.
    fn drain(&self) -> Result<bool, Errno> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        for _ in 0..BATCH {
            match reader.next() {
                Ok(event) => self.tell(event.wd(), event.events()),
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        // The rest of the buffer would be lost otherwise.
        while !reader.is_buffer_empty() {
            let event = reader.next()?;
            self.tell(event.wd(), event.events());
        }
        Ok(false)
    }

    fn tell(&self, number: i32, what: ReadFlags) {
        let mut waiters = self.lock();
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            waiters.wake_all();
        } else {
            waiters.wake(number);
        }
        if what.contains(ReadFlags::IGNORED) {
            waiters.forget(number);
        }
    }
}

/// The task. It ends with the last [`Watcher`].
async fn read(events: AsyncFd<OwnedFd>, shared: Arc<Shared>) {
    loop {
        let read = match events.readable().await {
            Ok(mut ready) => {
                let drained = shared.drain();
                // Not cleared, `readable` returns at once the next time.
                if matches!(drained, Ok(true)) {
                    ready.clear_ready();
                }
                drained.map_err(io::Error::from)
            }
            Err(e) => Err(e),
        };
        if let Err(e) = read {
            tracing::error!("cannot read inotify events any more, so changes of cgroups go unnoticed: {e}");
            shared.lock().wake_all();
            return;
        }
        task::yield_now().await;
    }
}

#[cfg(test)]
mod tests;
