//! Replies that their clients have not read. Pure.
//!
//! What a client does not read the bus keeps, on the account of who has written it: at 127 MiB it takes nothing more from
//! memcharged, for anybody. So a client that leaves too much unread gets no more replies until it has read. What counts is
//! what the bus says that it keeps: without that nobody is held back.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// After so many bytes to one client the bus is asked how many it still keeps for it.
const LOOK: u64 = 256 << 10;

/// As much may wait for one client, in bytes.
const MAX_OF_ONE: u64 = 4 << 20;

/// As much may be out to a client since the bus was asked: large replies may not add up before its answer.
const MAX_AHEAD: u64 = 8 << 20;

/// A reply that is not longer, in bytes, is as good as the error that would take its place.
const SHORT: u64 = 512;

/// As much may wait for all of them. Beyond that, clients are looked at after [`LITTLE`], and may not have more waiting. The
/// bus has 2048 clients at most.
const MAX_OF_ALL: u64 = 32 << 20;

/// See [`MAX_OF_ALL`].
const LITTLE: u64 = 16 << 10;

/// So much is left for errors that say why there are no more replies.
const LAST_WORDS: u64 = 16 << 10;

/// So many calls can wait for a client to read. The bus lets a client wait for as many replies at most.
const MAX_HELD: usize = 128;

/// After this time a client that does not read is looked at again; each time it is twice as long, up to [`MAX_PAUSE`]. By then
/// it is left alone, but for one that is answered when it has read.
const PAUSE: Duration = Duration::from_millis(100);

/// See [`PAUSE`].
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// So many clients are remembered before the bus is asked which of them are still there.
const MAX_CLIENTS: usize = 256;

/// What is known of one client.
#[derive(Debug)]
struct Client {
    /// So many bytes waited for it at the last look.
    waiting: u64,
    /// So many were written after that, and before the look that is under way.
    before: u64,
    /// So many were written since.
    since: u64,
    /// When the last look began.
    looked: Option<Instant>,
    /// Whether it is under way.
    is_looked_at: bool,
    /// Whether a call was refused since.
    is_stopped: bool,
    /// Whether it is looked at because there are many.
    is_doubted: bool,
    /// The numbers of calls that are answered when it has read.
    held: Vec<u32>,
    /// How long until the next look.
    pause: Duration,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            waiting: 0,
            before: 0,
            since: 0,
            looked: None,
            is_looked_at: false,
            is_stopped: false,
            is_doubted: false,
            held: Vec::new(),
            pause: PAUSE,
        }
    }
}

impl Client {
    /// As many bytes wait for it, at most.
    fn most(&self) -> u64 {
        self.waiting + self.before + self.since
    }

    /// When the bus is to be asked about it again. `much`: after so many bytes.
    fn due(&self, now: Instant, much: u64) -> Option<Instant> {
        if self.is_looked_at {
            return None;
        }
        if self.is_doubted || self.since >= much {
            return Some(now);
        }
        // The bus often still has what was written just before it was asked.
        let is_soon_read = self.waiting > 0 && self.pause < MAX_PAUSE;
        let is_awaited = self.is_stopped || is_soon_read || !self.held.is_empty();
        is_awaited.then(|| self.looked.map_or(now, |looked| looked + self.pause))
    }
}

/// What becomes of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is answered.
    Given,
    /// Its client is told that it has to read.
    Refused,
    /// Its client is told when it has read.
    Held,
}

/// Whom to look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// At this client, now.
    At(String),
    /// At somebody, then.
    Later(Instant),
    /// At nobody.
    Nobody,
}

/// All clients that have had replies.
#[derive(Debug)]
pub(super) struct Unread {
    clients: HashMap<String, Client>,
    /// As many bytes wait for all of them, at most.
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
        let had_room = self.total < MAX_OF_ALL;
        self.total += bytes;
        let has_room = self.total < MAX_OF_ALL;
        let known = self.clients.entry(client.to_owned()).or_default();
        known.since += bytes;
        let is_due = known.since >= if has_room { LOOK } else { LITTLE };
        is_new && self.doubt_many() || is_due || had_room && !has_room
    }

    /// Whether a reply of so many bytes may go out, or an error instead.
    pub(super) fn fits(&mut self, client: &str, bytes: u64) -> bool {
        let Some(client) = self.clients.get_mut(client) else { return true };
        let most = client.most();
        let fits = bytes <= SHORT || most == 0 || most + bytes <= MAX_AHEAD;
        client.is_stopped |= !fits;
        fits
    }

    /// Whether a client gets a reply to what it calls, under this number.
    pub(super) fn answer(&mut self, client: &str, serial: u32) -> Answer {
        let most = if self.total < MAX_OF_ALL { MAX_OF_ONE } else { LITTLE };
        let Some(client) = self.clients.get_mut(client).filter(|client| client.waiting >= most) else {
            return Answer::Given;
        };
        client.is_stopped = true;
        if client.waiting + client.since < most + LAST_WORDS {
            return Answer::Refused;
        }
        if client.held.len() < MAX_HELD && !client.held.contains(&serial) {
            client.held.push(serial);
        }
        Answer::Held
    }

    /// The next client to ask the bus about.
    pub(super) fn look(&mut self, now: Instant) -> Look {
        let much = self.much();
        let due = self.clients.iter_mut().filter_map(|(name, client)| {
            let due = client.due(now, much)?;
            Some((due, client.looked, name, client))
        });
        // Those that have waited longest come first.
        let Some((due, _, name, client)) = due.min_by_key(|(due, looked, ..)| (*due, *looked)) else {
            return Look::Nobody;
        };
        if due > now {
            return Look::Later(due);
        }
        client.looked = Some(now);
        (client.is_looked_at, client.is_stopped, client.is_doubted) = (true, false, false);
        client.before += std::mem::take(&mut client.since);
        Look::At(name.clone())
    }

    /// As many bytes wait for a client, the bus says. `None`: it is not there any more. Returns the numbers of its calls that
    /// are answered now.
    pub(super) fn looked(&mut self, name: &str, waiting: Option<u64>) -> Vec<u32> {
        let Some(client) = self.clients.get_mut(name) else { return Vec::new() };
        self.total -= client.most();
        let Some(waiting) = waiting else {
            self.clients.remove(name);
            return Vec::new();
        };
        // Others write to it, too. What was written since the look began may have been counted, or not.
        let waiting = waiting.min(client.waiting + client.before);
        let is_stuck = client.before == 0 && waiting >= client.waiting;
        client.pause = if is_stuck { (client.pause * 2).min(MAX_PAUSE) } else { PAUSE };
        (client.waiting, client.before, client.is_looked_at) = (waiting, 0, false);
        self.total += client.most();
        let most = if self.total < MAX_OF_ALL { MAX_OF_ONE } else { LITTLE };
        let held = if waiting < most / 2 { std::mem::take(&mut client.held) } else { Vec::new() };
        if client.most() == 0 && client.held.is_empty() {
            self.clients.remove(name);
        }
        held
    }

    /// The bus has not answered.
    pub(super) fn missed(&mut self, name: &str) {
        if let Some(client) = self.clients.get_mut(name) {
            (client.is_looked_at, client.is_stopped) = (false, true);
            client.pause = (client.pause * 2).min(MAX_PAUSE);
        }
    }

    /// The bus does not tell: nobody is held back. Returns the calls that were.
    pub(super) fn give_up(&mut self) -> Vec<(String, u32)> {
        let known = std::mem::replace(self, Self { is_blind: true, ..Self::default() });
        let held = known.clients.into_iter().map(|(name, client)| (name, client.held));
        held.flat_map(|(name, held)| held.into_iter().map(move |serial| (name.clone(), serial))).collect()
    }

    /// After so many bytes a client is looked at.
    fn much(&self) -> u64 {
        if self.total < MAX_OF_ALL { LOOK } else { LITTLE }
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

    fn at(name: &str) -> Look {
        Look::At(name.to_owned())
    }

    /// Has the bus asked until nobody is due.
    fn look_at_all(unread: &mut Unread, now: Instant, waiting: impl Fn(&str) -> Option<u64>) {
        while let Look::At(client) = unread.look(now) {
            unread.looked(&client, waiting(&client));
        }
    }

    #[test]
    fn who_reads_is_always_answered() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        for serial in 0..10_000 {
            assert_eq!(unread.answer(":1.1", serial), Answer::Given);
            assert!(unread.fits(":1.1", 100_000));
            unread.wrote(":1.1", 100_000);
            look_at_all(&mut unread, now, |_| Some(0));
        }
        assert!(unread.total < LOOK);
        unread.looked(":1.1", None);
        assert!(unread.clients.is_empty() && unread.total == 0, "{unread:?}");
    }

    #[test]
    fn who_does_not_read_is_told_and_answered_when_it_has_read() {
        let (mut unread, mut now) = (Unread::default(), Instant::now());
        let (mut kept, mut held) = (0, Vec::new());
        for serial in 0..10_000 {
            let bytes = match unread.answer(":1.1", serial) {
                Answer::Given => 1000,
                Answer::Refused => 200,
                Answer::Held => {
                    held.push(serial);
                    0
                }
            };
            kept += bytes;
            if bytes > 0 {
                unread.wrote(":1.1", bytes);
            }
            look_at_all(&mut unread, now, |_| Some(kept));
        }
        assert!((MAX_OF_ONE..MAX_OF_ONE + LOOK + LAST_WORDS).contains(&kept), "{kept}");
        assert_eq!(unread.answer(":1.2", 1), Answer::Given, "others are answered");
        let Look::Later(first) = unread.look(now) else { panic!("{unread:?}") };
        assert!(first > now, "not so soon");
        now = first;
        assert_eq!(unread.look(now), at(":1.1"));
        assert_eq!(unread.looked(":1.1", Some(kept)), Vec::<u32>::new());
        let Look::Later(second) = unread.look(now) else { panic!("{unread:?}") };
        assert!(second - now > first - now, "less often, while it does not read");
        assert_eq!(unread.look(second), at(":1.1"));
        assert_eq!(unread.looked(":1.1", Some(100)), held[..MAX_HELD]);
        assert_eq!(unread.answer(":1.1", 7), Answer::Given);
        look_at_all(&mut unread, second + MAX_PAUSE, |_| Some(0));
        assert_eq!(unread.look(second + MAX_PAUSE), Look::Nobody);
    }

    #[test]
    fn large_replies_do_not_add_up_before_the_bus_answers() {
        let mut unread = Unread::default();
        let (mut out, reply) = (0, 700_000);
        for serial in 0..1000 {
            assert_eq!(unread.answer(":1.1", serial), Answer::Given, "nothing is known yet");
            if unread.fits(":1.1", reply) {
                unread.wrote(":1.1", reply);
                out += reply;
            }
        }
        assert!((MAX_AHEAD - reply..=MAX_AHEAD).contains(&out), "{out}");
        assert!(unread.fits(":1.2", 10 * MAX_AHEAD), "one of any size can be had");
    }

    #[test]
    fn what_was_just_under_way_is_looked_at_again() {
        let (mut unread, mut now) = (Unread::default(), Instant::now());
        unread.wrote(":1.1", 5 << 20);
        look_at_all(&mut unread, now, |_| Some(5 << 20));
        let Look::Later(then) = unread.look(now) else { panic!("{unread:?}") };
        look_at_all(&mut unread, then, |_| Some(0));
        assert_eq!(unread.answer(":1.1", 1), Answer::Given);

        // One that never reads is left alone in the end.
        unread.wrote(":1.2", 5 << 20);
        let mut looks = 0;
        loop {
            match unread.look(now) {
                Look::At(client) => drop(unread.looked(&client, Some(5 << 20))),
                Look::Later(then) => now = then,
                Look::Nobody => break,
            }
            looks += 1;
        }
        assert!(looks < 30, "{looks}");
    }

    #[test]
    fn what_others_write_to_a_client_does_not_count() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        unread.wrote(":1.1", LOOK);
        look_at_all(&mut unread, now, |_| Some(100 << 20));
        assert_eq!(unread.total, LOOK);
    }

    #[test]
    fn what_is_written_during_a_look_stays_counted() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        assert!(unread.wrote(":1.1", LOOK));
        assert_eq!(unread.look(now), at(":1.1"));
        assert!(!unread.wrote(":1.1", 7));
        assert_eq!(unread.look(now), Look::Nobody, "one look at a time");
        unread.missed(":1.1");
        assert_eq!(unread.total, LOOK + 7);
        assert_eq!(unread.look(now + 2 * PAUSE), at(":1.1"));
        unread.looked(":1.1", Some(0));
        assert_eq!(unread.total, 0);
    }

    #[test]
    fn many_clients_together_leave_the_bus_room() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        let mut kept = HashMap::<String, u64>::new();
        for client in 0..2048 {
            let client = format!(":1.{client}");
            for serial in 0..5000 {
                if unread.answer(&client, serial) != Answer::Given {
                    break;
                }
                unread.wrote(&client, 1000);
                *kept.entry(client.clone()).or_default() += 1000;
                look_at_all(&mut unread, now, |client| kept.get(client).copied());
            }
        }
        let kept: u64 = kept.values().sum();
        assert!(kept < 80 << 20, "{kept}");
    }

    #[test]
    fn who_has_read_is_answered_while_others_have_not() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        for client in 0..10 {
            unread.wrote(&format!(":2.{client}"), 4 << 20);
        }
        look_at_all(&mut unread, now, |_| Some(4 << 20));
        for serial in 0..100 {
            assert_eq!(unread.answer(":1.1", serial), Answer::Given);
            unread.wrote(":1.1", 70_000);
            look_at_all(&mut unread, now, |client| Some(if client == ":1.1" { 0 } else { 4 << 20 }));
        }
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        let mut most = 0;
        for client in 0..10_000 {
            unread.wrote(&format!(":1.{client}"), 300);
            look_at_all(&mut unread, now, |_| None);
            most = most.max(unread.clients.len());
        }
        assert!(most <= MAX_CLIENTS + 1, "{most}");
    }
}
