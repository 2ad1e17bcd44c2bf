//! What a reload could not do, in words that say what to do. Pure.

use std::{fmt, path::PathBuf};

use memcharge_config::ConfigError;
use memcharge_policy::MountName;

use crate::error::DaemonError;

/// As many lines are told at once; the journal has all of them.
const MAX_LINES: usize = 100;

/// Something that is not as the configuration says, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// A mount has keys that cannot change while it is there.
    Fixed {
        /// The mount.
        name: MountName,
        /// The keys.
        keys: Vec<&'static str>,
    },
    /// A mount that was made at run time is not the one of the file.
    Taken {
        /// The mount.
        name: MountName,
        /// The file.
        file: PathBuf,
        /// The keys in which they differ.
        keys: Vec<&'static str>,
    },
    /// A mount has failed, and its file has changed.
    Failed {
        /// The mount.
        name: MountName,
    },
    /// A mount whose file is gone is in use.
    Busy {
        /// The mount.
        name: MountName,
        /// Why, with who uses it.
        why: String,
    },
    /// A mount could not be made, changed or ended.
    Undone {
        /// The mount.
        name: MountName,
        /// "made", "changed" or "ended".
        what: &'static str,
        /// Why.
        why: String,
    },
}

impl Left {
    /// A mount that could not be ended.
    pub(super) fn kept(name: MountName, error: &DaemonError) -> Self {
        match error {
            DaemonError::Busy { holders, .. } => Self::Busy { name, why: holders.clone() },
            error => Self::Undone { name, what: "ended", why: error.to_string() },
        }
    }

    /// The mount that this is about.
    pub(super) fn name(&self) -> &MountName {
        match self {
            Self::Fixed { name, .. }
            | Self::Taken { name, .. }
            | Self::Failed { name }
            | Self::Busy { name, .. }
            | Self::Undone { name, .. } => name,
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed { name, keys } if keys == &["target"] => write!(
                f,
                "mount {name}: its target does not change while it is mounted, unless with `memchargectl retarget {name} \
                 TARGET`"
            ),
            Self::Fixed { name, keys } => write!(
                f,
                "mount {name}: {} cannot change while it is mounted; `memchargectl unmount {name}` (its data go) and \
                 reload to apply",
                keys.join(", ")
            ),
            Self::Taken { name, file, keys } => write!(
                f,
                "mount {name} was made at run time and is not that of {} ({} differ); `memchargectl unmount {name}` \
                 (its data go) and reload to have that",
                file.display(),
                keys.join(", ")
            ),
            Self::Failed { name } => write!(
                f,
                "mount {name} has failed, and its new settings wait; `memchargectl unmount {name}` and reload to have it \
                 made anew"
            ),
            Self::Busy { name, why } => write!(
                f,
                "mount {name}: its file is gone, and it stays, since it is in use by {why}; end them and reload, or \
                 `memchargectl unmount --lazy {name}`"
            ),
            Self::Undone { name, what, why } => write!(f, "mount {name} could not be {what}: {why}"),
        }
    }
}

/// The answer to a reload that left something undone; `None`: it left nothing.
pub(super) fn incomplete(left: &[Left]) -> Option<DaemonError> {
    let all_busy = left.iter().all(|left| matches!(left, Left::Busy { .. }));
    (!left.is_empty()).then(|| DaemonError::Incomplete { what: lines(left), busy: all_busy })
}

/// The answer to a reload of a configuration that is wrong.
pub(crate) fn invalid(errors: &[ConfigError]) -> DaemonError {
    DaemonError::Invalid { count: errors.len(), what: lines(errors) }
}

fn lines(things: &[impl fmt::Display]) -> String {
    let mut lines: Vec<_> = things.iter().take(MAX_LINES).map(ToString::to_string).collect();
    if let Some(more) = things.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
        lines.push(format!("and {more} more; see `journalctl -u memcharged`"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use memcharge_config::Problem;

    use super::*;

    fn name() -> MountName {
        "m".parse().unwrap()
    }

    #[test]
    fn what_is_left_says_what_to_do() {
        let fixed = Left::Fixed { name: name(), keys: vec!["where", "target"] };
        let busy = || {
            let (name, holders) = (name(), "postgres (pid 7)".to_owned());
            Left::kept(name.clone(), &DaemonError::Busy { name: name.to_string(), holders })
        };
        assert_eq!(
            fixed.to_string(),
            "mount m: where, target cannot change while it is mounted; `memchargectl unmount m` (its data go) and \
             reload to apply"
        );
        assert!(busy().to_string().contains("in use by postgres (pid 7); end them and reload"));
        assert!(incomplete(&[]).is_none());
        assert!(matches!(incomplete(&[busy()]), Some(DaemonError::Incomplete { busy: true, .. })));
        assert!(matches!(incomplete(&[busy(), fixed]), Some(DaemonError::Incomplete { busy: false, .. })));
        let undone = Left::kept(name(), &DaemonError::Stopping);
        assert!(undone.to_string().starts_with("mount m could not be ended: memcharged is stopping"));
    }

    #[test]
    fn each_error_has_its_file_and_line_and_an_answer_has_an_end() {
        let error = |line| ConfigError {
            file: "/etc/m.toml".into(),
            line,
            problem: Problem::File("is wrong".into()),
        };
        assert_eq!(
            invalid(&[error(3), error(0)]).to_string(),
            "the configuration has 2 error(s), and nothing was changed:\n/etc/m.toml:3: is wrong\n/etc/m.toml: is wrong"
        );
        let many = invalid(&vec![error(1); MAX_LINES + 2]).to_string();
        assert!(many.ends_with("\nand 2 more; see `journalctl -u memcharged`"), "{many}");
        assert_eq!(many.lines().count(), MAX_LINES + 2);
    }
}
