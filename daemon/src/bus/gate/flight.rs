//! The calls that were let in and are not answered yet. Pure.

use std::collections::{HashMap, HashSet};

use zbus::{Message, message::Header};

/// So many calls of one client are in hand at once, as many as the bus itself allows for those that want a reply.
const MAX_OF_ONE: usize = 128;

/// So many calls are in hand at once.
const MAX_CALLS: usize = 1024;

/// So many bytes of calls are in hand at once: a few large ones, or all of usual size.
const MAX_BYTES: usize = 1 << 20;

/// So many calls whose replies can be large are in hand at once: each costs up to a few MiB until it is written.
const MAX_LARGE: usize = 8;

/// So many of them are one client's.
const MAX_LARGE_OF_ONE: usize = 2;

/// Methods with large replies: 1000 events, and all properties of 1000 mounts, at the worst.
const LARGE: [&str; 2] = ["GetHistory", "GetManagedObjects"];

/// Who has called, and the call's number there.
type Key = (String, u32);

/// A call in hand.
#[derive(Debug)]
pub(super) struct Call {
    /// The call itself, to answer it.
    pub(super) message: Message,
    /// Whether its sender wants no reply.
    pub(super) is_quiet: bool,
}

/// Whether a call is let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It is in hand until it is answered.
    Free,
    /// There are too many.
    Full(&'static str),
    /// It cannot be told from one that is in hand, or nobody can be answered.
    Invalid,
}

/// All calls in hand.
#[derive(Debug, Default)]
pub(super) struct Flight {
    calls: HashMap<Key, Call>,
    /// How many calls are one client's, and how many of those can have large replies.
    of_one: HashMap<String, (usize, usize)>,
    bytes: usize,
    large: usize,
    /// Refusals that are on their way out. Their calls were never in hand, but others of the same number may be.
    refusals: HashSet<Key>,
}

impl Flight {
    /// Takes a call in hand if there is room.
    pub(super) fn enter(&mut self, message: &Message, is_quiet: bool) -> Entry {
        let header = message.header();
        let Some(sender) = header.sender() else { return Entry::Invalid };
        let key = (sender.to_string(), header.primary().serial_num().get());
        if self.calls.contains_key(&key) {
            return Entry::Invalid;
        }
        let (bytes, is_large) = (message.data().len(), is_large(&header));
        let is_full = self.calls.len() >= MAX_CALLS || self.bytes + bytes > MAX_BYTES;
        if is_full || is_large && self.large >= MAX_LARGE {
            return Entry::Full("memcharged has too many calls in hand; try again later");
        }
        let (count, large) = self.of_one.get(&key.0).copied().unwrap_or_default();
        if count >= MAX_OF_ONE || is_large && large >= MAX_LARGE_OF_ONE {
            return Entry::Full("you have too many calls in hand; wait for replies");
        }
        self.of_one.insert(key.0.clone(), (count + 1, large + usize::from(is_large)));
        self.bytes += bytes;
        self.large += usize::from(is_large);
        self.calls.insert(key, Call { message: message.clone(), is_quiet });
        Entry::Free
    }

    /// A call that is not in hand is about to be answered.
    pub(super) fn refuse(&mut self, client: &str, serial: u32) {
        self.refusals.insert((client.to_owned(), serial));
    }

    /// The call that is answered by a message with this header, which is not in hand any more.
    pub(super) fn leave(&mut self, reply: &Header<'_>) -> Option<Call> {
        let key = (reply.destination()?.to_string(), reply.reply_serial()?.get());
        if self.refusals.remove(&key) {
            return None;
        }
        let call = self.calls.remove(&key)?;
        self.bytes -= call.message.data().len();
        let is_large = is_large(&call.message.header());
        self.large -= usize::from(is_large);
        if let Some((count, large)) = self.of_one.get_mut(&key.0) {
            *count -= 1;
            *large -= usize::from(is_large);
            if *count == 0 {
                self.of_one.remove(&key.0);
            }
        }
        Some(call)
    }
}

fn is_large(call: &Header<'_>) -> bool {
    call.member().is_some_and(|member| LARGE.contains(&member.as_str()))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn call(sender: &str, serial: u32, size: usize) -> Message {
        let call = Message::method_call("/", "M").unwrap().sender(sender.to_owned()).unwrap();
        call.serial(NonZeroU32::new(serial).unwrap()).build(&"x".repeat(size)).unwrap()
    }

    fn reply(call: &Message) -> Message {
        Message::method_return(&call.header()).unwrap().build(&()).unwrap()
    }

    #[test]
    fn a_client_has_so_many_calls_in_hand_and_no_more() {
        let mut flight = Flight::default();
        for serial in 1..=128 {
            assert_eq!(flight.enter(&call(":1.1", serial, 10), false), Entry::Free);
        }
        assert!(matches!(flight.enter(&call(":1.1", 129, 10), false), Entry::Full(_)));
        assert_eq!(flight.enter(&call(":1.2", 129, 10), false), Entry::Free, "another one has its own");
        assert!(flight.leave(&reply(&call(":1.1", 7, 10)).header()).is_some());
        assert_eq!(flight.enter(&call(":1.1", 129, 10), false), Entry::Free);
    }

    #[test]
    fn all_together_have_so_many_calls_and_bytes() {
        let mut flight = Flight::default();
        for serial in 1..=1024 {
            let sender = format!(":1.{}", serial % 16);
            assert_eq!(flight.enter(&call(&sender, serial, 10), false), Entry::Free);
        }
        assert!(matches!(flight.enter(&call(":1.99", 1, 10), false), Entry::Full(_)));

        let mut flight = Flight::default();
        let large = |serial| call(":1.1", serial, 100_000);
        let free = (1..=20).filter(|serial| flight.enter(&large(*serial), false) == Entry::Free).count();
        assert_eq!(free, 10);
        for serial in 1..=10 {
            assert!(flight.leave(&reply(&large(serial)).header()).is_some());
        }
        assert!(flight.calls.is_empty() && flight.of_one.is_empty() && flight.bytes == 0, "{flight:?}");
    }

    #[test]
    fn few_calls_with_large_replies_are_in_hand() {
        let history = |serial: u32| {
            let sender = format!(":1.{}", serial % 6);
            let call = Message::method_call("/", "GetHistory").unwrap().sender(sender).unwrap();
            call.serial(NonZeroU32::new(serial).unwrap()).build(&()).unwrap()
        };
        let mut flight = Flight::default();
        let mut free = |serial| flight.enter(&history(serial), false) == Entry::Free;
        assert!(free(1) && free(7) && !free(13), "two of one client");
        assert_eq!((14..=50).filter(|serial| free(*serial)).count(), 6, "eight of all");
        assert_eq!(flight.enter(&call(":1.1", 100, 10), false), Entry::Free, "others are");
        assert!(flight.leave(&reply(&history(7)).header()).is_some());
        assert_eq!(flight.enter(&history(103), false), Entry::Free);
    }

    #[test]
    fn a_refusal_frees_no_other_call_s_place() {
        let mut flight = Flight::default();
        assert_eq!(flight.enter(&call(":1.1", 5, 10), true), Entry::Free);
        flight.refuse(":1.1", 5);
        assert!(flight.leave(&reply(&call(":1.1", 5, 10)).header()).is_none());
        assert!(flight.leave(&reply(&call(":1.1", 5, 10)).header()).is_some());
        assert!(flight.calls.is_empty() && flight.refusals.is_empty());
    }

    #[test]
    fn a_call_is_known_by_its_sender_and_number() {
        let mut flight = Flight::default();
        assert_eq!(flight.enter(&call(":1.1", 5, 10), true), Entry::Free);
        assert_eq!(flight.enter(&call(":1.1", 5, 10), false), Entry::Invalid);
        assert!(flight.leave(&reply(&call(":1.2", 5, 10)).header()).is_none());
        assert!(flight.leave(&reply(&call(":1.1", 5, 10)).header()).is_some_and(|call| call.is_quiet));
        assert!(flight.leave(&reply(&call(":1.1", 5, 10)).header()).is_none());
    }
}
