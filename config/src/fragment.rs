//! One file's part of a mount, as it stands: every key is optional, what is there has a type.

use std::time::Duration;

use memcharge_policy::{
    Bytes, KillScope, KillVictim, MountOption, OnFull, PolicyError, SizeCap, Sparse, Target, parse_duration,
};
use toml::de::{DeTable, DeValue};

use crate::{
    check::{MAX_ID, MIN_SIZE, check},
    error::{Hint, Located, Problem},
    nearest::nearest,
    reader::{Entry, Reader, parse_toml},
    vocabulary::{MOUNT_FILE, RESERVED, Section},
};

/// What one file says about a mount; `None` is "not said".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// `where`: the mount point, as written.
    pub place: Option<String>,
    /// `target`: who pays.
    pub target: Option<Target>,
    /// `options`: all mount options, instead of those below.
    pub options: Option<Vec<MountOption>>,
    /// `size`: the cap.
    pub size: Option<SizeCap>,
    /// `inodes`: the inode cap.
    pub inodes: Option<u64>,
    /// `mode`: permission bits of the root directory.
    pub mode: Option<u32>,
    /// `uid`: owner of the root directory.
    pub uid: Option<u32>,
    /// `gid`: group of the root directory.
    pub gid: Option<u32>,
    /// `on-full`: what a remote charger gets at the limit.
    pub on_full: Option<OnFull>,
    /// `reserve`: headroom left to the target's own tasks.
    pub reserve: Option<Bytes>,
    /// `reclaim`: whether the target's cache is reclaimed before a charge is refused.
    pub reclaim: Option<bool>,
    /// `sparse`: what happens to holes.
    pub sparse: Option<Sparse>,
    /// `deadline`: the longest time that one arbitration may take, in whole microseconds.
    pub deadline: Option<Duration>,
    /// The table `[kill]`.
    pub kill: KillFragment,
}

/// What one file says about whom to kill.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KillFragment {
    /// `victim`: which process.
    pub victim: Option<KillVictim>,
    /// `scope`: how much of its surroundings.
    pub scope: Option<KillScope>,
    /// `protect`: globs of cgroup names that are never killed, instead of those below.
    pub protect: Option<Vec<String>>,
    /// `cooldown`: the shortest time between two kills, in whole microseconds.
    pub cooldown: Option<Duration>,
}

/// Where the names of users and groups become numbers.
#[derive(Clone, Copy)]
pub struct Accounts<'a> {
    /// The number of a user.
    pub user: &'a (dyn Fn(&str) -> Option<u32> + Sync),
    /// The number of a group.
    pub group: &'a (dyn Fn(&str) -> Option<u32> + Sync),
}

impl Fragment {
    /// Reads the text of a `mounts.d/NAME.toml` or of one of its drop-ins; what is wrong comes in the order of the
    /// lines.
    pub fn parse(text: &str, accounts: Accounts<'_>) -> Result<Self, Vec<Located>> {
        let read = read_mount_file(text, accounts);
        if read.found.is_empty() { Ok(read.value) } else { Err(read.found) }
    }
}

/// What could be read of a text, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Read<T> {
    /// What was valid.
    pub(crate) value: T,
    /// What was not.
    pub(crate) found: Vec<Located>,
    /// The line of `where`, if it is there and is a text.
    pub(crate) place_line: Option<usize>,
}

/// Reads as much of a mount's file as is valid.
pub(crate) fn read_mount_file(text: &str, accounts: Accounts<'_>) -> Read<Fragment> {
    let table = match parse_toml(text) {
        Ok(table) => table,
        Err(found) => return Read { found, ..Read::default() },
    };
    let mut reader = Reader::new(text, &MOUNT_FILE);
    let [top, kill] = &MOUNT_FILE;
    let (value, place_line) = read_fragment(&mut reader, &table, top, kill, accounts);
    Read { value, found: reader.into_found(), place_line }
}

/// Reads the keys of a mount from a table; `top` and `kill` are the sections of the file that it may have.
/// Returns the line of `where` too, if it is a text.
pub(crate) fn read_fragment(
    reader: &mut Reader,
    table: &DeTable<'_>,
    top: &'static Section,
    kill: &'static Section,
    accounts: Accounts<'_>,
) -> (Fragment, Option<usize>) {
    let mut reading =
        Reading { reader, accounts, top, kill, fragment: Fragment::default(), lines: Vec::new() };
    reading.top(table);
    let Reading { reader, fragment, lines, .. } = reading;
    let line_of = |key| lines.iter().find(|(known, _)| *known == key).map(|(_, line)| *line);
    for problem in check(&fragment) {
        let line = problem.key().and_then(line_of).unwrap_or(0);
        reader.report(line, problem);
    }
    let place_line = fragment.place.as_ref().and_then(|_| line_of("where"));
    (fragment, place_line)
}

const BACKENDS: [&str; 2] = ["redirect", "guard"];

struct Reading<'r> {
    reader: &'r mut Reader,
    accounts: Accounts<'r>,
    top: &'static Section,
    kill: &'static Section,
    fragment: Fragment,
    lines: Vec<(&'static str, usize)>,
}

impl Reading<'_> {
    fn top(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            let (found, line, value) = (name.get_ref().as_ref(), self.reader.line(name), value.get_ref());
            if let Some(key) = self.top.keys.iter().find(|key| **key == found) {
                self.lines.push((key, line));
                self.key(Entry { key, line, value });
            } else if let Some(key) = RESERVED.iter().find(|key| **key == found) {
                self.reader.report(line, not_built(key, key, "remove it"));
            } else if found == "kill" {
                self.kill_table(Entry { key: "kill", line, value });
            } else if let Some(key) = ["where", "target"].iter().find(|key| **key == found) {
                let rule = "cannot have a default; give it in the file of each mount".to_owned();
                self.reader.report(line, Problem::Rule { key, rule });
            } else {
                self.reader.unknown(line, found, value, self.top);
            }
        }
    }

    fn key(&mut self, entry: Entry<'_, '_>) {
        let (reader, fragment) = (&mut *self.reader, &mut self.fragment);
        match entry.key {
            "where" => {
                let expected = "a string such as \"/run/shared/models\"";
                fragment.place = reader.text(entry, expected).map(str::to_owned);
            }
            "target" => {
                let expected = "a string such as \"models.slice\"";
                fragment.target = reader.parsed(entry, expected, str::parse);
            }
            "backend" => backend(reader, entry),
            "options" => fragment.options = options(reader, entry),
            "size" => fragment.size = size(reader, entry),
            "inodes" => fragment.inodes = reader.number(entry, "an integer such as 100000", 1..=u64::MAX),
            "mode" => fragment.mode = mode(reader, entry),
            "uid" => fragment.uid = id(reader, entry, self.accounts.user, "user", "/etc/passwd"),
            "gid" => fragment.gid = id(reader, entry, self.accounts.group, "group", "/etc/group"),
            "on-full" => {
                fragment.on_full = reader.word(entry, "a string such as \"enospc\"", OnFull::WORDS);
            }
            "reserve" => fragment.reserve = bytes(reader, entry, 0),
            "reclaim" => fragment.reclaim = reader.boolean(entry),
            "sparse" => {
                fragment.sparse = reader.word(entry, "a string such as \"reserve\"", Sparse::WORDS);
            }
            "deadline" => {
                fragment.deadline = reader.parsed(entry, "a string such as \"200ms\"", parse_duration);
            }
            "swap" if reader.boolean(entry) == Some(true) => {
                let what = "swap = true";
                reader.report(entry.line, not_built("swap", what, "leave it out, or give false"));
            }
            _ => {}
        }
    }

    fn kill_table(&mut self, entry: Entry<'_, '_>) {
        let Some(table) = entry.value.as_table() else {
            return self.reader.wrong_type(entry, "a table, with its keys below a line `[kill]`");
        };
        for (name, value) in table {
            let (found, line, value) = (name.get_ref().as_ref(), self.reader.line(name), value.get_ref());
            match self.kill.keys.iter().find(|key| **key == found) {
                Some(key) => {
                    self.lines.push((key, line));
                    self.kill_key(Entry { key, line, value });
                }
                None => self.reader.unknown(line, found, value, self.kill),
            }
        }
    }

    fn kill_key(&mut self, entry: Entry<'_, '_>) {
        let (reader, kill) = (&mut *self.reader, &mut self.fragment.kill);
        match entry.key {
            "victim" => {
                kill.victim = reader.word(entry, "a string such as \"largest\"", KillVictim::WORDS);
            }
            "scope" => {
                kill.scope = reader.word(entry, "a string such as \"process\"", KillScope::WORDS);
            }
            "protect" => kill.protect = globs(reader, entry),
            "cooldown" => {
                kill.cooldown = reader.parsed(entry, "a string such as \"15s\"", parse_duration);
            }
            _ => {}
        }
    }
}

/// A key or value that is reserved for later.
pub(crate) fn not_built(key: &'static str, what: &str, instead: &'static str) -> Problem {
    Problem::NotBuilt { key, what: what.to_owned(), instead }
}

/// A number of bytes, as a text with a unit or as an integer.
pub(crate) fn bytes(reader: &mut Reader, entry: Entry<'_, '_>, least: u64) -> Option<Bytes> {
    match entry.value {
        DeValue::Integer(_) => reader.number(entry, "", least..=u64::MAX).map(Bytes),
        _ => reader.parsed(entry, "a string such as \"16M\" or a number of bytes", str::parse),
    }
}

fn size(reader: &mut Reader, entry: Entry<'_, '_>) -> Option<SizeCap> {
    match entry.value {
        DeValue::Integer(_) => bytes(reader, entry, MIN_SIZE.0).map(SizeCap::Bytes),
        _ => reader.parsed(entry, "a string such as \"2G\" or a number of bytes", str::parse),
    }
}

fn backend(reader: &mut Reader, entry: Entry<'_, '_>) {
    let Some(text) = reader.text(entry, "a string such as \"redirect\"") else { return };
    match text {
        "redirect" => {}
        "guard" => {
            let what = "backend = \"guard\"";
            reader.report(entry.line, not_built("backend", what, "leave it out, or give \"redirect\""));
        }
        _ => {
            let (what, accepted) = ("a value of backend", "\"redirect\"");
            let error = PolicyError::Word { what, found: text.to_owned(), accepted };
            let hint = nearest(text, &BACKENDS[..1]).map_or(Hint::None, Hint::DidYouMean);
            reader.report(entry.line, Problem::Word { key: "backend", error, hint });
        }
    }
}

fn options(reader: &mut Reader, entry: Entry<'_, '_>) -> Option<Vec<MountOption>> {
    let items = reader.array(entry, "an array of strings such as [\"nosuid\", \"nodev\"]")?;
    let read = items.into_iter().map(|(line, value)| {
        let item = Entry { line, value, ..entry };
        reader.word(item, "an array of strings such as [\"nosuid\", \"nodev\"]", MountOption::WORDS)
    });
    // All items are looked at before the first wrong one makes the whole invalid.
    read.collect::<Vec<_>>().into_iter().collect()
}

fn globs(reader: &mut Reader, entry: Entry<'_, '_>) -> Option<Vec<String>> {
    const EXPECTED: &str = "an array of strings such as [\"db-*.service\"]";
    let items = reader.array(entry, EXPECTED)?;
    let read = items
        .into_iter()
        .map(|(line, value)| reader.text(Entry { line, value, ..entry }, EXPECTED).map(str::to_owned));
    read.collect::<Vec<_>>().into_iter().collect()
}

fn mode(reader: &mut Reader, entry: Entry<'_, '_>) -> Option<u32> {
    if let DeValue::Integer(_) = entry.value {
        reader.wrong_type(entry, "octal digits in quotes, such as \"1777\"");
        return None;
    }
    reader.parsed(entry, "a string such as \"1777\"", |text| {
        let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        let mode = u32::from_str_radix(text, 8).ok().filter(|_| octal);
        mode.ok_or_else(|| PolicyError::Mode(text.to_owned()))
    })
}

fn id(
    reader: &mut Reader,
    entry: Entry<'_, '_>,
    number_of: &dyn Fn(&str) -> Option<u32>,
    kind: &str,
    file: &str,
) -> Option<u32> {
    let text = match entry.value {
        DeValue::Integer(_) => {
            return reader.number(entry, "", 0..=u64::from(MAX_ID)).and_then(|id| u32::try_from(id).ok());
        }
        _ => reader.text(entry, "a name or a number")?,
    };
    let all_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let id = if all_digits { text.parse().ok() } else { number_of(text) };
    if id.is_none() && all_digits {
        reader.rule(entry, format!("must be at most {MAX_ID}, not {text}"));
    } else if id.is_none() {
        let found = text.escape_debug();
        reader.rule(
            entry,
            format!(
                "names the {kind} `{found}`, which {file} does not have; give one that it has, or a number"
            ),
        );
    }
    id
}
