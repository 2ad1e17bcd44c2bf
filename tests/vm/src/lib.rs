//! Throw-away virtual machines: a Debian kernel with systemd as PID 1 and pure cgroup v2 under QEMU, at a command's prompt
//! in half a second. The root image is built once; it is booted once per machine size and frozen while its agent waits
//! for a command; a run thaws that. Nothing that a run writes outlives it.

mod accel;
mod cache;
mod disks;
mod error;
mod frozen;
mod host;
mod image;
mod job;
mod lock;
mod machine;
mod process;
mod progress;
mod prune;
mod qmp;
mod reboot;
mod script;
mod shell;
mod spec;
mod stream;

use std::io::Write;

pub use error::VmError;
pub use frozen::Prepared;
pub use host::need;
pub use progress::Say;
pub use spec::{FileIn, Guest, Image, Job, Kernel, Layer, Outcome, Suite};

/// Runs the job's command as root in a VM of its own. Streams the command's stdout and stderr to `out` and lines about the
/// progress to `say`. Missing host tools, the root image and the frozen state are made first.
pub fn run(job: &Job, out: &mut dyn Write, say: Say<'_>) -> Result<Outcome, VmError> {
    let cache = host::ready_cache(say)?;
    let prepared = frozen::prepare(&cache, &job.guest, say)?;
    job::run(&cache, &prepared, job, out, say)
}

/// Opens a root shell in a VM on this process's terminal, with `files` at /mnt/files, and returns the shell's exit status.
/// The terminal is in raw mode meanwhile and is left as it was. A shell does not take a test's place in the queue.
pub fn shell(guest: &Guest, files: &[FileIn], say: Say<'_>) -> Result<i32, VmError> {
    let cache = host::ready_cache(say)?;
    let prepared = frozen::prepare(&cache, guest, say)?;
    shell::run(&cache, &prepared, guest, files, say)
}

/// Makes ahead what a run of this guest needs; the result holds it against removal until it is dropped.
pub fn prepare(guest: &Guest, say: Say<'_>) -> Result<Prepared, VmError> {
    let cache = host::ready_cache(say)?;
    frozen::prepare(&cache, guest, say)
}
