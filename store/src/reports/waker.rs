//! What wakes the thread that talks to memcharged.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::error::{StoreError, io};

/// How long after an answer it is told of. To tell wakes two processes, and the client that was answered is to run before
/// them. Longer than a tick of a busy processor: a timer that is due before that one has the kernel program its clock anew,
/// which the client would wait for.
const AFTER_ANSWER: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// As soon as a timer can.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1 };

/// A timer that can be waited for.
pub(super) struct Waker {
    timer: OwnedFd,
    /// Whether it is set, and nobody was woken yet.
    is_set: AtomicBool,
}

impl Waker {
    /// It is not set.
    pub(super) fn new() -> Result<Self, StoreError> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).map_err(io("make a timer"))?;
        Ok(Self { timer, is_set: AtomicBool::new(false) })
    }

    /// Wakes in a moment. A timer that is set already is not put off.
    pub(super) fn soon(&self) {
        if !self.is_set.swap(true, Ordering::SeqCst) {
            self.set(AFTER_ANSWER);
        }
    }

    /// Wakes at once.
    pub(super) fn now(&self) {
        self.is_set.store(true, Ordering::SeqCst);
        self.set(AT_ONCE);
    }

    /// Whoever was woken is awake.
    pub(super) fn heard(&self) {
        self.is_set.store(false, Ordering::SeqCst);
        // A timer that has not run out says so; then there is nothing to take.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
    }

    fn set(&self, pause: Timespec) {
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: pause };
        // It fails for a time that is none, and for what is no timer.
        let _ = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
