//! Arbitrations in the log: entries with fields and a `MESSAGE_ID` in the journal, plain lines elsewhere.
//!
//! `tracing-journald` puts a prefix before every field, so it cannot set `MESSAGE_ID`; these entries are sent here.

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use memcharge_policy::outcome::{Event, EventId, Victim};
use tracing::Level;

use super::{
    entry::{Entry, Kind},
    throttle::Throttle,
};
use crate::error::{DaemonError, Result};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal takes an entry within this time, or it counts as suppressed: the daemon must not hang with it.
const SEND_LIMIT: Duration = Duration::from_millis(100);

/// Tells the log what happens, but not all of what a tenant can provoke.
#[derive(Debug)]
pub(crate) struct Journal {
    /// `None`: the log is not the journal.
    socket: Option<(UnixDatagram, PathBuf)>,
    throttle: Mutex<Throttle>,
}

impl Journal {
    /// `to_journal`: whether the daemon's log is the journal.
    pub(crate) fn new(to_journal: bool) -> Result<Self> {
        if to_journal { Self::to(Path::new(SOCKET)) } else { Ok(Self::with(None)) }
    }

    /// Tells an arbitration. Too many of one mount are counted, and the next one that is told says how many; one for
    /// which a process died is always told.
    pub(crate) fn event(&self, now: Instant, event: &Event) {
        self.tell(now, Entry::of_event(event));
    }

    /// Tells a kill, when it happens. It is always told.
    pub(crate) fn kill(&self, now: Instant, id: EventId, mount: &str, target: &str, victim: &Victim) {
        self.tell(now, Entry::of_kill(id, mount, target, victim));
    }

    fn to(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(SEND_LIMIT))?;
            Ok(socket)
        });
        let socket = socket.map_err(DaemonError::io("make", "a socket for the journal"))?;
        Ok(Self::with(Some((socket, path.to_owned()))))
    }

    fn with(socket: Option<(UnixDatagram, PathBuf)>) -> Self {
        Self { socket, throttle: Mutex::default() }
    }

    fn tell(&self, now: Instant, entry: Entry) {
        // A suppressed entry is one that would have gone out: the level comes first.
        if !is_wanted(entry.kind) {
            return;
        }
        let Some(suppressed) = self.throttle(|throttle| throttle.admit(&entry.mount, now, entry.must)) else {
            return;
        };
        let entry = entry.and_suppressed(suppressed);
        if self.send(&entry).is_err() {
            self.throttle(|throttle| throttle.lost(&entry.mount, now, suppressed));
        }
    }

    fn send(&self, entry: &Entry) -> io::Result<()> {
        match &self.socket {
            Some((socket, path)) => socket.send_to(&entry.encode(), path).map(drop),
            None => {
                let Entry { id, message, .. } = entry;
                match entry.kind {
                    Kind::Refused => tracing::warn!(event = %id, "{message}"),
                    Kind::Granted | Kind::GrantedAfterKill | Kind::Killed => {
                        tracing::info!(event = %id, "{message}");
                    }
                }
                Ok(())
            }
        }
    }

    fn throttle<T>(&self, act: impl FnOnce(&mut Throttle) -> T) -> T {
        // Whoever panicked with the lock has left counts that are as good as any.
        act(&mut self.throttle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether the log level lets an entry through.
fn is_wanted(kind: Kind) -> bool {
    match kind {
        Kind::Refused => tracing::enabled!(Level::WARN),
        Kind::Granted | Kind::GrantedAfterKill | Kind::Killed => tracing::enabled!(Level::INFO),
    }
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::{Registry, filter::Targets, layer::SubscriberExt};

    use super::*;
    use crate::history::{
        entry::tests::decode,
        tests::{event, victim},
    };

    /// A journal, and what it hears at this log level.
    fn heard(level: LevelFilter, speak: impl FnOnce(&Journal)) -> Vec<Vec<(String, String)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let ear = UnixDatagram::bind(&path).unwrap();
        ear.set_nonblocking(true).unwrap();
        let filter = Targets::new().with_target("memcharged", level);
        let subscriber = Registry::default().with(filter);
        tracing::subscriber::with_default(subscriber, || speak(&Journal::to(&path).unwrap()));
        let mut buffer = vec![0; 1 << 16];
        std::iter::from_fn(|| ear.recv(&mut buffer).ok().map(|length| decode(&buffer[..length]))).collect()
    }

    #[test]
    fn a_flood_is_cut_and_a_kill_is_not() {
        // A socket of the kernel's default takes ten datagrams and a few more.
        let entries = heard(LevelFilter::INFO, |journal| {
            let now = Instant::now();
            for _ in 0..8 {
                journal.event(now, &event(1));
            }
            journal.kill(now, EventId(1), "m", "t.slice", &victim(8));
        });
        assert_eq!(entries.len(), 9);
        let field =
            |name: &str| entries[8].iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        assert_eq!(field("MESSAGE_ID"), Some(Kind::Killed.message_id()));
        assert_eq!(field("MEMCHARGE_VICTIM_PID"), Some("8"));
    }

    #[test]
    fn the_log_level_counts() {
        let granted = Event { outcome: memcharge_policy::outcome::Outcome::Granted, ..event(1) };
        let speak = |journal: &Journal| {
            journal.event(Instant::now(), &granted);
            journal.event(Instant::now(), &event(2));
        };
        for (level, count) in [(LevelFilter::INFO, 2), (LevelFilter::WARN, 1), (LevelFilter::ERROR, 0)] {
            assert_eq!(heard(level, speak).len(), count, "{level}");
        }
    }

    #[test]
    fn what_the_journal_does_not_take_is_told_later() {
        let entries = heard(LevelFilter::INFO, |journal| {
            let (socket, path) = journal.socket.as_ref().unwrap();
            let nowhere = Journal::with(Some((socket.try_clone().unwrap(), "/nonexistent/socket".into())));
            nowhere.event(Instant::now(), &event(1));
            nowhere.event(Instant::now(), &event(2));
            let back = Journal {
                socket: Some((socket.try_clone().unwrap(), path.clone())),
                throttle: nowhere.throttle,
            };
            back.event(Instant::now(), &event(3));
        });
        assert_eq!(entries.len(), 1);
        assert!(
            entries[0].contains(&("MEMCHARGE_SUPPRESSED".to_owned(), "2".to_owned())),
            "{:?}",
            entries[0]
        );
    }
}
