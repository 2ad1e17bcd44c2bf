//! What `--json` prints, held against `docs/memchargectl.schema.json`: here what the contract of the bus decides, in the
//! tests of each verb what that verb prints.

use clap::CommandFactory;
use jsonschema::Validator;
use memcharge_dbus::{EVENT_KEYS, MOUNT_PROPERTIES};
use memcharge_policy::outcome::{LimitKind, LimitName, Operation, Outcome, Reason};
use serde_json::{Value as Json, json};

use crate::{cli::Cli, json::snake_case};

const SCHEMA: &str = include_str!("../../docs/memchargectl.schema.json");
const TEXT: &str = include_str!("../../docs/json.md");

/// Verbs that print nothing, with or without `--json`.
const SILENT: [&str; 4] = ["recover", "retarget", "revert", "unmount"];

/// Fails the test unless each line of the output is as the schema says of this verb.
#[track_caller]
pub(crate) fn assert_valid(verb: &str, output: &str) {
    assert!(output.ends_with('\n'), "{verb}: {output}");
    let validator = validator(verb);
    for line in output.lines() {
        let errors = errors(&validator, &serde_json::from_str(line).unwrap());
        assert_eq!(errors, Vec::<String>::new(), "{verb}: {line}");
    }
}

fn schema() -> Json {
    serde_json::from_str(SCHEMA).unwrap()
}

fn validator(verb: &str) -> Validator {
    let mut schema = schema();
    assert!(schema["$defs"].get(verb).is_some(), "the schema says nothing of {verb}");
    schema["$ref"] = json!(format!("#/$defs/{verb}"));
    jsonschema::draft202012::new(&schema).unwrap()
}

fn errors(validator: &Validator, found: &Json) -> Vec<String> {
    validator.iter_errors(found).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn keys(object: &Json) -> Vec<String> {
    let mut keys: Vec<String> = object.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys
}

#[test]
fn the_schema_is_one() {
    jsonschema::draft202012::meta::validate(&schema()).unwrap();
}

#[test]
fn every_verb_is_documented_that_prints_something() {
    for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let (name, silent) = (verb.get_name(), SILENT.contains(&verb.get_name()));
        assert_eq!(schema()["$defs"].get(name).is_some(), !silent, "{name}");
        assert_eq!(TEXT.contains(&format!("\n## `{name}`")), !silent, "{name}");
        assert!(TEXT.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn the_contract_of_the_bus_is_documented() {
    let defs = &schema()["$defs"];
    let sorted = |names: Vec<String>| {
        let mut names = names;
        names.sort();
        names
    };
    let mount = MOUNT_PROPERTIES.iter().map(|name| snake_case(name));
    assert_eq!(
        keys(&defs["mount_properties"]["properties"]),
        sorted(mount.chain(["errors".to_owned()]).collect())
    );
    let event = EVENT_KEYS.iter().map(|(name, _)| snake_case(name)).collect();
    assert_eq!(keys(&defs["event_keys"]["properties"]), sorted(event));
    let properties = &defs["event_keys"]["properties"];
    for (words, known) in [
        (&defs["outcome"], Outcome::WORDS),
        (&properties["reason"], Reason::WORDS),
        (&properties["operation"], Operation::WORDS),
        (&properties["limit_kind"], LimitKind::WORDS),
        (&properties["limit_name"], LimitName::WORDS),
    ] {
        assert_eq!(words["enum"], json!(known));
    }
}

#[test]
fn what_is_not_documented_is_found() {
    for (verb, output) in [
        ("reload", json!({})),
        ("reload", json!({"config_generation": "1"})),
        ("reload", json!({"config_generation": 1, "more": 1})),
        ("check", json!([{"file": "/a", "line": 1}])),
        ("list", json!([{"name": "m"}])),
        ("history", json!([{"id": "x"}])),
        ("monitor", json!({"signal": "other", "received_usec": 1})),
        ("monitor", json!({"signal": "mount_new", "mount": "m", "received_usec": 1, "more": 1})),
    ] {
        assert_ne!(errors(&validator(verb), &output), Vec::<String>::new(), "{verb}: {output}");
    }
}
