//! Errors of the daemon as errors on the bus, and what the options of calls are to the daemon.

use memcharge_cgroup::CgroupError;
use memcharge_dbus::Error;
use zbus::{DBusError, Message, fdo, message::Header, names::ErrorName};

use super::options::{HistoryOptions, OptionError};
use crate::{error::DaemonError, history::Query};

impl From<DaemonError> for Error {
    fn from(error: DaemonError) -> Self {
        let message = error.to_string();
        match error {
            DaemonError::KernelTooOld { .. } => Self::KernelTooOld(message),
            DaemonError::NameTaken { .. } => Self::NameTaken(message),
            DaemonError::NoSuchMount { .. }
            | DaemonError::NotConfigured { .. }
            | DaemonError::NoMountAt { .. } => Self::NoSuchMount(message),
            DaemonError::InvalidOption(_) | DaemonError::NotBuilt(_) => Self::InvalidOption(message),
            DaemonError::UnsafeMountPoint { .. } => Self::UnsafeMountPoint(message),
            DaemonError::MountPointBusy { .. } => Self::MountPointBusy(message),
            DaemonError::NotPermitted(_) => Self::NotPermitted(message),
            DaemonError::NoSuchTarget { .. } => Self::NoSuchTarget(message),
            DaemonError::TooSmall { .. }
            | DaemonError::Shrinks { .. }
            | DaemonError::ShrinksInodes { .. } => Self::TooSmall(message),
            DaemonError::Busy { .. }
            | DaemonError::HasData { .. }
            | DaemonError::Incomplete { busy: true, .. } => Self::Busy(message),
            DaemonError::Cgroup(cgroup) => match cgroup {
                CgroupError::NoSuchCgroup { .. } => Self::NoSuchTarget(message),
                CgroupError::NotACgroup { .. } => Self::NotACgroup(message),
                CgroupError::NoMemoryController { .. } => Self::NoMemoryController(message),
                CgroupError::Dying { .. } => Self::TargetDying(message),
                CgroupError::Io { .. } | CgroupError::Malformed { .. } => Self::Failed(message),
            },
            DaemonError::Io { .. }
            | DaemonError::Bus { .. }
            | DaemonError::Unit { .. }
            | DaemonError::Late { .. }
            | DaemonError::Store { .. }
            | DaemonError::Refused { .. }
            | DaemonError::Record { .. }
            | DaemonError::NotActive { .. }
            | DaemonError::TooMany(_)
            | DaemonError::TooManyOf { .. }
            | DaemonError::TooDeep { .. }
            | DaemonError::Configuration(_)
            | DaemonError::Container { .. }
            | DaemonError::Invalid { .. }
            | DaemonError::Incomplete { .. }
            | DaemonError::Stopping => Self::Failed(message),
        }
    }
}

impl From<OptionError> for DaemonError {
    fn from(error: OptionError) -> Self {
        match error {
            OptionError::Invalid(what) => Self::InvalidOption(what),
            OptionError::NotBuilt(what) => Self::NotBuilt(what),
        }
    }
}

impl From<HistoryOptions> for Query {
    fn from(options: HistoryOptions) -> Self {
        // As many as the machine can address is no limit at all.
        let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
        Self { mount: options.mount, since_usec: options.since_usec, limit }
    }
}

/// What a method can answer instead of a result: an error of memcharge, or one that every service has.
#[derive(Debug)]
pub(super) enum CallError {
    /// One of memcharge's own.
    Own(Error),
    /// A standard one.
    Standard(fdo::Error),
}

impl From<DaemonError> for CallError {
    fn from(error: DaemonError) -> Self {
        Self::Own(error.into())
    }
}

impl From<OptionError> for CallError {
    fn from(error: OptionError) -> Self {
        DaemonError::from(error).into()
    }
}

impl From<fdo::Error> for CallError {
    fn from(error: fdo::Error) -> Self {
        Self::Standard(error)
    }
}

impl DBusError for CallError {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        match self {
            Self::Own(error) => error.create_reply(call),
            Self::Standard(error) => error.create_reply(call),
        }
    }

    fn name(&self) -> ErrorName<'_> {
        match self {
            Self::Own(error) => error.name(),
            Self::Standard(error) => error.name(),
        }
    }

    fn description(&self) -> Option<&str> {
        match self {
            Self::Own(error) => error.description(),
            Self::Standard(error) => error.description(),
        }
    }
}

/// An error of a property, which can be a standard one only.
pub(super) fn property_error(error: DaemonError) -> fdo::Error {
    Error::from(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_each_refusal_has_its_own_name() {
        let path = || "/x".to_owned();
        for (error, name) in [
            (DaemonError::from(CgroupError::NoSuchCgroup { path: path() }), "NoSuchTarget"),
            (CgroupError::NotACgroup { path: path() }.into(), "NotACgroup"),
            (CgroupError::NoMemoryController { path: path() }.into(), "NoMemoryController"),
            (CgroupError::Dying { path: path() }.into(), "TargetDying"),
            (DaemonError::MountPointBusy { path: path(), why: "is not empty".into() }, "MountPointBusy"),
            (DaemonError::NameTaken { name: path(), why: path() }, "NameTaken"),
            (DaemonError::KernelTooOld { release: "6.1".into() }, "KernelTooOld"),
            (DaemonError::Stopping, "Failed"),
        ] {
            let error = CallError::from(error);
            assert_eq!(error.name().as_str(), format!("org.memcharge.Memcharge1.Error.{name}"));
            assert!(error.description().is_some_and(|text| !text.is_empty()));
        }
    }

    #[test]
    fn an_old_kernel_is_told_what_is_needed() {
        let message = DaemonError::KernelTooOld { release: "6.1.0-40-cloud-amd64".into() }.to_string();
        assert!(message.contains("6.1.0-40-cloud-amd64") && message.contains("6.9"), "{message}");
        assert!(message.contains("FUSE passthrough"), "{message}");
    }
}
