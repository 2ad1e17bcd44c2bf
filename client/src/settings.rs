//! Keys and values as in a mount's file, turned into properties with their types on the bus.

use std::str::FromStr;

use memcharge_policy::{
    Bytes, KillScope, KillVictim, MountOption, OnFull, PolicyError, SizeCap, Sparse, check_options,
    parse_duration,
};
use zbus::zvariant::Value;

use crate::error::ClientError;

/// How alike two words must be (Jaro-Winkler, 0 to 1) for one to be offered in place of the other: "rserve" and
/// "reserve" are, "foo" and "on-full" are not.
const ALIKE: f64 = 0.8;

/// The highest file mode: permissions, sticky and set-id bits.
const MAX_MODE: u32 = 0o7777;

/// A property to be set, and its value.
#[derive(Debug, PartialEq)]
pub(crate) struct Setting {
    /// The name of the property.
    pub(crate) property: &'static str,
    /// Its value, of the type that the property has.
    pub(crate) value: Value<'static>,
}

type Convert = fn(&'static str, &str) -> Result<Value<'static>, ClientError>;

/// Each key: its name in TOML, its name on the bus, and how a value is read.
const KEYS: [(&str, &str, Convert); 16] = [
    ("backend", "Backend", plain),
    ("deadline", "DeadlineUSec", duration),
    ("gid", "Gid", owner),
    ("inodes", "InodesMax", count),
    ("kill.cooldown", "KillCooldownUSec", duration),
    ("kill.protect", "KillProtect", list),
    ("kill.scope", "KillScope", word::<KillScope>),
    ("kill.victim", "KillVictim", word::<KillVictim>),
    ("mode", "Mode", mode),
    ("on-full", "OnFull", word::<OnFull>),
    ("options", "Options", options),
    ("reclaim", "Reclaim", boolean),
    ("reserve", "Reserve", size),
    ("size", "SizeMax", cap),
    ("sparse", "Sparse", word::<Sparse>),
    ("uid", "Uid", owner),
];

/// Keys of a mount's file that do nothing yet.
const RESERVED: [&str; 4] = ["allow-cgroups", "client-quota", "on-target-exit", "swap"];

/// Keys of a mount's file that are options of their own on the command line.
const ELSEWHERE: [(&str, &str); 2] = [("where", "give it with --where"), ("target", "give it with --target")];

/// Reads `KEY=VALUE`.
pub(crate) fn parse_assignment(text: &str) -> Result<Setting, ClientError> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => parse_setting(key.trim(), value.trim()),
        _ => Err(ClientError::NotAssigned(text.to_owned())),
    }
}

/// Reads the value of a key of a mount's file.
pub(crate) fn parse_setting(key: &str, value: &str) -> Result<Setting, ClientError> {
    match KEYS.iter().find(|(name, ..)| *name == key) {
        Some((name, property, convert)) => Ok(Setting { property, value: convert(name, value)? }),
        None if let Some(reserved) = RESERVED.iter().find(|name| **name == key) => {
            Err(ClientError::NotBuilt(reserved))
        }
        None => Err(ClientError::UnknownKey { key: key.to_owned(), hint: hint(key) }),
    }
}

/// The key in TOML that sets this property; the property's own name where no key does.
pub(crate) fn key_of(property: &'static str) -> &'static str {
    KEYS.iter().find(|(_, name, _)| *name == property).map_or(property, |(key, ..)| key)
}

fn hint(key: &str) -> String {
    if let Some((_, advice)) = ELSEWHERE.iter().find(|(name, _)| *name == key) {
        return (*advice).to_owned();
    }
    let likeness = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or(name);
        strsim::jaro_winkler(key, name).max(strsim::jaro_winkler(key, last))
    };
    let nearest = KEYS.iter().map(|(name, ..)| (likeness(name), *name)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((score, name)) if score >= ALIKE => format!("did you mean `{name}`?"),
        _ => format!("the keys are {}", KEYS.map(|(name, ..)| name).join(", ")),
    }
}

fn checked<T>(key: &'static str, parsed: Result<T, PolicyError>) -> Result<T, ClientError> {
    parsed.map_err(|source| ClientError::Value { key, source })
}

fn form(key: &'static str, value: &str, wanted: &'static str) -> ClientError {
    ClientError::Form { key, value: value.to_owned(), wanted }
}

fn plain(_: &'static str, value: &str) -> Result<Value<'static>, ClientError> {
    Ok(Value::from(value.to_owned()))
}

/// One of the words that `T` knows.
fn word<T: FromStr<Err = PolicyError>>(
    key: &'static str,
    value: &str,
) -> Result<Value<'static>, ClientError> {
    checked(key, value.parse::<T>())?;
    plain(key, value)
}

fn size(key: &'static str, value: &str) -> Result<Value<'static>, ClientError> {
    Ok(Value::from(checked(key, value.parse::<Bytes>())?.0))
}

/// Bytes as a number; a share of the target's limit stays text, since only the daemon knows the limit.
fn cap(key: &'static str, value: &str) -> Result<Value<'static>, ClientError> {
    Ok(match checked(key, value.parse::<SizeCap>())? {
        SizeCap::Bytes(bytes) => Value::from(bytes.0),
        share @ SizeCap::Percent(_) => Value::from(share.to_string()),
    })
}

fn count(key: &'static str, value: &str) -> Result<Value<'static>, ClientError> {
    value.parse::<u64>().map(Value::from).map_err(|_| form(key, value, "a number"))
}

fn boolean(key: &'static str, value: &str) -> Result<Value<'static>, ClientError> {
    value.parse::<bool>().map(Value::from).map_err(|_| form(key, value, "true or false"))
}

fn mode(key: &'static str, value: &str) -> Result<Value<'static>, ClientError> {
    let bits = u32::from_str_radix(value, 8).ok().filter(|bits| *bits <= MAX_MODE && !value.starts_with('+'));
    checked(key, bits.ok_or_else(|| PolicyError::Mode(value.to_owned()))).map(Value::from)
}

/// A number, or a name that the daemon looks up.
fn owner(key: &'static str, value: &str) -> Result<Value<'static>, ClientError> {
    if value.is_empty() {
        return Err(form(key, value, "a name or a number"));
    }
    if !value.bytes().all(|b| b.is_ascii_digit()) {
        return plain(key, value);
    }
    // 2^32-1 means "nobody given" to the kernel.
    let id = value.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    id.map(Value::from).ok_or_else(|| form(key, value, "an id below 4294967295"))
}

fn duration(key: &'static str, value: &str) -> Result<Value<'static>, ClientError> {
    let span = checked(key, parse_duration(value))?;
    u64::try_from(span.as_micros()).map(Value::from).map_err(|_| form(key, value, "a time span that short"))
}

fn words_of(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn list(_: &'static str, value: &str) -> Result<Value<'static>, ClientError> {
    Ok(Value::from(words_of(value)))
}

fn options(key: &'static str, value: &str) -> Result<Value<'static>, ClientError> {
    let words = words_of(value);
    let parsed = words.iter().map(|word| word.parse::<MountOption>()).collect::<Result<Vec<_>, _>>();
    checked(key, parsed.and_then(|options| check_options(&options)))?;
    Ok(Value::from(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_not_built_yet() {
        for key in RESERVED {
            assert!(matches!(parse_setting(key, "1"), Err(ClientError::NotBuilt(name)) if name == key));
        }
    }

    #[test]
    fn values_have_the_types_of_the_contract() {
        for (text, property, value) in [
            ("reserve=16M", "Reserve", Value::from(16u64 << 20)),
            ("inodes=100000", "InodesMax", Value::from(100_000u64)),
            ("mode=1777", "Mode", Value::from(0o1777u32)),
            ("uid=1000", "Uid", Value::from(1000u32)),
            ("gid=staff", "Gid", Value::from("staff")),
            ("options=nosuid, ro", "Options", Value::from(vec!["nosuid".to_owned(), "ro".to_owned()])),
            ("reclaim=false", "Reclaim", Value::from(false)),
            ("deadline=200ms", "DeadlineUSec", Value::from(200_000u64)),
            ("kill.victim=oom-score", "KillVictim", Value::from("oom-score")),
            ("kill.scope=cgroup", "KillScope", Value::from("cgroup")),
            ("kill.protect=db-*.service", "KillProtect", Value::from(vec!["db-*.service".to_owned()])),
            ("kill.cooldown=15s", "KillCooldownUSec", Value::from(15_000_000u64)),
            ("on-full = kill", "OnFull", Value::from("kill")),
            ("sparse=sigbus", "Sparse", Value::from("sigbus")),
            ("size=2G", "SizeMax", Value::from(2u64 << 30)),
            ("size=50%", "SizeMax", Value::from("50%")),
            ("backend=redirect", "Backend", Value::from("redirect")),
        ] {
            let setting = parse_assignment(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(setting, Setting { property, value }, "{text}");
        }
    }

    #[test]
    fn every_key_is_a_property_of_the_same_type() {
        let node = zbus_xml::Node::try_from(memcharge_dbus::MOUNT_XML).unwrap();
        let properties = node.interfaces()[0].properties();
        for (key, property, convert) in KEYS {
            let declared =
                properties.iter().find(|p| p.name() == property).unwrap_or_else(|| panic!("{property}"));
            let accepted = ["1", "true", "enospc", "reserve", "largest", "process", "ro"];
            let value = accepted.iter().find_map(|text| convert(key, text).ok()).unwrap();
            assert_eq!(value.value_signature(), declared.ty().inner(), "{key}");
            assert_eq!(key_of(property), key);
        }
    }

    #[test]
    fn a_wrong_value_names_its_key_and_is_wrong_usage() {
        for text in [
            "reserve=16 M",
            "inodes=-1",
            "mode=8",
            "mode=10000",
            "uid=",
            "uid=4294967295",
            "options=nosuid,suid",
            "options=bind",
            "reclaim=yes",
            "deadline=fast",
            "on-full=oom",
            "size=101%",
        ] {
            let error = parse_assignment(text).unwrap_err();
            let key = text.split('=').next().unwrap();
            assert!(error.to_string().starts_with(&format!("{key}: ")), "{error}");
            assert_eq!(error.exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn a_wrong_key_is_answered_with_the_right_one() {
        for (text, message) in [
            ("rserve=1M", "there is no key `rserve`; did you mean `reserve`?"),
            ("on_full=kill", "there is no key `on_full`; did you mean `on-full`?"),
            ("victim=newest", "there is no key `victim`; did you mean `kill.victim`?"),
            ("target=a.slice", "there is no key `target`; give it with --target"),
            ("size", "`size` is not of the form KEY=VALUE"),
            ("=1", "`=1` is not of the form KEY=VALUE"),
        ] {
            let error = parse_assignment(text).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.exit_code()), (message, 2));
        }
        assert!(
            parse_assignment("foo=1").unwrap_err().to_string().contains("the keys are backend, deadline")
        );
    }
}
