//! Why a verb failed: the message for the user, and the exit code.

use std::io;

use memcharge_dbus::{ErrorKind, WireError, describe};
use memcharge_policy::PolicyError;

/// Exit code: something failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code: the command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// Exit code: the daemon cannot be reached.
pub(crate) const UNREACHABLE: u8 = 3;
/// Exit code: the caller may not do this.
pub(crate) const NOT_PERMITTED: u8 = 4;
/// Exit code: there is no such mount.
pub(crate) const NO_SUCH_MOUNT: u8 = 5;

/// What went wrong, with what to do next where that is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The system bus is not there.
    #[error("cannot reach the system bus: {0}; see: systemctl status dbus")]
    NoBus(String),
    /// Nobody answers for memcharged.
    #[error("memcharged is not running; start it with: systemctl start memcharged ({0})")]
    NotRunning(String),
    /// It is enabled, and its start fails.
    #[error("memcharged could not be started; see: systemctl status memcharged")]
    NotStarted,
    /// The bus, polkit or the daemon refuse the caller.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    /// The bus or polkit refuse the caller, who is not told why.
    #[error("not permitted; run it as root ({0})")]
    AccessDenied(String),
    /// There is no such mount.
    #[error("{0}")]
    NoSuchMount(String),
    /// The daemon refuses, for the reason in its message.
    #[error("{0}")]
    Refused(String),
    /// The daemon was there, and went away.
    #[error("memcharged has gone away; see: systemctl status memcharged")]
    Gone,
    /// The bus was there, and went away.
    #[error("the system bus has closed the connection")]
    BusGone,
    /// What the daemon answers is not as the contract says.
    #[error("memcharged's answer does not hold together: {0}")]
    Answer(#[from] WireError),
    /// The clock shows a time before 1970.
    #[error("the clock of this machine is not set")]
    Clock,
    /// The program cannot be told when to end.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    /// Nothing on this machine can check the configuration.
    #[error("memcharged is neither running nor installed, so the configuration cannot be checked")]
    NoChecker,
    /// A program could not be started.
    #[error("cannot start {0}: {1}")]
    Start(String, io::Error),
    /// A verb that is planned.
    #[error("{0} is not built yet")]
    NotBuilt(&'static str),
    /// Standard output is gone, other than by a reader that has seen enough.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// Not of the form KEY=VALUE.
    #[error("`{0}` is not of the form KEY=VALUE")]
    NotAssigned(String),
    /// No such key.
    #[error("there is no key `{key}`; {hint}")]
    UnknownKey {
        /// What was given.
        key: String,
        /// What can be given instead.
        hint: String,
    },
    /// A value that the key does not take.
    #[error("{key}: {source}")]
    Value {
        /// The key as in TOML.
        key: &'static str,
        /// What is wrong with its value.
        source: PolicyError,
    },
    /// A value that the key does not take, other than by its form.
    #[error("{key}: `{value}` is not {wanted}")]
    Form {
        /// The key as in TOML.
        key: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// Two values for one key.
    #[error("{0} is given twice")]
    Twice(&'static str),
}

impl ClientError {
    /// The exit code that scripts rely on.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoBus(_)
            | Self::NotRunning(_)
            | Self::NotStarted
            | Self::Gone
            | Self::BusGone
            | Self::NoChecker => UNREACHABLE,
            Self::NotPermitted(_) | Self::AccessDenied(_) => NOT_PERMITTED,
            Self::NoSuchMount(_) => NO_SUCH_MOUNT,
            Self::Refused(_)
            | Self::Answer(_)
            | Self::Clock
            | Self::Signals(_)
            | Self::Start(..)
            | Self::NotBuilt(_)
            | Self::Output(_) => FAILED,
            Self::NotAssigned(_)
            | Self::UnknownKey { .. }
            | Self::Value { .. }
            | Self::Form { .. }
            | Self::Twice(_) => USAGE,
        }
    }
}

impl From<zbus::Error> for ClientError {
    fn from(error: zbus::Error) -> Self {
        let (kind, message) = describe(&error);
        match kind {
            ErrorKind::Unreachable => Self::NotRunning(message),
            ErrorKind::AccessDenied => Self::AccessDenied(message),
            ErrorKind::NotPermitted => Self::NotPermitted(message),
            // memcharged says what to do next. The bus, which knows no mounts but objects, does not.
            ErrorKind::NoSuchMount if message.contains("`memchargectl ") => Self::NoSuchMount(message),
            ErrorKind::NoSuchMount => {
                Self::NoSuchMount(format!("{message}; see the mounts with: memchargectl list"))
            }
            _ => Self::Refused(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::fdo;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let code = |error: fdo::Error| ClientError::from(zbus::Error::from(error)).exit_code();
        let text = || "why".to_owned();
        assert_eq!(code(fdo::Error::ServiceUnknown(text())), 3);
        assert_eq!(code(fdo::Error::NameHasNoOwner(text())), 3);
        assert_eq!(code(fdo::Error::AccessDenied(text())), 4);
        assert_eq!(code(fdo::Error::InteractiveAuthorizationRequired(text())), 4);
        assert_eq!(code(fdo::Error::UnknownObject(text())), 5);
        assert_eq!(code(fdo::Error::InvalidArgs(text())), 1);
        assert_eq!(ClientError::NoBus(text()).exit_code(), 3);
        assert_eq!(ClientError::Gone.exit_code(), 3);
        assert_eq!(ClientError::BusGone.exit_code(), 3);
        assert_eq!(ClientError::from(WireError::Missing("Id")).exit_code(), 1);
        assert_eq!(ClientError::NotPermitted(text()).exit_code(), 4);
        assert_eq!(ClientError::NotBuilt("top").exit_code(), 1);
        assert_eq!(ClientError::Twice("size").exit_code(), 2);
    }

    #[test]
    fn messages_say_what_to_do_next() {
        let error = ClientError::from(zbus::Error::from(fdo::Error::ServiceUnknown("no owner".into())));
        assert_eq!(
            error.to_string(),
            "memcharged is not running; start it with: systemctl start memcharged (no owner)"
        );
        for (said, shown) in [
            ("Unknown object", "Unknown object; see the mounts with: memchargectl list"),
            ("no mount x; `memchargectl list` shows all", "no mount x; `memchargectl list` shows all"),
        ] {
            let error = ClientError::from(zbus::Error::from(fdo::Error::UnknownObject(said.into())));
            assert_eq!(error.to_string(), shown);
        }
    }
}
