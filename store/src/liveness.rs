//! Whether requests come to an end.
//!
//! The service manager restarts a store that does not say in time that it is alive, and a restart loses nothing. A store
//! is not alive if a request stays in the same place from one look to the next and to the one after: looks are taken by
//! this process itself, so that one that was frozen, or had no processor, is not taken for one that is stuck.

use std::{
    cell::Cell,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Requests in hand at once: one for each serving thread, and some more.
const PLACES: usize = 16;

/// A request that is seen in one place so many times in a row is stuck. Looks are half a minute apart, and no mount's
/// deadline is longer than a minute.
const STUCK: u32 = 4;

thread_local! {
    /// The place of the request that this thread has in hand.
    static OWN: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

/// Numbers of requests, and of the steps that they take.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The request that this thread has in hand gets on. To be called at each step of what can take long.
pub(crate) fn beat() {
    if let Some(place) = OWN.get() {
        place.store(NEXT.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The requests in hand.
pub(crate) struct Liveness {
    /// Each request's number, and a new one whenever it gets on; 0: nobody is here.
    places: [AtomicU64; PLACES],
    seen: Mutex<[(u64, u32); PLACES]>,
}

/// A request in hand, until it is dropped.
pub(crate) struct Pulse {
    place: Option<&'static AtomicU64>,
}

impl Liveness {
    /// Nothing in hand.
    pub(crate) fn new() -> Self {
        Self { places: [const { AtomicU64::new(0) }; PLACES], seen: Mutex::new([(0, 0); PLACES]) }
    }

    /// A request is in hand.
    pub(crate) fn begin(&'static self) -> Pulse {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let free = |place: &&AtomicU64| {
            place.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let place = self.places.iter().find(free);
        OWN.set(place);
        Pulse { place }
    }

    /// Looks at what is in hand. `false`: one of it is stuck.
    pub(crate) fn look(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut alive = true;
        for (place, seen) in self.places.iter().zip(seen.iter_mut()) {
            let number = place.load(Ordering::Relaxed);
            *seen = if number != 0 && number == seen.0 { (number, seen.1 + 1) } else { (number, 1) };
            alive &= number == 0 || seen.1 < STUCK;
        }
        alive
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        OWN.set(None);
        if let Some(place) = self.place {
            place.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn liveness() -> &'static Liveness {
        Box::leak(Box::new(Liveness::new()))
    }

    #[test]
    fn a_request_that_stays_is_stuck_and_others_are_not() {
        let liveness = liveness();
        let first = liveness.begin();
        assert!(liveness.look() && liveness.look() && liveness.look());
        drop(first);
        let stays = liveness.begin();
        assert!(liveness.look(), "another one in the same place");
        assert!(liveness.look() && liveness.look());
        beat();
        assert!(liveness.look(), "it has got on");
        assert!(liveness.look() && liveness.look());
        assert!(!liveness.look(), "seen four times in one place");
        drop(stays);
        assert!(liveness.look());
        beat();
        assert!(liveness.places.iter().all(|place| place.load(Ordering::Relaxed) == 0), "nobody is there");
    }

    #[test]
    fn more_requests_than_places_are_no_harm() {
        let liveness = liveness();
        let pulses: Vec<_> = (0..PLACES + 2).map(|_| liveness.begin()).collect();
        drop(pulses);
        assert!(liveness.look());
    }
}
