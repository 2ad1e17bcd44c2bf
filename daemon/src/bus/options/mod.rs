//! The options of methods, `a{sv}`, as a fragment of configuration, a change of policy or a query. Pure, and with no other
//! module of the daemon, so that it can be fuzzed alone.

use std::{collections::HashMap, time::Duration};

use memcharge_config::{Accounts, Fragment};
use memcharge_dbus::NO_LIMIT;
use memcharge_policy::{Bytes, PolicyPatch, SizeCap, Target};
use zbus::zvariant::{OwnedValue, Value};

/// No call has more options.
const MAX_OPTIONS: usize = 64;

/// The longest text in an option, in bytes.
const MAX_TEXT: usize = 4096;

/// The most texts in one option.
const MAX_LIST: usize = 256;

/// Keys of `Mount`.
const MOUNT_KEYS: [&str; 20] = [
    "Where",
    "Target",
    "Persist",
    "Wait",
    "Backend",
    "Options",
    "SizeMax",
    "InodesMax",
    "Mode",
    "Uid",
    "Gid",
    "OnFull",
    "Reserve",
    "Reclaim",
    "Sparse",
    "DeadlineUSec",
    "KillVictim",
    "KillScope",
    "KillProtect",
    "KillCooldownUSec",
];

/// Keys of `SetPolicy`: what can change while a mount is in use.
const POLICY_KEYS: [&str; 10] = [
    "OnFull",
    "Reserve",
    "Reclaim",
    "DeadlineUSec",
    "SizeMax",
    "InodesMax",
    "KillVictim",
    "KillScope",
    "KillProtect",
    "KillCooldownUSec",
];

/// Keys of `GetHistory`.
const HISTORY_KEYS: [&str; 3] = ["Mount", "Since", "Limit"];

/// No answer has more events.
const MAX_EVENTS: u32 = 1000;

/// Keys of `Unmount`.
const UNMOUNT_KEYS: [&str; 1] = ["Lazy"];

/// Keys of `Retarget`.
const RETARGET_KEYS: [&str; 2] = ["Mode", "Wait"];

/// Options as they come over the bus.
pub(super) type Options = HashMap<String, OwnedValue>;

/// Why options are refused. The message names the option and says what is right.
#[derive(Debug, thiserror::Error)]
pub(super) enum OptionError {
    /// It is unknown, or its value is of the wrong type or breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// It is reserved for later.
    #[error("{0} is not built yet")]
    NotBuilt(&'static str),
}

type Result<T> = std::result::Result<T, OptionError>;

/// What the options of `Mount` say.
#[derive(Debug, Clone, Default)]
pub(super) struct MountOptions {
    /// What is about the mount.
    pub(super) fragment: Fragment,
    /// Whether its file is written.
    pub(super) persist: bool,
    /// Whether the target may come later.
    pub(super) wait: bool,
}

/// What the options of `GetHistory` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HistoryOptions {
    /// The mount whose events are wanted; `None`: of all.
    pub(super) mount: Option<String>,
    /// The earliest event, in microseconds since 1970.
    pub(super) since_usec: Option<u64>,
    /// No more than so many, the newest.
    pub(super) limit: u32,
}

/// What the target and the options of `Retarget` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RetargetOptions {
    /// Who shall pay.
    pub(super) target: Target,
    /// Whether what the files hold may stay charged to the old target.
    pub(super) leave_data: bool,
    /// Whether the target may come later.
    pub(super) wait: bool,
}

/// Reads the options of `Mount`.
pub(super) fn read_mount(options: &Options, accounts: Accounts<'_>) -> Result<MountOptions> {
    check_size(options)?;
    let mut read = MountOptions::default();
    for (key, value) in options {
        let option = Given { key, value };
        match key.as_str() {
            "Persist" => read.persist = option.boolean()?,
            "Wait" => read.wait = option.boolean()?,
            "Backend" => option.backend()?,
            key if MOUNT_KEYS.contains(&key) => set(&mut read.fragment, option, accounts)?,
            key => return Err(unknown(key, &MOUNT_KEYS)),
        }
    }
    Ok(read)
}

/// Reads the options of `SetPolicy`. A limit of 2^64-1 takes a limit away.
pub(super) fn read_policy(options: &Options) -> Result<PolicyPatch> {
    check_size(options)?;
    let mut fragment = Fragment::default();
    for (key, value) in options {
        match key.as_str() {
            key if POLICY_KEYS.contains(&key) => {
                set(&mut fragment, Given { key, value }, Accounts::system())?
            }
            "Target" => {
                let what = "who pays is not a matter of policy; call Retarget, or `memchargectl retarget`";
                return Err(OptionError::Invalid(what.to_owned()));
            }
            key if MOUNT_KEYS.contains(&key) => {
                let what = format!("{key} cannot change while it is mounted; unmount it, and mount it again");
                return Err(OptionError::Invalid(what));
            }
            key => return Err(unknown(key, &POLICY_KEYS)),
        }
    }
    if options.is_empty() {
        return Err(OptionError::Invalid(format!(
            "nothing shall change; the options are {}",
            POLICY_KEYS.join(", ")
        )));
    }
    let problems = memcharge_config::check(&fragment);
    if !problems.is_empty() {
        let words: Vec<_> = problems.iter().map(ToString::to_string).collect();
        return Err(OptionError::Invalid(words.join("; ")));
    }
    let given = |key: &str| options.contains_key(key);
    Ok(PolicyPatch {
        on_full: fragment.on_full,
        reserve: given("Reserve").then_some(fragment.reserve),
        reclaim: fragment.reclaim,
        deadline: fragment.deadline,
        size: given("SizeMax").then_some(fragment.size),
        inodes: given("InodesMax").then_some(fragment.inodes),
        victim: fragment.kill.victim,
        scope: fragment.kill.scope,
        protect: fragment.kill.protect,
        cooldown: fragment.kill.cooldown,
    })
}

/// Reads the options of `GetHistory`.
pub(super) fn read_query(options: &Options) -> Result<HistoryOptions> {
    check_size(options)?;
    let mut query = HistoryOptions { mount: None, since_usec: None, limit: MAX_EVENTS };
    for (key, value) in options {
        let option = Given { key, value };
        match key.as_str() {
            "Mount" => query.mount = Some(option.text()?.to_owned()),
            "Since" => query.since_usec = Some(option.number()?),
            "Limit" => match option.number32()? {
                limit @ 1..=MAX_EVENTS => query.limit = limit,
                limit => return Err(option.wrong(format!("{limit} is not a number from 1 to {MAX_EVENTS}"))),
            },
            key => return Err(unknown(key, &HISTORY_KEYS)),
        }
    }
    Ok(query)
}

/// Reads the options of `Unmount`: whether it is lazy.
pub(super) fn read_unmount(options: &Options) -> Result<bool> {
    check_size(options)?;
    let mut lazy = false;
    for (key, value) in options {
        match key.as_str() {
            "Lazy" => lazy = Given { key, value }.boolean()?,
            key => return Err(unknown(key, &UNMOUNT_KEYS)),
        }
    }
    Ok(lazy)
}

fn set(fragment: &mut Fragment, option: Given<'_>, accounts: Accounts<'_>) -> Result<()> {
    match option.key {
        "Where" => fragment.place = Some(option.text()?.to_owned()),
        "Target" => fragment.target = Some(option.parsed()?),
        "Options" => {
            let words = option.texts()?;
            let words = words.iter().map(|word| word.parse().map_err(|error| option.wrong(error)));
            fragment.options = Some(words.collect::<Result<_>>()?);
        }
        "SizeMax" => fragment.size = option.size()?,
        "InodesMax" => fragment.inodes = option.limit()?,
        "Mode" => fragment.mode = Some(option.number32()?),
        "Uid" => fragment.uid = Some(option.id(accounts.user)?),
        "Gid" => fragment.gid = Some(option.id(accounts.group)?),
        "OnFull" => fragment.on_full = Some(option.parsed()?),
        "Reserve" => fragment.reserve = option.limit()?.map(Bytes),
        "Reclaim" => fragment.reclaim = Some(option.boolean()?),
        "Sparse" => fragment.sparse = Some(option.parsed()?),
        "DeadlineUSec" => fragment.deadline = Some(option.span()?),
        "KillVictim" => fragment.kill.victim = Some(option.parsed()?),
        "KillScope" => fragment.kill.scope = Some(option.parsed()?),
        "KillProtect" => fragment.kill.protect = Some(option.texts()?),
        "KillCooldownUSec" => fragment.kill.cooldown = Some(option.span()?),
        key => return Err(unknown(key, &MOUNT_KEYS)),
    }
    Ok(())
}

/// Reads the target and the options of `Retarget`.
pub(super) fn read_retarget(target: &str, options: &Options) -> Result<RetargetOptions> {
    check_size(options)?;
    let target = target.parse().map_err(|error| OptionError::Invalid(format!("target: {error}")))?;
    let mut wanted = RetargetOptions { target, leave_data: false, wait: false };
    for (key, value) in options {
        let option = Given { key, value };
        match key.as_str() {
            "Wait" => wanted.wait = option.boolean()?,
            "Mode" => match option.text()? {
                "refuse" => wanted.leave_data = false,
                "future-only" => wanted.leave_data = true,
                "migrate" => return Err(OptionError::NotBuilt("the mode migrate")),
                other => {
                    let what =
                        format!("`{}` is no mode; give \"refuse\" or \"future-only\"", other.escape_debug());
                    return Err(option.wrong(what));
                }
            },
            key => return Err(unknown(key, &RETARGET_KEYS)),
        }
    }
    Ok(wanted)
}

fn check_size(options: &Options) -> Result<()> {
    match options.len() {
        0..=MAX_OPTIONS => Ok(()),
        count => {
            Err(OptionError::Invalid(format!("{count} options are too many; give at most {MAX_OPTIONS}")))
        }
    }
}

fn unknown(key: &str, known: &[&str]) -> OptionError {
    let shown: String = key.chars().take(MAX_TEXT.min(64)).flat_map(char::escape_debug).collect();
    let lower = shown.to_lowercase();
    let slips = |word: &&&str| strsim::damerau_levenshtein(&lower, &word.to_lowercase());
    let hint = match known.iter().min_by_key(slips) {
        Some(word) if slips(&word) <= word.len() / 3 + 1 => format!("; did you mean {word}?"),
        _ => format!("; the options are {}", known.join(", ")),
    };
    OptionError::Invalid(format!("there is no option {shown}{hint}"))
}

/// One option.
#[derive(Clone, Copy)]
struct Given<'a> {
    key: &'a str,
    value: &'a OwnedValue,
}

impl<'a> Given<'a> {
    fn wrong(self, why: impl std::fmt::Display) -> OptionError {
        OptionError::Invalid(format!("{}: {why}", self.key))
    }

    fn wrong_type<T>(self, expected: &str) -> Result<T> {
        let found = self.value.value_signature().to_string();
        Err(self.wrong(format!("it must be {expected}, not of the D-Bus type `{found}`")))
    }

    fn boolean(self) -> Result<bool> {
        if let Value::Bool(value) = &**self.value { Ok(*value) } else { self.wrong_type("a boolean (b)") }
    }

    fn number(self) -> Result<u64> {
        if let Value::U64(value) = &**self.value { Ok(*value) } else { self.wrong_type("a number (t)") }
    }

    fn number32(self) -> Result<u32> {
        if let Value::U32(value) = &**self.value { Ok(*value) } else { self.wrong_type("a number (u)") }
    }

    fn text(self) -> Result<&'a str> {
        match &**self.value {
            Value::Str(text) => self.bounded(text.as_str()),
            _ => self.wrong_type("a text (s)"),
        }
    }

    fn bounded(self, text: &'a str) -> Result<&'a str> {
        if text.len() > MAX_TEXT {
            return Err(self.wrong(format!("a text has at most {MAX_TEXT} bytes")));
        }
        Ok(text)
    }

    fn texts(self) -> Result<Vec<String>> {
        let Value::Array(array) = &**self.value else { return self.wrong_type("a list of texts (as)") };
        if array.len() > MAX_LIST {
            return Err(self.wrong(format!("a list has at most {MAX_LIST} entries")));
        }
        let text = |value: &'a Value<'_>| match value {
            Value::Str(text) => self.bounded(text.as_str()).map(str::to_owned),
            _ => self.wrong_type("a list of texts (as)"),
        };
        array.iter().map(text).collect()
    }

    fn parsed<T: std::str::FromStr<Err = memcharge_policy::PolicyError>>(self) -> Result<T> {
        self.text()?.parse().map_err(|error| self.wrong(error))
    }

    fn limit(self) -> Result<Option<u64>> {
        self.number().map(|number| Some(number).filter(|number| *number != NO_LIMIT))
    }

    fn span(self) -> Result<Duration> {
        self.number().map(Duration::from_micros)
    }

    fn size(self) -> Result<Option<SizeCap>> {
        match &**self.value {
            Value::U64(_) => Ok(self.limit()?.map(|bytes| SizeCap::Bytes(Bytes(bytes)))),
            Value::Str(_) => self.parsed().map(Some),
            _ => self.wrong_type("a number of bytes (t), or a text (s) such as \"50%\""),
        }
    }

    fn id(self, number_of: &dyn Fn(&str) -> Option<u32>) -> Result<u32> {
        match &**self.value {
            Value::U32(id) => Ok(*id),
            Value::Str(_) => {
                let name = self.text()?;
                let id = number_of(name).or_else(|| name.parse().ok());
                id.ok_or_else(|| self.wrong(format!("there is no `{}` on this system", name.escape_debug())))
            }
            _ => self.wrong_type("a number (u) or a name (s)"),
        }
    }

    fn backend(self) -> Result<()> {
        match self.text()? {
            "redirect" => Ok(()),
            "guard" => Err(OptionError::NotBuilt("the backend guard")),
            other => Err(self.wrong(format!("`{}` is no backend; give \"redirect\"", other.escape_debug()))),
        }
    }
}

#[cfg(test)]
mod tests;
