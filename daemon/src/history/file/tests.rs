//! The file, cut, foreign, unreadable and full.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink};

use memcharge_config::HistorySettings;
use memcharge_policy::{
    Bytes,
    outcome::{Event, EventId},
};
use proptest::prelude::*;

use super::*;
use crate::history::{
    entries::Added,
    line::Intent,
    tests::{all, event, victim, wide},
};

/// A history with its file.
struct Both {
    entries: Entries,
    disk: Disk,
}

impl Both {
    fn load(dir: &Path, bounds: HistorySettings) -> Self {
        let mut entries = Entries::new(bounds);
        let disk = Disk::load(dir, &mut entries);
        Self { entries, disk }
    }

    fn add(&mut self, event: Event) -> Added {
        let (added, change) = self.entries.add(event);
        self.disk.write(&change, &mut self.entries);
        added
    }

    fn repeats(&mut self, id: u128, repeats: u64) {
        let change = self.entries.repeats(EventId(id), repeats);
        self.disk.write(&change, &mut self.entries);
    }

    fn intend(&mut self, id: u128) {
        let kill = Intent { id: EventId(id), victim: victim(8), realtime_usec: 50 };
        let change = self.entries.intend(kill).unwrap();
        self.disk.write(&change, &mut self.entries);
    }

    fn spared(&mut self, id: u128) {
        let change = self.entries.spared(EventId(id));
        self.disk.write(&change, &mut self.entries);
    }

    fn events(&self) -> Vec<Event> {
        self.entries.query(&all(None))
    }

    fn is_open(&self) -> bool {
        matches!(self.disk.state, State::Open(..))
    }

    /// The moment to try again is now.
    fn lose_patience(&mut self) {
        assert!(matches!(self.disk.state, State::Behind(_)), "{:?}", self.disk.state);
        self.disk.state = State::Behind(Instant::now());
    }
}

fn bounds(max_entries: u64, max_size: u64) -> HistorySettings {
    HistorySettings { max_entries, max_size: Bytes(max_size) }
}

#[test]
fn a_torn_line_costs_itself_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    let mut first = Both::load(dir.path(), wide());
    first.add(event(1));
    first.add(event(2));
    let text = fs::read(&path).unwrap();
    let bad: [&[u8]; 5] =
        [b"{\"id\":\"0000", b"\0\0\0\0", b"\xff\xfe", b"some text", b"{\"new\":{\"kind\":1}}"];
    for (number, bad) in bad.into_iter().enumerate() {
        let line = Line::Event(Box::new(event(3))).text().unwrap();
        fs::write(&path, [&text, bad, b"\n", &line].concat()).unwrap();
        assert_eq!(Both::load(dir.path(), wide()).events(), [event(1), event(2), event(3)], "{number}");
        // At the end of the file, as kill -9 leaves it: the next line stands for itself.
        fs::write(&path, [&text, bad].concat()).unwrap();
        let mut torn = Both::load(dir.path(), wide());
        assert_eq!(torn.events(), [event(1), event(2)]);
        torn.add(event(4));
        assert_eq!(Both::load(dir.path(), wide()).events(), [event(1), event(2), event(4)], "{number}");
    }
}

#[test]
fn a_line_without_end_does_not_take_all_memory() {
    let dir = tempfile::tempdir().unwrap();
    let line = |id| Line::Event(Box::new(event(id))).text().unwrap();
    for length in [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 2 * MAX_LINE, 2 * MAX_LINE + 1] {
        fs::write(dir.path().join(NAME), [line(1), vec![b'x'; length], b"\n".to_vec(), line(2)].concat())
            .unwrap();
        let mut entries = Entries::new(wide());
        let disk = Disk::new(dir.path());
        assert_eq!(disk.read(&mut entries).unwrap(), 1, "{length}");
        assert_eq!(entries.query(&all(None)), [event(1), event(2)], "{length}");
    }
}

#[test]
fn a_file_that_is_too_long_is_written_anew_with_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    let mut both = Both::load(dir.path(), bounds(8, 1 << 20));
    for id in 0..8 {
        both.add(event(id));
    }
    both.repeats(7, 70);
    both.repeats(7, 77);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 10);
    both.intend(100);
    both.add(event(8));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1 + 6, "the kill, and three quarters of the events: {text}");
    let again = Both::load(dir.path(), bounds(8, 1 << 20));
    assert_eq!(again.events(), both.events());
    assert_eq!(again.events()[4].repeats, 77, "repeats are folded in");
    assert_eq!(again.entries.intents().count(), 1);
    let fewer = Both::load(dir.path(), bounds(2, 1 << 20));
    assert_eq!(fewer.events(), both.events()[4..]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1 + 2, "the file follows at once");
}

#[test]
fn repeats_alone_do_not_let_the_file_grow() {
    let dir = tempfile::tempdir().unwrap();
    let mut both = Both::load(dir.path(), bounds(100, 4096));
    both.add(event(1));
    for repeats in 1..1000 {
        both.repeats(1, repeats);
        assert!(fs::metadata(dir.path().join(NAME)).unwrap().len() <= 4096);
    }
    assert_eq!(Both::load(dir.path(), wide()).events(), [Event { repeats: 999, ..event(1) }]);
}

#[test]
fn what_cannot_be_written_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("memcharge");
    // In the place of the directory there is a file.
    fs::write(&below, "").unwrap();
    let mut both = Both { entries: Entries::new(wide()), disk: Disk::new(&below) };
    both.disk.state = State::Behind(Instant::now());
    assert_eq!(both.add(event(1)), Added::New(event(1)), "in memory it is there");
    fs::remove_file(&below).unwrap();
    both.add(event(2));
    assert!(!below.exists(), "it is left alone for a while");
    both.lose_patience();
    both.add(event(3));
    assert!(both.is_open());
    both.add(event(4));
    assert_eq!(Both::load(&below, wide()).events(), both.events());
    assert_eq!(both.events().len(), 4);
}

#[test]
fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut both = Both::load(dir.path(), wide());
    both.add(event(1));
    both.disk.state = State::Open(OpenOptions::new().append(true).open("/dev/full").unwrap(), 0);
    assert_eq!(both.add(event(2)), Added::New(event(2)));
    assert!(!both.is_open());
    both.add(event(3));
    both.disk.end(&mut both.entries);
    assert_eq!(Both::load(dir.path(), wide()).events(), [event(1), event(2), event(3)]);
}

#[test]
fn a_file_that_cannot_be_read_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    let other = dir.path().join("other");
    fs::write(&other, "precious").unwrap();
    let make: [&dyn Fn(); 2] = [&|| fs::create_dir(&path).unwrap(), &|| symlink(&other, &path).unwrap()];
    for make in make {
        make();
        let mut both = Both::load(dir.path(), wide());
        both.add(event(1));
        both.disk.end(&mut both.entries);
        assert_eq!(both.events(), [event(1)], "the history goes on in memory");
        assert!(matches!(both.disk.state, State::Unreadable));
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        if path.is_symlink() { fs::remove_file(&path).unwrap() } else { fs::remove_dir(&path).unwrap() }
    }
}

#[test]
fn a_file_is_written_anew_in_its_directory_only() {
    let dir = tempfile::tempdir().unwrap();
    let (path, next, other) = (dir.path().join(NAME), dir.path().join(NEXT), dir.path().join("other"));
    fs::write(&other, "precious").unwrap();
    let pipe = || {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &next, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    let make: [&dyn Fn(); 3] =
        [&|| symlink(&other, &next).unwrap(), &|| fs::write(&next, "half a li").unwrap(), &pipe];
    for make in make {
        make();
        let mut both = Both::load(dir.path(), wide());
        both.add(event(1));
        both.disk.rewrite(&both.entries);
        assert!(both.is_open(), "{:?}", both.disk.state);
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert!(fs::symlink_metadata(&next).is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    }
    // What is put in the place of the file later is replaced, not followed.
    let mut both = Both::load(dir.path(), wide());
    fs::remove_file(&path).unwrap();
    symlink(&other, &path).unwrap();
    both.disk.rewrite(&both.entries);
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    assert_eq!(Both::load(dir.path(), wide()).events(), [event(1)]);
}

#[test]
fn a_file_that_cannot_be_replaced_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut both = Both::load(dir.path(), wide());
    both.add(event(1));
    // As where the disk is full or read-only: the next file cannot be made.
    fs::create_dir(dir.path().join(NEXT)).unwrap();
    both.disk.rewrite(&both.entries);
    both.add(event(2));
    assert_eq!(Both::load(dir.path(), wide()).events(), [event(1)]);
    fs::remove_dir(dir.path().join(NEXT)).unwrap();
    both.lose_patience();
    both.add(event(3));
    assert_eq!(Both::load(dir.path(), wide()).events(), [event(1), event(2), event(3)]);
}

#[test]
fn an_older_file_gets_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    assert!(Both::load(dir.path(), wide()).is_open());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
}

#[test]
fn who_was_spared_stays_so_whatever_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut both = Both::load(dir.path(), wide());
    for id in 1..=2 {
        both.intend(id);
        both.add(event(id));
    }
    // The line of the kill is gone when it turns out that nobody died.
    both.disk.rewrite(&both.entries);
    both.spared(1);
    let killed = Event { victim: Some(victim(8)), ..event(2) };
    assert_eq!(Both::load(dir.path(), wide()).events(), [event(1), killed.clone()]);
    both.disk.rewrite(&both.entries);
    assert_eq!(Both::load(dir.path(), wide()).events(), [event(1), killed]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// After kill -9 in the middle of any write.
    #[test]
    fn any_cut_of_the_tail_leaves_a_prefix_and_invents_nothing(
        steps in prop::collection::vec((0u128..20, 0u64..3000, 0u8..4), 1..40), cut in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut both = Both::load(dir.path(), wide());
        let mut known: BTreeMap<u128, Vec<u64>> = BTreeMap::new();
        for (id, repeats, kind) in steps {
            match kind {
                0 => both.repeats(id, repeats),
                1 if both.events().iter().all(|event| event.id.0 != id) => both.intend(id),
                _ => drop(both.add(Event { repeats, ..event(id) })),
            }
            for event in both.events() {
                known.entry(event.id.0).or_default().push(event.repeats);
            }
        }
        let path = dir.path().join(NAME);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..cut.index(text.len() + 1)]).unwrap();
        let mut after = Both::load(dir.path(), wide());
        let (whole, left) = (both.events(), after.events());
        prop_assert!(left.len() <= whole.len());
        for (left, whole) in left.iter().zip(&whole) {
            let plain = Event { repeats: whole.repeats, ..left.clone() };
            prop_assert_eq!(&plain, whole);
            prop_assert!(known[&left.id.0].contains(&left.repeats), "repeats as they were at some time");
        }
        // And it goes on.
        after.add(event(99));
        let goes_on = Both::load(dir.path(), wide()).events();
        prop_assert_eq!(goes_on, after.events());
    }

    #[test]
    fn the_file_says_of_kills_what_memory_says(
        steps in prop::collection::vec((0u128..12, 0u8..8), 1..120), max_entries in 1u64..20,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let bounds = bounds(max_entries, 1 << 20);
        let mut both = Both::load(dir.path(), bounds);
        for (id, kind) in steps {
            match kind {
                0..3 if both.events().iter().all(|event| event.id.0 != id) => both.intend(id),
                3..5 => both.spared(id),
                5 => both.disk.rewrite(&both.entries),
                _ => drop(both.add(event(id))),
            }
        }
        let again = Both::load(dir.path(), bounds);
        prop_assert_eq!(again.events(), both.events());
        prop_assert!(again.entries.intents().eq(both.entries.intents()));
    }

    #[test]
    fn the_file_is_bounded_and_says_what_memory_says(
        steps in prop::collection::vec((0u128..60, 0u64..200_000, 0u8..4), 1..120),
        max_entries in 1u64..20, max_size in 2000u64..12_000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let bounds = bounds(max_entries, max_size);
        let mut both = Both::load(dir.path(), bounds);
        for (id, repeats, kind) in steps {
            if kind == 0 { both.repeats(id, repeats) } else { drop(both.add(Event { repeats, ..event(id) })) }
            prop_assert!(fs::metadata(dir.path().join(NAME)).unwrap().len() <= max_size);
        }
        prop_assert!(both.is_open());
        prop_assert_eq!(Both::load(dir.path(), bounds).events(), both.events());
    }
}
