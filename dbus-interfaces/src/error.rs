//! The errors of memcharge on the bus: their names stand here and nowhere else.

use zbus::DBusError;

/// Declares the errors once, for the two views of them: with a message ([`Error`]), and bare ([`ErrorKind`]).
macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// An error as the daemon answers it: the name and a message for the administrator.
        #[derive(Debug, Clone, PartialEq, Eq, DBusError)]
        #[zbus(prefix = "org.memcharge.Memcharge1.Error", impl_display = false)]
        pub enum Error { $($(#[$doc])* $name(String)),+ }

        /// What went wrong in a call, as a client sees it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind {
            $($(#[$doc])* $name,)+
            /// The bus or polkit does not let the caller do this.
            AccessDenied,
            /// The bus is not there, nobody owns the daemon's name, or the daemon went away.
            Unreachable,
            /// Any other error.
            Other,
        }

        impl Error {
            /// The last parts of the error names, in the order of their declaration.
            pub const NAMES: &[&str] = &[$(stringify!($name)),+];

            /// The error without its message.
            pub fn kind(&self) -> ErrorKind {
                match self { $(Self::$name(_) => ErrorKind::$name),+ }
            }

            /// The message.
            pub fn message(&self) -> &str {
                match self { $(Self::$name(message))|+ => message }
            }
        }

        impl ErrorKind {
            fn from_own_name(last: &str) -> Self {
                match last { $(stringify!($name) => Self::$name,)+ _ => Self::Other }
            }
        }
    };
}

errors!(
    /// The caller may not use this path, file or target.
    NotPermitted,
    /// There is no mount of this name or at this path.
    NoSuchMount,
    /// The target does not exist or is not running.
    NoSuchTarget,
    /// The target is not a cgroup.
    NotACgroup,
    /// The target has no memory controller.
    NoMemoryController,
    /// The target is being removed.
    TargetDying,
    /// The mount point is in use: it is not empty, or something is mounted there.
    MountPointBusy,
    /// A mount there would hide what the system needs.
    UnsafeMountPoint,
    /// There is a mount of this name already.
    NameTaken,
    /// The kernel lacks something that memcharge needs.
    KernelTooOld,
    /// An option is unknown, or its value is of the wrong type or out of range.
    InvalidOption,
    /// Processes use the mount; the message names them.
    Busy,
    /// The new limit is below what is in use.
    TooSmall,
    /// Something else failed; the message says what.
    Failed,
);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl From<Error> for zbus::fdo::Error {
    /// For property getters, which can answer standard errors only: the message stays, the name is lost.
    fn from(error: Error) -> Self {
        match error {
            Error::NotPermitted(message) => Self::AccessDenied(message),
            other => Self::Failed(other.message().to_owned()),
        }
    }
}

/// What a client's failed call means, and the message that came with it.
pub fn describe(error: &zbus::Error) -> (ErrorKind, String) {
    match error {
        zbus::Error::MethodError(name, message, _) => {
            (kind_of_name(name.as_str()), message.clone().unwrap_or_else(|| name.to_string()))
        }
        zbus::Error::FDO(inner) => match inner.as_ref() {
            zbus::fdo::Error::ZBus(inner) => describe(inner),
            named => {
                let name = named.name();
                (kind_of_name(name.as_str()), named.description().unwrap_or(name.as_str()).to_owned())
            }
        },
        zbus::Error::Address(_)
        | zbus::Error::Connection(..)
        | zbus::Error::Handshake(_)
        | zbus::Error::InputOutput(_) => (ErrorKind::Unreachable, error.to_string()),
        other => (ErrorKind::Other, other.to_string()),
    }
}

fn kind_of_name(name: &str) -> ErrorKind {
    if let Some(own) = name.strip_prefix(crate::ERROR_PREFIX).and_then(|rest| rest.strip_prefix('.')) {
        return ErrorKind::from_own_name(own);
    }
    // systemd answers for a unit that cannot be activated, and the bus hands its answer on.
    if name.starts_with("org.freedesktop.systemd1.") {
        return ErrorKind::Unreachable;
    }
    match name.strip_prefix("org.freedesktop.DBus.Error.").unwrap_or_default() {
        "AccessDenied" | "AuthFailed" | "InteractiveAuthorizationRequired" => ErrorKind::AccessDenied,
        "Disconnected" | "NameHasNoOwner" | "NoReply" | "NoServer" | "ServiceUnknown" | "TimedOut" => {
            ErrorKind::Unreachable
        }
        // Mounts come and go; targets do too, and are asked for by nobody but on behalf of a mount.
        "UnknownObject" => ErrorKind::NoSuchMount,
        spawn if spawn.starts_with("Spawn.") => ErrorKind::Unreachable,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_errors_have_their_names_on_the_bus() {
        let error = Error::NoSuchMount("no mount `x`".into());
        assert_eq!(error.name().as_str(), "org.memcharge.Memcharge1.Error.NoSuchMount");
        assert_eq!(error.description(), Some("no mount `x`"));
        assert_eq!(error.to_string(), "no mount `x`");
        assert_eq!(kind_of_name(error.name().as_str()), error.kind());
        for last in Error::NAMES {
            assert_ne!(kind_of_name(&format!("{}.{last}", crate::ERROR_PREFIX)), ErrorKind::Other, "{last}");
        }
    }

    #[test]
    fn standard_errors_are_sorted() {
        for (name, kind) in [
            ("org.freedesktop.DBus.Error.AccessDenied", ErrorKind::AccessDenied),
            ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", ErrorKind::AccessDenied),
            ("org.freedesktop.DBus.Error.ServiceUnknown", ErrorKind::Unreachable),
            ("org.freedesktop.DBus.Error.Spawn.ChildExited", ErrorKind::Unreachable),
            ("org.freedesktop.systemd1.NoSuchUnit", ErrorKind::Unreachable),
            ("org.freedesktop.DBus.Error.InvalidArgs", ErrorKind::Other),
            ("org.memcharge.Memcharge1.ErrorX", ErrorKind::Other),
        ] {
            assert_eq!(kind_of_name(name), kind, "{name}");
        }
    }

    #[test]
    fn a_standard_error_is_described_from_inside_its_wrapping() {
        let error = zbus::Error::from(zbus::fdo::Error::ServiceUnknown("no owner".into()));
        assert_eq!(describe(&error), (ErrorKind::Unreachable, "no owner".to_owned()));
    }
}
