//! Configuration files of any content: all of it is in force, or each error says where it is.
//!
//! The input is the text of several files; a line such as `%% mounts.d/models.toml` begins one.
#![no_main]

use std::{collections::BTreeMap, fs, path::Path};

use libfuzzer_sys::fuzz_target;
use memcharge_config::{Accounts, ConfigError, Fragment, Loaded, MainFragment, Problem, Roots, cat, load};

/// What begins a file.
const MARK: &[u8] = b"%% ";

/// The files that there can be. A mark with another name begins the first one.
const FILES: [&str; 8] = [
    "mounts.d/models.toml",
    "mounts.d/models.toml.d/10-size.toml",
    "mounts.d/models.toml.d/20-kill.toml",
    "mounts.d/cache.toml",
    "mounts.d/cache.toml.d/site.toml",
    "mounts.d/-bad-.toml",
    "memcharged.toml",
    "memcharged.toml.d/site.toml",
];

const ACCOUNTS: Accounts<'static> = Accounts { user: &number, group: &number };

fn number(name: &str) -> Option<u32> {
    (name == "daemon").then_some(1)
}

fuzz_target!(|bytes: &[u8]| {
    let files = files(bytes);
    for text in files.values().filter_map(|bytes| std::str::from_utf8(bytes).ok()) {
        alone(text);
    }
    // In memory: each input is a handful of files.
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    write(dir.path(), &files);
    let roots = Roots::single(dir.path());
    match load(&roots, ACCOUNTS) {
        Ok(loaded) => shown(&roots, &loaded),
        Err(errors) => {
            assert!(!errors.is_empty());
            errors.iter().for_each(|error| names_its_place(error, dir.path(), &files));
            assert_eq!(cat(&roots, ACCOUNTS, None), Err(errors), "everybody is told the same");
        }
    }
});

/// The files of an input, by their names.
fn files(bytes: &[u8]) -> BTreeMap<&'static str, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut name = FILES[0];
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if let Some(wanted) = line.strip_prefix(MARK) {
            name = FILES.into_iter().find(|name| name.as_bytes() == wanted.trim_ascii()).unwrap_or(FILES[0]);
            files.insert(name, Vec::new());
        } else {
            files.entry(name).or_default().extend_from_slice(line);
        }
    }
    files
}

fn write(dir: &Path, files: &BTreeMap<&'static str, Vec<u8>>) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("it is below a directory")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }
}

/// What a text says alone is written such that it is read as the same.
fn alone(text: &str) {
    if let Ok(fragment) = Fragment::parse(text, ACCOUNTS) {
        let written = fragment.to_toml();
        assert_eq!(Fragment::parse(&written, ACCOUNTS), Ok(fragment), "{written}");
    }
    let _ = MainFragment::parse(text, ACCOUNTS);
}

/// An administrator finds what is meant: the file, and in it the line.
fn names_its_place(error: &ConfigError, dir: &Path, files: &BTreeMap<&'static str, Vec<u8>>) {
    let shown = error.to_string();
    assert!(
        !shown.contains(char::is_control),
        "one error is one line, and no terminal's commands: {shown:?}"
    );
    let name = error.file.strip_prefix(dir).ok().and_then(Path::to_str);
    let text = name.and_then(|name| files.get(name)).unwrap_or_else(|| panic!("no such file: {shown}"));
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    let is_whole = matches!(error.problem, Problem::Missing { .. } | Problem::FileName(_));
    assert_eq!(error.line == 0, is_whole, "{shown}");
    assert!(error.line <= lines, "{shown}");
}

/// What `cat-config` shows of a mount is, as its only file, the same mount.
fn shown(roots: &Roots, loaded: &Loaded) {
    assert!(matches!(cat(roots, ACCOUNTS, None), Ok(Some(_))));
    for mount in &loaded.mounts {
        let name = &mount.policy.name;
        let text = cat(roots, ACCOUNTS, Some(name)).expect("it is valid").expect("it is configured");
        let merged = Fragment::parse(&text, ACCOUNTS).expect("it is a mount's file");
        assert_eq!(memcharge_config::resolve(name.clone(), &merged), Ok(mount.policy.clone()), "{text}");
    }
}
