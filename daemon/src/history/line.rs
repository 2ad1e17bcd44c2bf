//! The lines of the file: one JSON value each.

use std::io;

use memcharge_policy::outcome::{Event, EventId, Victim};
use serde::{Deserialize, Serialize};

/// No line is longer: four paths of 4096 bytes, each byte written as `\u0001`, and the rest.
pub(super) const MAX_LINE: usize = 128 << 10;

/// A line. An event has `repeats`, too, but as a number: none of the four is taken for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    /// An arbitration.
    Event(Box<Event>),
    /// `{"repeats":{..}}`: the repeats of an event that stands above.
    Repeats {
        /// What has changed.
        repeats: Repeats,
    },
    /// `{"kill":{..}}`: a kill that is about to happen.
    Kill {
        /// Who, for what.
        kill: Intent,
    },
    /// `{"spared":{..}}`: that kill did not happen. The event, where it stands above, has no victim.
    Spared {
        /// Of which event.
        spared: Spared,
    },
}

/// The repeats of an event, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Repeats {
    /// The event.
    pub(super) id: EventId,
    /// How many.
    pub(super) repeats: u64,
}

/// A kill that is about to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    /// The event that it is for, which is not recorded yet.
    pub(super) id: EventId,
    /// Who will be killed.
    pub(super) victim: Victim,
    /// When this was decided, in microseconds since 1970.
    pub(super) realtime_usec: u64,
}

/// A kill that did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spared {
    /// The event that it was for.
    pub(super) id: EventId,
}

impl Line {
    /// Reads a line, with or without its end; `None`: a torn one, or somebody else's.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// The line as it is written, with its end.
    pub(super) fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// The bytes that the line takes in the file. One that cannot be written counts as the longest.
    pub(super) fn length(&self) -> u64 {
        self.text().map_or(MAX_LINE, |text| text.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests::{event, victim};

    #[test]
    fn each_kind_of_line_is_read_back_as_itself() {
        let id = EventId(7);
        for (line, start) in [
            (Line::Event(Box::new(event(7))), r#"{"id":"00000000000000000000000000000007","realtime_usec":"#),
            (
                Line::Repeats { repeats: Repeats { id, repeats: 3 } },
                r#"{"repeats":{"id":"00000000000000000000000000000007","repeats":3}}"#,
            ),
            (
                Line::Kill { kill: Intent { id, victim: victim(8), realtime_usec: 9 } },
                r#"{"kill":{"id":"00000000000000000000000000000007","victim":{"pid":8,"#,
            ),
            (
                Line::Spared { spared: Spared { id } },
                r#"{"spared":{"id":"00000000000000000000000000000007"}}"#,
            ),
        ] {
            let text = line.text().unwrap();
            assert!(text.starts_with(start.as_bytes()), "{}", String::from_utf8_lossy(&text));
            assert_eq!(Line::parse(&text).as_ref(), Some(&line));
            assert_eq!(line.length(), text.len() as u64);
            let whole = text.len() - 1;
            assert_eq!(Line::parse(&text[..whole]), Some(line), "without its end");
            assert!((0..whole).all(|cut| Line::parse(&text[..cut]).is_none()), "a torn line is no line");
        }
    }

    #[test]
    fn other_lines_are_none() {
        for text in [
            "",
            "{}",
            "null",
            "[]",
            r#"{"repeats":3}"#,
            r#"{"kill":{"id":"7"}}"#,
            r#"{"spared":{}}"#,
            "\u{0}\u{0}",
        ] {
            assert_eq!(Line::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_longest_event_fits() {
        let path = "\u{1}".repeat(4096);
        let mut long = event(1);
        long.target.clone_from(&path);
        long.limit.path.clone_from(&path);
        long.charger.cgroup.clone_from(&path);
        long.victim = Some(memcharge_policy::outcome::Victim { cgroup: path, ..victim(1) });
        assert!(Line::Event(Box::new(long)).length() < MAX_LINE as u64);
    }
}
