//! The target of a mount as the administrator writes it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::PolicyError;

/// Where cgroup v2 is mounted; targets may be written with or without it.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Who pays: a systemd unit, or a cgroup by its path below the cgroup root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// A systemd slice, as `models.slice`.
    Slice(String),
    /// A systemd service, as `db.service`.
    Service(String),
    /// A systemd scope, as `session-1.scope`.
    Scope(String),
    /// A cgroup, as `/kubepods.slice/pod1.slice`, without the cgroup root in front.
    Path(String),
}

impl Target {
    /// The cgroup path that systemd gives to a slice of this name (`a-b.slice` is `/a.slice/a-b.slice`).
    /// `None` for what is not a slice.
    pub fn slice_path(&self) -> Option<String> {
        let Self::Slice(name) = self else { return None };
        let stem = name.strip_suffix(".slice")?;
        if stem == "-" {
            return Some("/".to_owned());
        }
        let cuts = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
        Some(cuts.map(|cut| format!("/{}.slice", &stem[..cut])).collect())
    }
}

fn parse_unit(text: &str) -> Result<Target, PolicyError> {
    let refuse = |why| PolicyError::Target(text.to_owned(), why);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_' | b'.' | b'\\' | b'@');
    if text.len() > 255 || !text.bytes().all(allowed) {
        return Err(refuse("a unit name has at most 255 letters, digits and :-_.\\@"));
    }
    let (stem, kind) = text.rsplit_once('.').ok_or_else(|| refuse("it is neither a unit name nor a path"))?;
    match kind {
        "slice" if stem == "-" => Err(refuse("the root slice has no limit of its own")),
        "slice" if stem.is_empty() || stem.split('-').any(str::is_empty) || stem.contains('@') => {
            Err(refuse("systemd allows no such slice name"))
        }
        _ if stem.is_empty() => Err(refuse("the unit name is empty")),
        "slice" => Ok(Target::Slice(text.to_owned())),
        "service" => Ok(Target::Service(text.to_owned())),
        "scope" => Ok(Target::Scope(text.to_owned())),
        _ => Err(refuse("only slices, services, scopes and paths can be targets")),
    }
}

fn parse_path(text: &str) -> Result<Target, PolicyError> {
    let refuse = |why| PolicyError::Target(text.to_owned(), why);
    let below = match text.strip_prefix(CGROUP_ROOT) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => text,
    };
    let path = below.trim_end_matches('/');
    if path.is_empty() {
        return Err(refuse("the root cgroup has no limit and no bill of its own"));
    }
    if path.len() > 4000 || path.contains('\0') {
        return Err(refuse("a path has at most 4000 bytes, none of them 0"));
    }
    if path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return Err(refuse("a path has no empty part, no `.` and no `..`"));
    }
    Ok(Target::Path(path.to_owned()))
}

impl FromStr for Target {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        if text.starts_with('/') { parse_path(text) } else { parse_unit(text) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Slice(text) | Self::Service(text) | Self::Scope(text) | Self::Path(text)) = self;
        f.write_str(text)
    }
}

impl TryFrom<String> for Target {
    type Error = PolicyError;

    fn try_from(text: String) -> Result<Self, PolicyError> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart_and_read_back() -> Result<(), PolicyError> {
        for (text, target, shown) in [
            ("models.slice", Target::Slice("models.slice".into()), "models.slice"),
            ("db@1.service", Target::Service("db@1.service".into()), "db@1.service"),
            ("x.scope", Target::Scope("x.scope".into()), "x.scope"),
            ("/a/b", Target::Path("/a/b".into()), "/a/b"),
            ("/sys/fs/cgroup/a/b/", Target::Path("/a/b".into()), "/a/b"),
            ("/sys/fs/cgroups", Target::Path("/sys/fs/cgroups".into()), "/sys/fs/cgroups"),
        ] {
            assert_eq!(text.parse::<Target>()?, target);
            assert_eq!(target.to_string(), shown);
            assert_eq!(shown.parse::<Target>()?, target, "R31: what is shown is accepted back");
        }
        Ok(())
    }

    #[test]
    fn what_cannot_pay_is_refused() {
        for bad in [
            "",
            "/",
            "/sys/fs/cgroup",
            "/a/../b",
            "/a//b",
            "models",
            "x.mount",
            "-.slice",
            "a--b.slice",
            ".service",
            "ä.slice",
        ] {
            assert!(matches!(bad.parse::<Target>(), Err(PolicyError::Target(..))), "{bad}");
        }
    }

    #[test]
    fn slices_nest_as_in_systemd() {
        let path = |name: &str| Target::Slice(name.into()).slice_path();
        assert_eq!(path("a.slice").as_deref(), Some("/a.slice"));
        assert_eq!(path("a-b-c.slice").as_deref(), Some("/a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(Target::Path("/x".into()).slice_path(), None);
    }
}
