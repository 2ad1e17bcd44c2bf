//! The main file: how the daemon logs, how much it remembers, what mounts have in common.

use std::{fmt, str::FromStr};

use memcharge_policy::{Bytes, PolicyError};
use toml::de::DeTable;

use crate::{
    error::Located,
    fragment::{Accounts, Fragment, Read, bytes, read_fragment},
    reader::{Entry, Reader, parse_toml},
    vocabulary::{MAIN_FILE, Section},
};

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What the administrator must act on.
    Error,
    /// Also what is degraded.
    Warn,
    /// Also changes of state.
    Info,
    /// Also decisions.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The words in the order of the variants.
    pub const WORDS: &[&str] = &["error", "warn", "info", "debug", "trace"];

    /// The variants in their order.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The word for this level.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl FromStr for LogLevel {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or_else(|| PolicyError::Word {
            what: "a value of log-level",
            found: text.to_owned(),
            accepted: "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        })
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one main file or drop-in says; `None` is "not said".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MainFragment {
    /// `log-level`.
    pub log_level: Option<LogLevel>,
    /// The table `[history]`.
    pub history: HistoryFragment,
    /// The table `[defaults]`: any key of a mount but `where` and `target`.
    pub defaults: Fragment,
}

/// What one file says about the history; `None` is "not said".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryFragment {
    /// `max-entries`: how many arbitrations are kept.
    pub max_entries: Option<u64>,
    /// `max-size`: how much room they take at most.
    pub max_size: Option<Bytes>,
}

/// The daemon's own settings, with the built-in defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainSettings {
    /// How much is logged.
    pub log_level: LogLevel,
    /// How much is remembered.
    pub history: HistorySettings,
    /// What every mount starts from; lay the mount's own fragments over it with [`crate::merge()`].
    pub defaults: Fragment,
}

/// How much of the history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistorySettings {
    /// How many arbitrations, at least 1.
    pub max_entries: u64,
    /// How much room they take at most, at least 1 byte.
    pub max_size: Bytes,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self { max_entries: 10_000, max_size: Bytes::mib(16) }
    }
}

impl Default for MainSettings {
    fn default() -> Self {
        MainFragment::default().into()
    }
}

impl From<MainFragment> for MainSettings {
    /// Fills in the built-in defaults.
    fn from(merged: MainFragment) -> Self {
        let built_in = HistorySettings::default();
        Self {
            log_level: merged.log_level.unwrap_or(LogLevel::Info),
            history: HistorySettings {
                max_entries: merged.history.max_entries.unwrap_or(built_in.max_entries),
                max_size: merged.history.max_size.unwrap_or(built_in.max_size),
            },
            defaults: merged.defaults,
        }
    }
}

impl MainFragment {
    /// Reads the text of `memcharged.toml` or of one of its drop-ins; what is wrong comes in the order of the lines.
    pub fn parse(text: &str, accounts: Accounts<'_>) -> Result<Self, Vec<Located>> {
        let read = read_main_file(text, accounts);
        if read.found.is_empty() { Ok(read.value) } else { Err(read.found) }
    }
}

/// Reads as much of a main file as is valid.
pub(crate) fn read_main_file(text: &str, accounts: Accounts<'_>) -> Read<MainFragment> {
    let table = match parse_toml(text) {
        Ok(table) => table,
        Err(found) => return Read { found, ..Read::default() },
    };
    let mut reader = Reader::new(text, &MAIN_FILE);
    let [top, history, defaults, kill] = &MAIN_FILE;
    let mut value = MainFragment::default();
    for (name, spanned) in &table {
        let (found, line) = (name.get_ref().as_ref(), reader.line(name));
        let entry = |key| Entry { key, line, value: spanned.get_ref() };
        match found {
            "log-level" => {
                let expected = "a string such as \"info\"";
                value.log_level = reader.word(entry("log-level"), expected, LogLevel::WORDS);
            }
            "history" => {
                if let Some(table) = subtable(&mut reader, entry("history")) {
                    value.history = read_history(&mut reader, table, history);
                }
            }
            "defaults" => {
                if let Some(table) = subtable(&mut reader, entry("defaults")) {
                    (value.defaults, _) = read_fragment(&mut reader, table, defaults, kill, accounts);
                }
            }
            _ => reader.unknown(line, found, spanned.get_ref(), top),
        }
    }
    Read { value, found: reader.into_found(), place_line: None }
}

fn subtable<'a, 'i>(reader: &mut Reader, entry: Entry<'a, 'i>) -> Option<&'a DeTable<'i>> {
    let table = entry.value.as_table();
    if table.is_none() {
        reader.wrong_type(entry, "a table, with its keys below a line with its name in brackets");
    }
    table
}

fn read_history(reader: &mut Reader, table: &DeTable<'_>, here: &'static Section) -> HistoryFragment {
    let mut history = HistoryFragment::default();
    for (name, spanned) in table {
        let (found, line, value) = (name.get_ref().as_ref(), reader.line(name), spanned.get_ref());
        match found {
            "max-entries" => {
                let entry = Entry { key: "max-entries", line, value };
                history.max_entries = reader.number(entry, "an integer such as 10000", 1..=u64::MAX);
            }
            "max-size" => {
                let entry = Entry { key: "max-size", line, value };
                history.max_size = bytes(reader, entry, 1);
                if history.max_size == Some(Bytes(0)) {
                    reader.rule(entry, "must be at least 1, not 0".to_owned());
                }
            }
            _ => reader.unknown(line, found, value, here),
        }
    }
    history
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_back() {
        for (level, word) in LogLevel::ALL.into_iter().zip(LogLevel::WORDS) {
            assert_eq!(level.to_string(), *word);
            assert_eq!(word.parse(), Ok(level));
        }
    }
}
