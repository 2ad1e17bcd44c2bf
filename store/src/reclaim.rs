//! Reclaim before refusing: the target's cache gives way to a charge through the mount (R14).
//!
//! Writing to `memory.reclaim` blocks, so a thread of its own does it. One request at a time waits for it, and at
//! most until its deadline; others are refused at once, so that serving threads are never all waiting.

use std::{
    fs::File,
    io::Write,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
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

/// How long nothing is tried after the kernel found nothing to reclaim: refusals must stay cheap.
const PAUSE: Duration = Duration::from_millis(500);

/// The thread's stack. It formats a number and writes it.
const STACK: usize = 64 << 10;

/// Reclaims from the target.
pub(crate) struct Reclaimer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    job: Mutex<Job>,
    changed: Condvar,
}

#[derive(Default)]
struct Job {
    /// What is still to be reclaimed; `None`: idle.
    wanted: Option<(Bytes, Instant)>,
    /// Whether somebody waits for the end of it.
    waited_for: bool,
    /// Nothing is tried before this.
    pause_until: Option<Instant>,
}

impl Reclaimer {
    /// Starts the thread. `file` is the target's `memory.reclaim`, open for writing.
    pub(crate) fn start(file: File) -> Result<Self, StoreError> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("reclaim".to_owned())
            .stack_size(STACK)
            .spawn(move || work(&theirs, &file))
            .map_err(io("start the reclaim thread"))?;
        Ok(Self { shared })
    }

    /// Tries to reclaim `missing` bytes within `patience`. `true`: something was tried, so look again.
    pub(crate) fn reclaim(&self, missing: Bytes, patience: Duration) -> bool {
        let now = Instant::now();
        let mut job = self.shared.lock();
        if job.waited_for || job.wanted.is_some() || job.pause_until.is_some_and(|until| now < until) {
            return false;
        }
        job.wanted = Some((missing.max(LEAST), now + patience));
        job.waited_for = true;
        self.shared.changed.notify_all();
        let (mut job, _) = self
            .shared
            .changed
            .wait_timeout_while(job, patience, |job| job.wanted.is_some())
            .unwrap_or_else(PoisonError::into_inner);
        job.waited_for = false;
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Job> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(shared: &Shared, file: &File) {
    memory::touch_stack::<{ STACK / 4 }>();
    loop {
        let job = shared.lock();
        let job = shared
            .changed
            .wait_while(job, |job| job.wanted.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let Some((wanted, deadline)) = job.wanted else { continue };
        drop(job);
        let found = reclaim_steps(file, wanted, deadline);
        let mut job = shared.lock();
        job.wanted = None;
        job.pause_until = (!found).then(|| Instant::now() + PAUSE);
        shared.changed.notify_all();
    }
}

/// `false`: the kernel found less than it was asked for.
fn reclaim_steps(mut file: &File, wanted: Bytes, deadline: Instant) -> bool {
    let mut left = wanted;
    while left > Bytes(0) && Instant::now() < deadline {
        let step = left.min(STEP);
        // Swappiness 0: cache is dropped, the tenant is not swapped out.
        if file.write_all(format!("{} swappiness=0", step.0).as_bytes()).is_err() {
            return false;
        }
        left = left.minus(step);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_asked_for_is_written_in_steps() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let reclaimer = Reclaimer::start(path.reopen().unwrap()).unwrap();
        assert!(reclaimer.reclaim(Bytes::mib(9), PATIENCE));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "4194304 swappiness=04194304 swappiness=01048576 swappiness=0");
        assert!(reclaimer.reclaim(Bytes(1), PATIENCE), "it can be used again");
    }

    #[test]
    fn nothing_is_tried_for_a_while_after_a_failure() {
        // Writing to /dev/full fails.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let reclaimer = Reclaimer::start(full).unwrap();
        assert!(reclaimer.reclaim(Bytes(1), PATIENCE));
        assert!(!reclaimer.reclaim(Bytes(1), PATIENCE));
    }
}
