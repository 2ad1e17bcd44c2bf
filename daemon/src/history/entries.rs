//! The history in memory: bounded, the newest last. Pure; what must be written comes back as a [`Change`].

use std::collections::{BTreeMap, VecDeque};

use memcharge_config::HistorySettings;
use memcharge_policy::outcome::{Event, EventId, Reason, Victim};

use super::line::{Intent, Line, Repeats, Spared};
use crate::error::{DaemonError, Result};

/// Kills of which the end is not known. There is one at a time in a target, and after a crash few are left.
const MAX_INTENTS: usize = 64;

/// The hex digits of an id, and how many of them name an event at least.
const ID_DIGITS: usize = 32;
const MIN_DIGITS: usize = 4;

/// What became of an event that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and mostly the large one")]
pub(crate) enum Added {
    /// It is recorded, like this: the victim may have been filled in from what an earlier daemon wrote before it killed.
    New(Event),
    /// It was there already; its repeats are up to date.
    Known,
}

/// Which events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// Of this mount only.
    pub(crate) mount: Option<String>,
    /// That ended at this time or later, in microseconds since 1970.
    pub(crate) since_usec: Option<u64>,
    /// At most so many, the newest.
    pub(crate) limit: usize,
}

/// What must be done to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    Unchanged,
    /// This line is added.
    Line(Line),
    /// The oldest were dropped: it is written anew.
    Rewrite,
}

/// The list. The newest event is kept whatever its size, and so are intents: they are truth that nobody else has.
#[derive(Debug)]
pub(super) struct Entries {
    bounds: HistorySettings,
    /// The oldest first, each with the length of its line.
    list: VecDeque<(Event, u64)>,
    /// The events' numbers: the oldest in the list has the number `first`.
    index: BTreeMap<EventId, u64>,
    first: u64,
    /// The length of all lines of `list`.
    bytes: u64,
    intents: VecDeque<Intent>,
}

impl Entries {
    /// An empty list.
    pub(super) fn new(bounds: HistorySettings) -> Self {
        Self {
            bounds,
            list: VecDeque::new(),
            index: BTreeMap::new(),
            first: 0,
            bytes: 0,
            intents: VecDeque::new(),
        }
    }

    /// Keeps other bounds from now on.
    pub(super) fn bound(&mut self, bounds: HistorySettings) -> Change {
        self.bounds = bounds;
        if self.make_room() { Change::Rewrite } else { Change::Unchanged }
    }

    /// Adds an event.
    pub(super) fn add(&mut self, mut event: Event) -> (Added, Change) {
        if self.position(event.id).is_some() {
            return (Added::Known, self.repeats(event.id, event.repeats));
        }
        if let Some(victim) = self.take_intent(event.id)
            && event.victim.is_none()
            && event.reason != Reason::KillFailed
        {
            event.victim = Some(victim);
        }
        let line = Line::Event(Box::new(event.clone()));
        self.push(event.clone(), line.length());
        (Added::New(event), if self.make_room() { Change::Rewrite } else { Change::Line(line) })
    }

    /// Brings the repeats of an event up to date. They never go down: a store that tells again may be behind.
    pub(super) fn repeats(&mut self, id: EventId, repeats: u64) -> Change {
        let Some((event, length)) = self.position(id).and_then(|at| self.list.get_mut(at)) else {
            return Change::Unchanged;
        };
        if repeats <= event.repeats {
            return Change::Unchanged;
        }
        event.repeats = repeats;
        let longer = Line::Event(Box::new(event.clone())).length();
        self.bytes = self.bytes - *length + longer;
        *length = longer;
        if self.make_room() {
            Change::Rewrite
        } else {
            Change::Line(Line::Repeats { repeats: Repeats { id, repeats } })
        }
    }

    /// Notes a kill that is about to happen.
    pub(super) fn intend(&mut self, kill: Intent) -> Result<Change> {
        if self.position(kill.id).is_some() {
            let id = kill.id;
            return Err(DaemonError::InvalidOption(format!(
                "the event {id} has ended: no kill can serve it"
            )));
        }
        drop(self.take_intent(kill.id));
        if self.intents.len() >= MAX_INTENTS {
            self.intents.pop_front();
        }
        self.intents.push_back(kill.clone());
        Ok(if self.make_room() { Change::Rewrite } else { Change::Line(Line::Kill { kill }) })
    }

    /// Notes that the kill for an event did not happen: its intent is withdrawn. An event that came meanwhile and got its
    /// victim from the intent has none any more.
    pub(super) fn spared(&mut self, id: EventId) -> Change {
        // An event has one kill at most, and who kills names no victim before the signal: a victim is the intent's.
        if self.take_intent(id).is_none() && !self.clear_victim(id) {
            return Change::Unchanged;
        }
        Change::Line(Line::Spared { spared: Spared { id } })
    }

    /// Takes in a line of the file.
    pub(super) fn replay(&mut self, line: Line) {
        match line {
            Line::Event(event) => drop(self.add(*event)),
            Line::Repeats { repeats } => drop(self.repeats(repeats.id, repeats.repeats)),
            Line::Kill { kill } => drop(self.intend(kill)),
            Line::Spared { spared } => drop(self.spared(spared.id)),
        }
    }

    /// Drops intents from before this time, in microseconds since 1970.
    pub(super) fn forget_intents(&mut self, before_usec: u64) {
        self.intents.retain(|intent| intent.realtime_usec >= before_usec);
    }

    /// The kills of which nobody has told the end yet.
    pub(super) fn intents(&self) -> impl Iterator<Item = &Intent> {
        self.intents.iter()
    }

    /// The newest events that match, the newest last.
    pub(super) fn query(&self, query: &Query) -> Vec<Event> {
        let matches = |event: &&Event| {
            query.mount.as_ref().is_none_or(|mount| event.mount == *mount)
                && query.since_usec.is_none_or(|since| event.realtime_usec >= since)
        };
        let mut found: Vec<Event> = self
            .list
            .iter()
            .rev()
            .map(|(event, _)| event)
            .filter(matches)
            .take(query.limit)
            .cloned()
            .collect();
        found.reverse();
        found
    }

    /// The newest event of a mount.
    pub(super) fn last(&self, mount: &str) -> Option<Event> {
        self.list.iter().rev().map(|(event, _)| event).find(|event| event.mount == mount).cloned()
    }

    /// The event whose id begins with these digits.
    pub(super) fn get(&self, prefix: &str) -> Result<Event> {
        let refuse = |why: String| Err(DaemonError::InvalidOption(why));
        let digits = prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !digits || !(MIN_DIGITS..=ID_DIGITS).contains(&prefix.len()) {
            let shown: String = prefix.chars().take(ID_DIGITS).collect();
            return refuse(format!(
                "{shown:?} is not the id of an event: give its {ID_DIGITS} digits of 0-9 and a-f, or the first of them"
            ));
        }
        let end =
            |fill: &str| format!("{prefix}{}", fill.repeat(ID_DIGITS - prefix.len())).parse::<EventId>();
        let (Ok(least), Ok(most)) = (end("0"), end("f")) else {
            return refuse(format!("{prefix} is not the id of an event"));
        };
        let mut found = self.index.range(least..=most);
        match (found.next(), found.next()) {
            (None, _) => {
                refuse(format!("no event {prefix} is in the history; the oldest are dropped from it"))
            }
            (Some(_), Some(_)) => {
                refuse(format!("the ids of several events begin with {prefix}; give more digits"))
            }
            (Some((id, _)), None) => match self.position(*id).and_then(|at| self.list.get(at)) {
                Some((event, _)) => Ok(event.clone()),
                None => refuse(format!("no event {prefix} is in the history")),
            },
        }
    }

    /// Whether an event was dropped since the list was empty.
    pub(super) fn dropped(&self) -> bool {
        self.first > 0
    }

    /// The most bytes that the file may have.
    pub(super) fn max_bytes(&self) -> u64 {
        self.bounds.max_size.0
    }

    /// Drops the oldest until the file, written anew, has room for more.
    pub(super) fn shrink(&mut self) {
        self.drop_while(|list| list.total() > share(list.max_bytes()));
    }

    /// All of it, as a file that is written anew.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line> {
        let kills = self.intents.iter().map(|kill| Line::Kill { kill: kill.clone() });
        kills.chain(self.list.iter().map(|(event, _)| Line::Event(Box::new(event.clone()))))
    }

    fn position(&self, id: EventId) -> Option<usize> {
        self.index.get(&id).and_then(|number| usize::try_from(number - self.first).ok())
    }

    fn push(&mut self, event: Event, length: u64) {
        self.index.insert(event.id, self.first + self.list.len() as u64);
        self.list.push_back((event, length));
        self.bytes += length;
    }

    fn take_intent(&mut self, id: EventId) -> Option<Victim> {
        let at = self.intents.iter().position(|intent| intent.id == id)?;
        self.intents.remove(at).map(|intent| intent.victim)
    }

    /// Returns whether there was one.
    fn clear_victim(&mut self, id: EventId) -> bool {
        let Some((event, length)) = self.position(id).and_then(|at| self.list.get_mut(at)) else {
            return false;
        };
        if event.victim.take().is_none() {
            return false;
        }
        let shorter = Line::Event(Box::new(event.clone())).length();
        self.bytes = self.bytes - *length + shorter;
        *length = shorter;
        true
    }

    /// Keeps the bounds; returns whether something had to go. More than one goes, so that the file is not written anew
    /// for each event.
    fn make_room(&mut self) -> bool {
        let before = self.first;
        if self.list.len() as u64 > self.bounds.max_entries {
            self.drop_while(|list| list.list.len() as u64 > share(list.bounds.max_entries));
        }
        if self.total() > self.max_bytes() {
            self.shrink();
        }
        self.first > before
    }

    fn drop_while(&mut self, too_much: impl Fn(&Self) -> bool) {
        while self.list.len() > 1
            && too_much(self)
            && let Some((event, length)) = self.list.pop_front()
        {
            self.index.remove(&event.id);
            self.first += 1;
            self.bytes -= length;
        }
    }

    fn total(&self) -> u64 {
        self.bytes + self.intents.iter().map(|kill| Line::Kill { kill: kill.clone() }.length()).sum::<u64>()
    }
}

/// Three quarters: what is left when the oldest are dropped.
fn share(bound: u64) -> u64 {
    bound - bound / 4
}

#[cfg(test)]
mod tests;
