//! Who waits for which inotify watch. The kernel gives one number for one file, however often it is added.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Notify;

/// The waiters of all watches.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    watches: BTreeMap<i32, Vec<(u64, Arc<Notify>)>>,
    /// Of the last waiter.
    last: u64,
}

/// One waiter of one watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiter {
    /// The watch, by the kernel's number.
    pub(super) number: i32,
    /// Tells it from other waiters. The number alone would not do: the kernel may give it to another file later.
    id: u64,
}

impl Waiters {
    pub(super) fn add(&mut self, number: i32, wake: Arc<Notify>) -> Waiter {
        self.last += 1;
        self.watches.entry(number).or_default().push((self.last, wake));
        Waiter { number, id: self.last }
    }

    /// Takes a waiter away. `true`: it was the last one of its watch, which is to be removed.
    pub(super) fn remove(&mut self, waiter: Waiter) -> bool {
        let Some(waiters) = self.watches.get_mut(&waiter.number) else { return false };
        let before = waiters.len();
        waiters.retain(|(id, _)| *id != waiter.id);
        let is_last = waiters.is_empty() && before > 0;
        if is_last {
            self.watches.remove(&waiter.number);
        }
        is_last
    }

    /// Wakes the waiters of a watch. One that was removed meanwhile has none.
    pub(super) fn wake(&self, number: i32) {
        self.watches.get(&number).into_iter().flatten().for_each(|(_, wake)| wake.notify_one());
    }

    /// Wakes everybody: events were lost.
    pub(super) fn wake_all(&self) {
        self.watches.keys().for_each(|number| self.wake(*number));
    }

    /// The kernel has removed a watch.
    pub(super) fn forget(&mut self, number: i32) {
        self.watches.remove(&number);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_woken(wake: &Notify) -> bool {
        wake.notified().now_or_never().is_some()
    }

    #[test]
    fn a_watch_goes_with_its_last_waiter() {
        let mut waiters = Waiters::default();
        let (one, other) = (waiters.add(7, Arc::default()), waiters.add(7, Arc::default()));
        assert!(!waiters.remove(one));
        assert!(!waiters.remove(one), "twice is no harm");
        assert!(waiters.remove(other));
        assert!(waiters.is_empty());
    }

    #[test]
    fn a_number_that_is_used_again_belongs_to_the_new_waiter() {
        let mut waiters = Waiters::default();
        let old = waiters.add(7, Arc::default());
        waiters.forget(7);
        let wake = Arc::<Notify>::default();
        waiters.add(7, Arc::clone(&wake));
        assert!(!waiters.remove(old));
        waiters.wake(7);
        assert!(is_woken(&wake));
    }

    #[test]
    fn r33_lost_events_wake_everybody() {
        let mut waiters = Waiters::default();
        let wakes = [7, 8].map(|number| {
            let wake = Arc::<Notify>::default();
            waiters.add(number, Arc::clone(&wake));
            wake
        });
        waiters.wake(7);
        waiters.wake(99);
        assert!(is_woken(&wakes[0]) && !is_woken(&wakes[1]));
        waiters.wake_all();
        assert!(wakes.iter().all(|wake| is_woken(wake)));
    }
}
