//! Which keys and tables a file may have.

use crate::{error::Hint, nearest::nearest};

/// Keys of a mount that are reserved and do nothing yet.
pub(crate) const RESERVED: [&str; 3] = ["allow-cgroups", "client-quota", "on-target-exit"];

/// One table of a kind of file.
#[derive(Debug)]
pub(crate) struct Section {
    /// The table's full name; empty for the top of the file.
    pub(crate) name: &'static str,
    /// Keys that are accepted here, without those that are reserved for later.
    pub(crate) keys: &'static [&'static str],
    /// Tables that are accepted here.
    pub(crate) tables: &'static [&'static str],
}

const MOUNT_KEYS: &[&str] = &[
    "where", "target", "backend", "options", "size", "inodes", "mode", "uid", "gid", "on-full", "reserve",
    "reclaim", "sparse", "deadline", "swap",
];

const DEFAULT_KEYS: &[&str] = &[
    "backend", "options", "size", "inodes", "mode", "uid", "gid", "on-full", "reserve", "reclaim", "sparse",
    "deadline", "swap",
];

const KILL_KEYS: &[&str] = &["victim", "scope", "protect", "cooldown"];

/// `mounts.d/NAME.toml`: the top, then `[kill]`.
pub(crate) static MOUNT_FILE: [Section; 2] = [
    Section { name: "", keys: MOUNT_KEYS, tables: &["kill"] },
    Section { name: "kill", keys: KILL_KEYS, tables: &[] },
];

/// `memcharged.toml`.
pub(crate) static MAIN_FILE: [Section; 4] = [
    Section { name: "", keys: &["log-level"], tables: &["history", "defaults"] },
    Section { name: "history", keys: &["max-entries", "max-size"], tables: &[] },
    Section { name: "defaults", keys: DEFAULT_KEYS, tables: &["kill"] },
    Section { name: "defaults.kill", keys: KILL_KEYS, tables: &[] },
];

/// All keys that a configuration file may have, with the table that each is in (empty: none): those of a mount's file, those
/// of the main file, and those that are reserved.
pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    let sections = MOUNT_FILE.iter().chain(&MAIN_FILE);
    let keys = sections.flat_map(|section| section.keys.iter().map(|key| (section.name, *key)));
    keys.chain(RESERVED.map(|key| ("", key)))
}

/// What an unknown key in `here` was perhaps meant to be. A right key in the wrong table is common: in TOML all keys
/// after a `[table]` line belong to that table.
pub(crate) fn hint_key(found: &str, here: &Section, file: &'static [Section]) -> Hint {
    if let Some(section) = file.iter().find(|section| section.keys.contains(&found)) {
        return Hint::Belongs(section.name);
    }
    nearest(found, here.keys).map_or(Hint::Keys(here.keys), Hint::DidYouMean)
}

/// What an unknown table in `here` was perhaps meant to be.
pub(crate) fn hint_table(found: &str, here: &Section) -> Hint {
    nearest(found, here.tables).map_or(Hint::Tables(here.tables), Hint::DidYouMeanTable)
}
