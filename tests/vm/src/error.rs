//! What can go wrong with a VM, in three kinds: this machine cannot have one, it should work but did not, the job is not one.

use std::{io, path::Path};

/// Why there is no outcome of a job.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The VM cannot be had on this machine: wrong architecture, missing tools, no package mirror.
    #[error("no test VM on this machine: {reason}")]
    Unavailable {
        /// What is missing, and what to type to have it.
        reason: String,
    },
    /// The VM should have worked but did not.
    #[error("the test VM failed: {what}{}", indented(.log))]
    Failed {
        /// The step that failed, and how.
        what: String,
        /// The last lines of the VM's console or of the step's output; may be empty.
        log: String,
    },
    /// A file or a process of the host could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The job itself cannot be run by any VM.
    #[error("not a job for the VM: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
}

impl VmError {
    pub(crate) fn failed(what: impl Into<String>, log: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), log: log.into() }
    }

    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }
}

/// Names what was tried when an I/O call fails.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, VmError>;

    fn at(self, verb: &str, path: &Path) -> Result<T, VmError>
    where
        Self: Sized,
    {
        self.context(|| format!("{verb} {}", path.display()))
    }
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, VmError> {
        self.map_err(|e| VmError::Io { what: what(), source: e.into() })
    }
}

fn indented(log: &str) -> String {
    log.lines().map(|line| format!("\n    {line}")).collect()
}
