//! Replies that their clients may not have read. Pure.
//!
//! What a client does not read the bus keeps, on the account of who has written it: at 127 MiB it takes nothing more from
//! memcharged, for anybody. So clients that leave too much unread get no more replies until they have read.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// After so many bytes to one client the bus is asked how many it still keeps for it.
const LOOK: u64 = 256 << 10;

/// As much may wait for one client, in bytes.
const MAX_OF_ONE: u64 = 4 << 20;

/// As much may wait for all of them. Beyond that, those for whom more than [`LITTLE`] waits have to read first. The bus has
/// 2048 clients at most.
const MAX_OF_ALL: u64 = 32 << 20;

/// See [`MAX_OF_ALL`].
const LITTLE: u64 = 16 << 10;

/// So much is left for errors that say why there are no more replies.
const LAST_WORDS: u64 = 16 << 10;

/// A client that does not read is not looked at more often.
const PAUSE: Duration = Duration::from_millis(100);

/// So many clients are remembered before the bus is asked which of them are still there.
const MAX_CLIENTS: usize = 256;

/// What is known of one client.
#[derive(Debug, Default)]
struct Client {
    /// As many bytes wait for it, at most.
    unread: u64,
    /// So many of them were written since the last look began.
    since: u64,
    /// When that was.
    looked: Option<Instant>,
    /// Whether one is under way.
    is_looked_at: bool,
    /// Whether a call was not let in for it.
    is_stopped: bool,
    /// Whether it is looked at because there are many.
    is_doubted: bool,
}

/// What becomes of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is answered.
    Given,
    /// Its client is told that it has to read.
    Refused,
    /// Its client has been told.
    None,
}

/// All clients that have had replies.
#[derive(Debug)]
pub(super) struct Unread {
    clients: HashMap<String, Client>,
    total: u64,
    /// With more clients than this all of them are looked at.
    many: usize,
    /// Whether the bus does not tell.
    is_blind: bool,
}

impl Default for Unread {
    fn default() -> Self {
        Self { clients: HashMap::new(), total: 0, many: MAX_CLIENTS, is_blind: false }
    }
}

impl Unread {
    /// A reply goes out. Returns whether there is somebody to look at.
    pub(super) fn wrote(&mut self, client: &str, bytes: u64) -> bool {
        if self.is_blind {
            return false;
        }
        let is_new = !self.clients.contains_key(client);
        let known = self.clients.entry(client.to_owned()).or_default();
        known.unread += bytes;
        known.since += bytes;
        self.total += bytes;
        let is_due = known.since >= LOOK;
        is_new && self.doubt_many() || is_due
    }

    /// Whether a client gets a reply to what it calls.
    pub(super) fn answer(&mut self, client: &str) -> Answer {
        let most = if self.total < MAX_OF_ALL { MAX_OF_ONE } else { LITTLE };
        match self.clients.get_mut(client).filter(|client| client.unread >= most) {
            None => Answer::Given,
            Some(client) => {
                client.is_stopped = true;
                if client.unread < most + LAST_WORDS { Answer::Refused } else { Answer::None }
            }
        }
    }

    /// The next client to ask the bus about.
    pub(super) fn look(&mut self, now: Instant) -> Option<String> {
        let (name, client) = self.clients.iter_mut().find(|(_, client)| {
            let rested = client.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= PAUSE);
            let due = client.is_doubted || client.is_stopped && rested || client.since >= LOOK;
            due && !client.is_looked_at
        })?;
        client.looked = Some(now);
        (client.since, client.is_looked_at, client.is_stopped, client.is_doubted) = (0, true, false, false);
        Some(name.clone())
    }

    /// As many bytes wait for a client, the bus says. `None`: it is not there any more.
    pub(super) fn looked(&mut self, name: &str, waiting: Option<u64>) {
        let Some(client) = self.clients.get_mut(name) else { return };
        self.total -= client.unread;
        match waiting {
            // What was written meanwhile may have been counted, or not.
            Some(waiting) if waiting + client.since > 0 => {
                client.unread = waiting + client.since;
                client.is_looked_at = false;
                self.total += client.unread;
            }
            _ => drop(self.clients.remove(name)),
        }
    }

    /// The bus has not answered.
    pub(super) fn missed(&mut self, name: &str) {
        if let Some(client) = self.clients.get_mut(name) {
            client.is_looked_at = false;
        }
    }

    /// The bus does not tell: nobody is held back.
    pub(super) fn give_up(&mut self) {
        *self = Self { is_blind: true, ..Self::default() };
    }

    /// Whether there is none.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.total == 0
    }

    /// Has all clients looked at where there are many. Returns whether there are.
    fn doubt_many(&mut self) -> bool {
        if self.clients.len() <= MAX_CLIENTS {
            self.many = MAX_CLIENTS;
        }
        let are_many = self.clients.len() > self.many;
        if are_many {
            self.clients.values_mut().for_each(|client| client.is_doubted = true);
            // Those that stay are not doubted again for each one that comes.
            self.many = 2 * self.clients.len();
        }
        are_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_is_always_answered() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        for _ in 0..10_000 {
            assert_eq!(unread.answer(":1.1"), Answer::Given);
            unread.wrote(":1.1", 100_000);
            if let Some(client) = unread.look(now + PAUSE) {
                unread.looked(&client, Some(0));
            }
        }
        assert!(unread.total <= LOOK + 100_000);
        unread.looked(":1.1", None);
        assert!(unread.is_empty(), "{unread:?}");
    }

    #[test]
    fn who_does_not_read_is_told_and_then_is_not() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        let mut count = [0; 3];
        for _ in 0..100_000 {
            let answer = unread.answer(":1.1");
            let (kind, bytes) = match answer {
                Answer::Given => (0, 1000),
                Answer::Refused => (1, 200),
                Answer::None => (2, 0),
            };
            count[kind] += 1;
            if bytes > 0 {
                unread.wrote(":1.1", bytes);
            }
        }
        assert_eq!(count, [4195, 79, 95_726]);
        assert_eq!(unread.answer(":1.2"), Answer::Given, "others are answered");
        assert_eq!(unread.look(now).as_deref(), Some(":1.1"));
        assert_eq!(unread.look(now), None, "one look at a time");
        unread.looked(":1.1", Some(4_211_000));
        assert_eq!(unread.answer(":1.1"), Answer::None);
        assert_eq!(unread.look(now), None, "not so soon");
        assert_eq!(unread.look(now + PAUSE).as_deref(), Some(":1.1"));
        unread.looked(":1.1", Some(100));
        assert_eq!(unread.answer(":1.1"), Answer::Given, "it has read");
    }

    #[test]
    fn what_is_written_during_a_look_stays_counted() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        assert!(unread.wrote(":1.1", LOOK));
        assert_eq!(unread.look(now).as_deref(), Some(":1.1"));
        assert!(!unread.wrote(":1.1", 7));
        unread.looked(":1.1", Some(0));
        assert_eq!(unread.total, 7);
    }

    #[test]
    fn many_clients_together_leave_the_bus_room() {
        let mut unread = Unread::default();
        let mut total = 0;
        for client in 0..2048 {
            let client = format!(":1.{client}");
            while unread.answer(&client) != Answer::None {
                unread.wrote(&client, 1000);
                total += 1000;
            }
        }
        assert!(total < 100 << 20, "{total}");
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        let mut most = 0;
        for client in 0..100_000 {
            unread.wrote(&format!(":1.{client}"), 300);
            while let Some(gone) = unread.look(now) {
                unread.looked(&gone, None);
            }
            most = most.max(unread.clients.len());
        }
        assert!(most <= MAX_CLIENTS + 1, "{most}");
    }
}
