//! What can go wrong in the daemon, in words that say what to do.

use std::{io, time::Duration};

use memcharge_cgroup::CgroupError;
use memcharge_policy::{Bytes, MIN_KERNEL};

/// An error of the daemon. How it is named on the bus stands in `bus::convert`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// The kernel cannot serve mounts.
    #[error(
        "the kernel {release} cannot serve mounts; they need Linux {MIN_KERNEL} or later, with FUSE passthrough"
    )]
    KernelTooOld {
        /// What `uname -r` says.
        release: String,
    },
    /// Not on the host.
    #[error(
        "this is a container (it has these namespaces of its own: {own}), and memcharged works on the host alone; \
         run it there, and bind its mounts into the container"
    )]
    Container {
        /// The kinds of namespaces.
        own: String,
    },
    /// The name is in use.
    #[error("the name {name} is taken: {why}")]
    NameTaken {
        /// The mount's name.
        name: String,
        /// By what, and what to do.
        why: String,
    },
    /// The caller may not have this path, target or option. The message says why.
    #[error("{0}")]
    NotPermitted(String),
    /// A user with too many mounts.
    #[error("uid {uid} has {limit} mounts already, and a user can have no more; unmount one first")]
    TooManyOf {
        /// The user.
        uid: u32,
        /// The most.
        limit: usize,
    },
    /// No mount of this name.
    #[error("there is no mount {name}; `memchargectl list` shows all of them")]
    NoSuchMount {
        /// The name that was asked for.
        name: String,
    },
    /// No file configures a mount of this name.
    #[error(
        "no file configures a mount {name}; `memchargectl show {name}` shows one that was made at run time"
    )]
    NotConfigured {
        /// The name that was asked for.
        name: String,
    },
    /// No mount at a path.
    #[error("{path} is in no mount; `memchargectl list` shows all of them")]
    NoMountAt {
        /// The path that was asked for.
        path: String,
    },
    /// An option or value that is not accepted. The message names it and says what is.
    #[error("{0}")]
    InvalidOption(String),
    /// A mount point that could hang the machine.
    #[error("a mount on {path} can hang the machine; give a directory below it, such as /run/shared/models")]
    UnsafeMountPoint {
        /// The place, symlinks resolved.
        path: String,
    },
    /// A mount point in use.
    #[error("{path} {why}")]
    MountPointBusy {
        /// The place, symlinks resolved.
        path: String,
        /// In what way, and what to do.
        why: String,
    },
    /// The target is not there.
    #[error("the target {target} cannot be used: {why}")]
    NoSuchTarget {
        /// The target as it was given.
        target: String,
        /// What is missing.
        why: String,
    },
    /// A cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// No room for a store.
    #[error(
        "{target} has {headroom} of headroom, and a store needs {needs}; raise its limit or free memory there"
    )]
    TooSmall {
        /// The target's cgroup.
        target: String,
        /// What is left there.
        headroom: Bytes,
        /// What a store needs to start.
        needs: Bytes,
    },
    /// A target with too many ancestors.
    #[error(
        "{target} is {levels} cgroups deep, and a target has at most {}; or there are as many mounts as can be",
        memcharge_cgroup::LEDGER_DEPTH
    )]
    TooDeep {
        /// The target's cgroup.
        target: String,
        /// It and its ancestors.
        levels: usize,
    },
    /// A cap below what is in use.
    #[error("{name} has {used} in its files, and {wanted} would be less; free some, or give at least {used}")]
    Shrinks {
        /// The mount's name.
        name: String,
        /// What the files hold.
        used: Bytes,
        /// The cap that was asked for.
        wanted: Bytes,
    },
    /// An inode cap below what is in use.
    #[error(
        "{name} has {used} inodes in use, and {wanted} would be less; remove files, or give at least {used}"
    )]
    ShrinksInodes {
        /// The mount's name.
        name: String,
        /// How many are in use.
        used: u64,
        /// The cap that was asked for.
        wanted: u64,
    },
    /// A mount with data whose target shall change.
    #[error(
        "{name} has {used} in its files, which {target} pays for and would go on paying for; empty it, or say \
         `--mode future-only`"
    )]
    HasData {
        /// The mount's name.
        name: String,
        /// What the files hold.
        used: Bytes,
        /// Who pays.
        target: String,
    },
    /// Somebody uses the mount.
    #[error("{name} is in use by {holders}; end them, or use --lazy")]
    Busy {
        /// The mount's name.
        name: String,
        /// Who, in words.
        holders: String,
    },
    /// A system call.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A call on the bus.
    #[error("cannot {action}: {source}")]
    Bus {
        /// What was tried.
        action: String,
        /// What the bus or the peer said.
        source: Box<zbus::Error>,
    },
    /// A unit did not start or stop.
    #[error("{unit} did not {action} (job {job}, result {result}); see `journalctl -u {unit}`")]
    Unit {
        /// The unit's name.
        unit: String,
        /// "start" or "stop".
        action: &'static str,
        /// How systemd's job ended.
        job: String,
        /// The unit's `Result`, or "unknown".
        result: String,
    },
    /// Something took too long.
    #[error("{what} took longer than {limit:?}")]
    Late {
        /// What.
        what: String,
        /// The deadline.
        limit: Duration,
    },
    /// A store that does not do what it should.
    #[error("the store of {name} {what}; see `journalctl -u memcharge-store-{name}`")]
    Store {
        /// The mount's name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A store that cannot do what it was asked.
    #[error("{name}: {what}")]
    Refused {
        /// The mount's name.
        name: String,
        /// Why not.
        what: String,
    },
    /// A record that cannot be read.
    #[error("{path} is not the record of a mount: {why}; move it away once its mount is gone")]
    Record {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A mount that has no figures now.
    #[error("{name} is {state}, so that there are no figures of it")]
    NotActive {
        /// The mount's name.
        name: String,
        /// Its state.
        state: &'static str,
    },
    /// Too many mounts.
    #[error("there are {0} mounts already, and memcharged keeps no more; unmount one first")]
    TooMany(usize),
    /// The configuration is wrong; each error was logged.
    #[error(
        "the configuration has {0} error(s); nothing was changed; `memcharged --check-config` shows them"
    )]
    Configuration(usize),
    /// The configuration that was to be reloaded is wrong.
    #[error("the configuration has {count} error(s), and nothing was changed:\n{what}")]
    Invalid {
        /// How many.
        count: usize,
        /// A line for each error, with file and line.
        what: String,
    },
    /// A reload that could not do all of it.
    #[error("the configuration is in force, but for this:\n{what}")]
    Incomplete {
        /// A line for each thing that is left, with what to do.
        what: String,
        /// Whether all of it is mounts that are in use.
        busy: bool,
    },
    /// The daemon is about to exit.
    #[error("memcharged is stopping; try again when it runs")]
    Stopping,
    /// Reserved for later.
    #[error("{0} is not built yet")]
    NotBuilt(&'static str),
}

/// The result of what the daemon does.
pub(crate) type Result<T, E = DaemonError> = std::result::Result<T, E>;

impl DaemonError {
    /// A failed system call, ready for `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: source.into() }
    }

    /// A failed call on the bus, ready for `map_err`.
    pub(crate) fn bus<E: Into<zbus::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self::Bus { action, source: Box::new(source.into()) }
    }
}
