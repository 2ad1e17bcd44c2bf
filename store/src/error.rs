//! What can go wrong around serving. Errors of single requests are errnos and stay at the FUSE edge.

use std::io;

use memcharge_cgroup::CgroupError;

/// Why a store cannot start, or why a mount cannot be undone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Not called as memcharged calls it.
    #[error(
        "usage: memcharge-store serve NAME | stop NAME | end NAME\nmemcharged starts this program; to make a mount use `memchargectl mount`"
    )]
    Usage,
    /// A mount's name.
    #[error(transparent)]
    Policy(#[from] memcharge_policy::PolicyError),
    /// What memcharged hands over.
    #[error("standard input does not carry the handover of memcharged ({0}); memcharged starts this program")]
    Handover(String),
    /// A store that was killed before its mount was made.
    #[error("there is nothing to serve: the mount was never made; `memchargectl mount` makes it")]
    NothingToServe,
    /// What systemd kept is not complete.
    #[error("systemd has kept no descriptor `{0}` for this mount; what it kept cannot be served")]
    Kept(String),
    /// What the last store has left.
    #[error("the state that the last store has left cannot be used: {0}")]
    State(String),
    /// Somebody has ended the connection to the kernel.
    #[error("the FUSE connection was aborted; the data are kept: `memchargectl recover` mounts them again")]
    Aborted,
    /// Others before this one have served nothing.
    #[error(
        "{0} stores in a row have ended before they answered a single request; the mount is given up, its data are kept; \
         `memchargectl recover` mounts them again, `memchargectl unmount` drops them"
    )]
    CannotServe(u32),
    /// The kernel lacks what a store needs.
    #[error("this kernel offers no {0} to FUSE servers; memcharge needs Linux 6.9 or later")]
    KernelTooOld(&'static str),
    /// A system call at start.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The store's cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Something else is mounted over the mount.
    #[error("something else is mounted over {path}; unmount that first, then `memchargectl unmount` again")]
    Hidden {
        /// The mount point.
        path: String,
    },
    /// A mount's record.
    #[error("cannot read the record {path}: {reason}")]
    Record {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

/// For `map_err`: a [`StoreError::Io`] that says what was tried.
pub(crate) fn io<E: Into<io::Error>>(action: &'static str) -> impl Fn(E) -> StoreError {
    move |source| StoreError::Io { action, source: source.into() }
}
