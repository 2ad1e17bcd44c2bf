//! Reclaim before refusing: the target's cache gives way to a charge through the mount (R14).
//!
//! Writing to `memory.reclaim` blocks, so a thread of its own does it, and the request that waits for it gives up at its
//! deadline.

use std::{
    fs::File,
    io::Write,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use memcharge_policy::Bytes;

use crate::{
    error::{StoreError, io},
    memory,
};

/// The most that is asked of the kernel in one write, so that the deadline is looked at in between.
const STEP: Bytes = Bytes::mib(4);

/// The least that is asked for: a writer that goes on does not come back for every page.
const LEAST: Bytes = Bytes::mib(1);

/// The thread's stack. It formats a number and writes it.
const STACK: usize = 64 << 10;

/// Reclaims from the target.
pub(crate) struct Reclaimer {
    shared: Arc<Shared>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reclaimed {
    /// How much the kernel was asked to free, and did.
    pub(crate) bytes: Bytes,
    /// Whether it came to an end before the deadline.
    pub(crate) in_time: bool,
}

struct Shared {
    job: Mutex<Job>,
    changed: Condvar,
}

struct Job {
    /// The target's `memory.reclaim`, open for writing.
    file: Arc<File>,
    /// What is still to be reclaimed; `None`: idle.
    wanted: Option<(Bytes, Instant)>,
    /// What has been reclaimed of it.
    done: Bytes,
}

impl Reclaimer {
    /// Starts the thread. `file` is the target's `memory.reclaim`, open for writing.
    pub(crate) fn start(file: File) -> Result<Self, StoreError> {
        let job = Job { file: Arc::new(file), wanted: None, done: Bytes(0) };
        let shared = Arc::new(Shared { job: Mutex::new(job), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("reclaim".to_owned())
            .stack_size(STACK)
            .spawn(move || work(&theirs))
            .map_err(io("start the reclaim thread"))?;
        Ok(Self { shared })
    }

    /// Takes another file from now on.
    pub(crate) fn replace(&self, file: File) {
        self.shared.lock().file = Arc::new(file);
    }

    /// Tries to reclaim `missing` bytes until `until`. To be called by one request at a time.
    pub(crate) fn reclaim(&self, missing: Bytes, until: Instant) -> Reclaimed {
        let mut job = self.shared.lock();
        if job.wanted.is_some() {
            // Still at the work of a request that has given up on it.
            return Reclaimed { bytes: Bytes(0), in_time: false };
        }
        job.wanted = Some((missing.max(LEAST), until));
        job.done = Bytes(0);
        self.shared.changed.notify_all();
        let patience = until.saturating_duration_since(Instant::now());
        let (job, _) = self
            .shared
            .changed
            .wait_timeout_while(job, patience, |job| job.wanted.is_some())
            .unwrap_or_else(PoisonError::into_inner);
        Reclaimed { bytes: job.done, in_time: job.wanted.is_none() }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Job> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(shared: &Shared) {
    memory::touch_stack::<{ STACK / 4 }>();
    loop {
        let job = shared.lock();
        let job = shared
            .changed
            .wait_while(job, |job| job.wanted.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let Some((wanted, deadline)) = job.wanted else { continue };
        let file = Arc::clone(&job.file);
        drop(job);
        reclaim_steps(&file, wanted, deadline, |step| {
            let mut job = shared.lock();
            job.done = job.done.plus(step);
        });
        shared.lock().wanted = None;
        shared.changed.notify_all();
    }
}

/// Stops when the kernel finds less than it is asked for.
fn reclaim_steps(mut file: &File, wanted: Bytes, deadline: Instant, done: impl Fn(Bytes)) {
    let mut left = wanted;
    while left > Bytes(0) && Instant::now() < deadline {
        let step = left.min(STEP);
        // Swappiness 0: cache is dropped, the tenant is not swapped out.
        if file.write_all(format!("{} swappiness=0", step.0).as_bytes()).is_err() {
            return;
        }
        done(step);
        left = left.minus(step);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn what_is_asked_for_is_written_in_steps() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let reclaimer = Reclaimer::start(path.reopen().unwrap()).unwrap();
        let all = Reclaimed { bytes: Bytes::mib(9), in_time: true };
        assert_eq!(reclaimer.reclaim(Bytes::mib(9), later()), all);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "4194304 swappiness=04194304 swappiness=01048576 swappiness=0");
        let least = Reclaimed { bytes: LEAST, in_time: true };
        assert_eq!(reclaimer.reclaim(Bytes(1), later()), least, "it can be used again");
    }

    #[test]
    fn a_kernel_that_finds_nothing_has_reclaimed_nothing() {
        // Writing to /dev/full fails.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let reclaimer = Reclaimer::start(full).unwrap();
        assert_eq!(reclaimer.reclaim(Bytes(1), later()), Reclaimed { bytes: Bytes(0), in_time: true });
    }
}
