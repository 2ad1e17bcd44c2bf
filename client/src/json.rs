//! Values of the bus as JSON, under the names of the bus in snake_case.

use serde_json::{Map, Value as Json};
use zbus::zvariant::Value;

/// A D-Bus name in snake_case: `UsedBytes` is `used_bytes`, `DeadlineUSec` is `deadline_usec`.
pub(crate) fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    // The unit is one word: without this it would come out as "u_sec".
    for c in name.replace("USec", "Usec").chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// A value as JSON. Names inside of it (the keys of `a{sv}`) are in snake_case too.
pub(crate) fn to_json(value: &Value<'_>) -> Json {
    match value {
        Value::Bool(v) => Json::from(*v),
        Value::U8(v) => Json::from(*v),
        Value::I16(v) => Json::from(*v),
        Value::U16(v) => Json::from(*v),
        Value::I32(v) => Json::from(*v),
        Value::U32(v) => Json::from(*v),
        Value::I64(v) => Json::from(*v),
        Value::U64(v) => Json::from(*v),
        Value::F64(v) => Json::from(*v),
        Value::Str(v) => Json::from(v.as_str()),
        Value::ObjectPath(v) => Json::from(v.as_str()),
        Value::Signature(v) => Json::from(v.to_string()),
        Value::Value(inner) => to_json(inner),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Structure(fields) => fields.fields().iter().map(to_json).collect(),
        Value::Dict(dict) => Json::Object(
            dict.iter()
                .map(|(key, value)| (snake_case(&key_text(key)), to_json(value)))
                .collect::<Map<_, _>>(),
        ),
        Value::Fd(_) => Json::Null,
    }
}

/// A value as one line of text, as `systemctl show` has it: `yes` and `no`, lists and dictionaries with spaces.
pub(crate) fn to_text(value: &Value<'_>) -> String {
    match value {
        Value::Bool(v) => if *v { "yes" } else { "no" }.to_owned(),
        Value::Value(inner) => to_text(inner),
        Value::Array(items) => items.iter().map(to_text).collect::<Vec<_>>().join(" "),
        Value::Structure(fields) => fields.fields().iter().map(to_text).collect::<Vec<_>>().join(" "),
        Value::Dict(dict) => {
            let mut entries: Vec<String> =
                dict.iter().map(|(key, value)| format!("{}={}", key_text(key), to_text(value))).collect();
            entries.sort();
            entries.join(" ")
        }
        other => match to_json(other) {
            Json::String(text) => escape_controls(&text),
            Json::Null => String::new(),
            plain => plain.to_string(),
        },
    }
}

/// The text without control characters, so that a path cannot break a line or drive a terminal.
pub(crate) fn escape_controls(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

fn key_text(key: &Value<'_>) -> String {
    match key {
        Value::Str(text) => text.to_string(),
        other => to_text(other),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn names_become_snake_case() {
        for (name, snake) in [
            ("Name", "name"),
            ("UsedBytes", "used_bytes"),
            ("DeadlineUSec", "deadline_usec"),
            ("KillCooldownUSec", "kill_cooldown_usec"),
            ("RealtimeUSec", "realtime_usec"),
            ("DropInPaths", "drop_in_paths"),
            ("TargetId", "target_id"),
            ("Uid", "uid"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }

    #[test]
    fn values_keep_their_exact_numbers() {
        assert_eq!(to_json(&Value::from(u64::MAX)).to_string(), "18446744073709551615");
        assert_eq!(to_text(&Value::from(u64::MAX)), "18446744073709551615");
    }

    #[test]
    fn containers() {
        let list = Value::from(vec!["a", "b"]);
        assert_eq!((to_json(&list), to_text(&list).as_str()), (json!(["a", "b"]), "a b"));
        let dict = Value::from(HashMap::from([
            ("Outcome", Value::from("enospc")),
            ("BytesAsked", Value::from(4096u64)),
        ]));
        assert_eq!(to_json(&dict), json!({"outcome": "enospc", "bytes_asked": 4096}));
        assert_eq!(to_text(&dict), "BytesAsked=4096 Outcome=enospc");
        assert_eq!(to_text(&Value::from(true)), "yes");
    }

    #[test]
    fn a_name_cannot_break_a_line() {
        assert_eq!(to_text(&Value::from("/run/a\nb\u{1b}[1m")), "/run/a\\nb\\u{1b}[1m");
    }
}
