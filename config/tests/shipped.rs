//! The files that are shipped, and the example of the manual, are valid as they stand and with every key active.

use memcharge_config::{Accounts, Fragment, MainFragment, MainSettings, resolve};
use memcharge_policy::{KillPolicy, MountPolicy, Target};

const MAIN: &str = include_str!("../etc/memcharged.toml");
const MODELS: &str = include_str!("../examples/models.toml");

const MANUAL: &str = r#"where   = "/run/shared/models"
target  = "models.slice"
backend = "redirect"
options = ["nosuid", "nodev"]
size    = "2G"
inodes  = 100000
mode    = "1777"
on-full = "enospc"
reserve = "16M"
reclaim = true
sparse  = "reserve"
deadline = "200ms"

[kill]
victim   = "largest"
scope    = "process"
protect  = ["db-*.service"]
cooldown = "15s"
"#;

/// The text with every key active: `#key = value` is a key, `# Words` are words.
fn all_active(text: &str) -> String {
    let active = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(active).collect::<Vec<_>>().join("\n")
}

fn keys(text: &str) -> usize {
    text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count()
}

#[test]
fn the_main_file_changes_nothing_as_it_is_shipped() {
    let main = MainFragment::parse(MAIN, Accounts::system()).unwrap();
    assert_eq!(main, MainFragment::default());
}

#[test]
fn the_main_file_shows_the_defaults() {
    let text = all_active(MAIN);
    assert_eq!(keys(&text), 3 + 13 + 4, "every key is there");
    let settings = MainSettings::from(MainFragment::parse(&text, Accounts::system()).unwrap());
    let defaults = settings.defaults.clone();
    assert!(defaults.size.is_some() && defaults.inodes.is_some() && defaults.reserve.is_some());
    assert_eq!(settings, MainSettings { defaults: defaults.clone(), ..MainSettings::default() });

    let (name, place, target) = ("m", "/srv/m", Target::Slice("m.slice".into()));
    let said = Fragment { place: Some(place.into()), target: Some(target.clone()), ..defaults };
    let policy = resolve(name.parse().unwrap(), &said).unwrap();
    let shown = MountPolicy { size: None, inodes: None, reserve: None, ..policy };
    assert_eq!(shown, MountPolicy::new(name.parse().unwrap(), place.into(), target));
}

#[test]
fn the_example_is_a_mount() {
    for text in [MODELS.to_owned(), all_active(MODELS)] {
        let fragment = Fragment::parse(&text, Accounts::system()).unwrap();
        assert!(resolve("models".parse().unwrap(), &fragment).is_ok());
    }
    assert_eq!(keys(MODELS), 2);
    assert_eq!(keys(&all_active(MODELS)), 12);
}

#[test]
fn the_example_of_the_manual_is_a_mount() {
    let fragment = Fragment::parse(MANUAL, Accounts::system()).unwrap();
    let policy = resolve("models".parse().unwrap(), &fragment).unwrap();
    assert_eq!(policy.place, "/run/shared/models");
    assert_eq!(policy.inodes, Some(100_000));
    assert_eq!(policy.kill, KillPolicy { protect: vec!["db-*.service".into()], ..KillPolicy::default() });
}
