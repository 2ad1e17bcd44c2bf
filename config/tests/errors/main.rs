//! Every error with its file, its line and its whole message.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod files;
mod keys;

use std::fs;

use memcharge_config::{Accounts, Roots, load};
use tempfile::TempDir;

/// Accounts with one user and one group.
const ACCOUNTS: Accounts<'static> =
    Accounts { user: &|name| (name == "ann").then_some(7), group: &|name| (name == "staff").then_some(8) };

/// The top of a mount's file: two lines.
const GOOD: &str = "where = \"/srv/m\"\ntarget = \"m.slice\"\n";

/// The errors of a tree of files, shown, with paths below the tree.
fn errors(files: &[(&str, &[u8])]) -> Vec<String> {
    let dir = TempDir::new().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    errors_in(&dir)
}

fn errors_in(dir: &TempDir) -> Vec<String> {
    let prefix = format!("{}/", dir.path().display());
    let found = load(&Roots::single(dir.path()), ACCOUNTS).err().unwrap_or_default();
    found.iter().map(|error| error.to_string().replace(&prefix, "")).collect()
}

/// Asserts the errors of one mount's file.
fn assert_mount(text: &str, expected: &[&str]) {
    let shown = errors(&[("mounts.d/x.toml", text.as_bytes())]);
    let expected: Vec<String> = expected.iter().map(|error| format!("mounts.d/x.toml:{error}")).collect();
    assert_eq!(shown, expected, "{text}");
}

/// Asserts the one error of a third line below a good top.
fn assert_third_line(line: &str, message: &str) {
    assert_mount(&format!("{GOOD}{line}\n"), &[&format!("3: {message}")]);
}
