//! The rules that values must keep, wherever they come from.

use std::{
    path::{Component, Path},
    time::Duration,
};

use memcharge_policy::{Bytes, SizeCap, arbiter::is_protect_glob, check_options, is_unsafe_mount_point};

use crate::{error::Problem, fragment::Fragment};

/// The largest user or group number; the next one means "none" to the kernel.
pub(crate) const MAX_ID: u32 = u32::MAX - 1;

/// The smallest cap: to tmpfs a cap of 0 means that there is none.
pub(crate) const MIN_SIZE: Bytes = Bytes(1);

/// An arbitration that takes longer would look like a hang to whoever writes.
const MAX_DEADLINE: Duration = Duration::from_secs(60);

/// All permission bits, with set-user-id, set-group-id and sticky.
const MODE_BITS: u32 = 0o7777;

/// The kernel takes no longer path.
const MAX_PATH: usize = 4095;

/// Checks every value of a fragment against the rules of its key. Keys that are not there are not missed.
pub fn check(fragment: &Fragment) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut rule = |key, rule: Option<String>| found.extend(rule.map(|rule| Problem::Rule { key, rule }));
    rule("where", fragment.place.as_deref().and_then(place_rule));
    rule("options", fragment.options.as_deref().and_then(repeated_option));
    let too_small = matches!(fragment.size, Some(SizeCap::Bytes(size)) if size < MIN_SIZE);
    rule("size", too_small.then(|| "must be at least 1, not 0; leave it out for no cap".to_owned()));
    rule("inodes", (fragment.inodes == Some(0)).then(|| "must be at least 1, not 0".to_owned()));
    rule(
        "mode",
        fragment
            .mode
            .filter(|mode| *mode > MODE_BITS)
            .map(|mode| format!("must be at most octal {MODE_BITS:o}, not {mode:o}")),
    );
    for (key, id) in [("uid", fragment.uid), ("gid", fragment.gid)] {
        rule(key, id.filter(|id| *id > MAX_ID).map(|id| format!("must be at most {MAX_ID}, not {id}")));
    }
    let in_time = |span: Duration| !span.is_zero() && span <= MAX_DEADLINE;
    let late = fragment.deadline.is_some_and(|span| !in_time(span));
    rule("deadline", late.then(|| "must be more than 0 and at most 60s".to_owned()));
    rule("protect", fragment.kill.protect.as_deref().and_then(glob_rule));
    if let Some(Err(error)) = fragment.options.as_deref().map(check_options) {
        found.push(Problem::Value { key: "options", error });
    }
    found
}

/// A mount point with its superfluous slashes and dots left out; no symlink is followed.
pub(crate) fn clean_path(path: &str) -> String {
    Path::new(path).components().collect::<std::path::PathBuf>().display().to_string()
}

fn place_rule(place: &str) -> Option<String> {
    let shown = place.escape_debug();
    let path = Path::new(place);
    if place.len() > MAX_PATH || place.contains(char::is_control) {
        return Some(format!("must be a path of at most {MAX_PATH} bytes without control characters"));
    }
    if !path.is_absolute() {
        return Some(format!("must be an absolute path such as \"/run/shared/models\", not `{shown}`"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Some(format!("must not contain `..`; write `{shown}` without it"));
    }
    is_unsafe_mount_point(path).then(|| {
        let instead = "give a directory such as \"/run/shared/models\"";
        format!("cannot be `{shown}`: a mount there can hang the machine; {instead}")
    })
}

fn repeated_option(options: &[memcharge_policy::MountOption]) -> Option<String> {
    let again = options.iter().enumerate().find(|(at, option)| options[..*at].contains(option));
    again.map(|(_, option)| format!("has `{option}` twice; keep one of them"))
}

fn glob_rule(globs: &[String]) -> Option<String> {
    let wrong = |glob: &&String| {
        glob.is_empty() || glob.contains('/') || glob.contains(char::is_control) || !is_protect_glob(glob)
    };
    globs.iter().find(wrong).map(|glob| {
        let shown = glob.escape_debug();
        format!("cannot have `{shown}`: it takes globs of one cgroup's name, such as \"db-*.service\", without `/`")
    })
}
