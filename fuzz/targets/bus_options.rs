//! The options of D-Bus methods: dictionaries with any keys and any values, which everybody on the bus can send.
#![no_main]

use std::collections::HashMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use memcharge_config::{Accounts, resolve};
use memcharge_dbus::{MOUNT_PROPERTIES, read_event};
use memcharge_policy::{MountName, MountPolicy, Target};
use zbus::zvariant::{Array, Dict, ObjectPath, OwnedValue, Signature, Structure, Value};

// memcharged is a program, and nobody depends on it.
#[path = "../../daemon/src/bus/options/mod.rs"]
mod options;

/// Options that are no properties of a mount.
const OTHER_KEYS: [&str; 6] = ["Persist", "Wait", "Mount", "Since", "Limit", "Lazy"];

/// Targets, right and wrong ones.
const TARGETS: [&str; 4] = ["models.slice", "/kubepods.slice/pod1.slice", "no\nname", "/../x"];

/// Words that some option takes.
const WORDS: [&str; 20] = [
    "future-only",
    "migrate",
    "redirect",
    "guard",
    "enospc",
    "kill",
    "reserve",
    "sigbus",
    "largest",
    "newest",
    "oom-score",
    "process",
    "cgroup",
    "50%",
    "2G",
    "nosuid",
    "ro",
    "models.slice",
    "/kubepods.slice/pod1.slice",
    "/run/shared/models",
];

/// An answer is a message on the bus, and a line in a terminal.
const LONGEST_MESSAGE: usize = 1 << 20;

#[derive(Debug, Arbitrary)]
enum Key<'a> {
    Property(u8),
    Other(u8),
    Any(&'a str),
}

#[derive(Debug, Arbitrary)]
enum Any<'a> {
    Bool(bool),
    U8(u8),
    I16(i16),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    NoLimit,
    Word(u8),
    Text(&'a str),
    Words(Vec<u8>),
    Texts(Vec<&'a str>),
    Numbers(Vec<u64>),
    Path(&'a str),
    Signature(&'a str),
    Dict(Vec<(&'a str, u32)>),
    Struct(u32, &'a str),
    Nested(Box<Any<'a>>),
}

fuzz_target!(|given: Vec<(Key<'_>, Any<'_>)>| {
    let own = |(key, value)| Some((key_of(&key), OwnedValue::try_from(value_of(value)?).ok()?));
    let given: HashMap<String, OwnedValue> = given.into_iter().filter_map(own).collect();
    mount(&given);
    policy(&given);
    answer(options::read_query(&given).map(|query| (query.mount, query.since_usec, query.limit)));
    answer(options::read_unmount(&given));
    for target in TARGETS {
        answer(options::read_retarget(target, &given).map(|read| (read.target, read.leave_data, read.wait)));
    }
    let _ = read_event(&given);
});

fn mount(given: &options::Options) {
    let number = |name: &str| (name == "daemon").then_some(1);
    let Some(read) = answer(options::read_mount(given, Accounts { user: &number, group: &number })) else {
        return;
    };
    let _ = (read.persist, read.wait);
    match resolve(name(), &read.fragment) {
        Ok(policy) => {
            let written = serde_json::to_string(&policy).expect("a record is written");
            assert_eq!(serde_json::from_str::<MountPolicy>(&written).ok(), Some(policy), "{written}");
            // With `Persist` it is read from a file again.
            let file = read.fragment.to_toml();
            let again = memcharge_config::Fragment::parse(&file, Accounts { user: &number, group: &number });
            assert_eq!(again, Ok(read.fragment), "{file}");
        }
        Err(problems) => problems.iter().for_each(|problem| is_fit_to_print(&problem.to_string())),
    }
}

fn policy(given: &options::Options) {
    let Some(patch) = answer(options::read_policy(given)) else { return };
    let before = MountPolicy::new(name(), "/run/m".into(), Target::Slice("m.slice".into()));
    let after = before.patched(patch.clone());
    assert_eq!(after.patched(patch), after, "a change is idempotent");
    assert_eq!((&after.place, &after.target, after.mode), (&before.place, &before.target, before.mode));
}

fn name() -> MountName {
    "m".parse().expect("a name")
}

fn answer<T>(read: Result<T, options::OptionError>) -> Option<T> {
    read.inspect_err(|error| is_fit_to_print(&error.to_string())).ok()
}

/// What was sent does not come back as commands for a terminal, or as lines of a log.
fn is_fit_to_print(message: &str) {
    assert!(!message.is_empty() && message.len() < LONGEST_MESSAGE);
    assert!(!message.contains(char::is_control), "{message:?}");
}

fn key_of(key: &Key<'_>) -> String {
    let pick = |keys: &[&str], at: u8| keys[usize::from(at) % keys.len()].to_owned();
    match key {
        Key::Property(at) => pick(&MOUNT_PROPERTIES, *at),
        Key::Other(at) => pick(&OTHER_KEYS, *at),
        Key::Any(text) => (*text).to_owned(),
    }
}

fn word(at: u8) -> &'static str {
    WORDS[usize::from(at) % WORDS.len()]
}

/// The value; `None` where D-Bus has none such.
fn value_of(any: Any<'_>) -> Option<Value<'_>> {
    Some(match any {
        Any::Bool(value) => value.into(),
        Any::U8(value) => value.into(),
        Any::I16(value) => value.into(),
        Any::U32(value) => value.into(),
        Any::I64(value) => value.into(),
        Any::U64(value) => value.into(),
        Any::F64(value) => value.into(),
        Any::NoLimit => u64::MAX.into(),
        Any::Word(at) => word(at).into(),
        Any::Text(text) => text.into(),
        Any::Words(list) => Array::from(list.into_iter().map(word).collect::<Vec<_>>()).into(),
        Any::Texts(list) => Array::from(list).into(),
        Any::Numbers(list) => Array::from(list).into(),
        Any::Path(text) => ObjectPath::try_from(text).ok()?.into(),
        Any::Signature(text) => Signature::try_from(text).ok()?.into(),
        Any::Dict(list) => Dict::from(list.into_iter().collect::<HashMap<_, _>>()).into(),
        Any::Struct(number, text) => Structure::from((number, text)).into(),
        Any::Nested(inner) => Value::Value(Box::new(value_of(*inner)?)),
    })
}
