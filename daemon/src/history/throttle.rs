//! How much of what a tenant can provoke goes to the log: for each mount some at once, then one a second. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Entries of one mount that may go out at once.
const BURST: u32 = 10;

/// One more may go out each time this has passed.
const PERIOD: Duration = Duration::from_secs(1);

/// Mounts that are remembered: as many as there can be. A mount that was not heard of for long is forgotten for a new
/// one.
const MAX_BUCKETS: usize = 1024;

/// What went out lately, by mount.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    buckets: BTreeMap<String, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// When it will be full again; each entry takes a period.
    full: Instant,
    suppressed: u64,
}

impl Throttle {
    /// Whether an entry of this mount may go out now; if so, how many did not since the last that did. What `must` go
    /// out does, and leaves the others their share.
    pub(super) fn admit(&mut self, mount: &str, now: Instant, must: bool) -> Option<u64> {
        let bucket = self.bucket(mount, now);
        if must {
            return Some(std::mem::take(&mut bucket.suppressed));
        }
        let full = bucket.full.max(now) + PERIOD;
        if full > now + PERIOD * BURST {
            bucket.suppressed = bucket.suppressed.saturating_add(1);
            return None;
        }
        bucket.full = full;
        Some(std::mem::take(&mut bucket.suppressed))
    }

    /// An entry that was admitted, and stood for so many others, could not be sent.
    pub(super) fn lost(&mut self, mount: &str, now: Instant, suppressed: u64) {
        let bucket = self.bucket(mount, now);
        bucket.suppressed = bucket.suppressed.saturating_add(suppressed).saturating_add(1);
    }

    fn bucket(&mut self, mount: &str, now: Instant) -> &mut Bucket {
        if !self.buckets.contains_key(mount)
            && self.buckets.len() >= MAX_BUCKETS
            && let Some(idle) =
                self.buckets.iter().min_by_key(|(_, bucket)| bucket.full).map(|(name, _)| name.clone())
        {
            self.buckets.remove(&idle);
        }
        self.buckets.entry(mount.to_owned()).or_insert(Bucket { full: now, suppressed: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `tries` at this moment go out.
    fn out(throttle: &mut Throttle, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| throttle.admit("m", now, false).is_some()).count()
    }

    #[test]
    fn ten_at_once_then_one_a_second() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        for (millis, admitted) in
            [(0, 10), (999, 0), (1000, 1), (1001, 0), (3500, 2), (4000, 1), (60_000, 10)]
        {
            assert_eq!(out(&mut throttle, at(millis), 100), admitted, "after {millis} ms");
        }
    }

    #[test]
    fn what_is_suppressed_is_told_by_the_next_that_goes_out() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        assert_eq!(out(&mut throttle, start, 142), 10);
        assert_eq!(throttle.admit("other", start, false), Some(0), "mounts have a share each");
        let later = start + PERIOD;
        assert_eq!(throttle.admit("m", later, false), Some(132));
        assert_eq!(throttle.admit("m", later, false), None);
        assert_eq!(
            throttle.admit("m", later, true),
            Some(1),
            "a kill is never suppressed, and tells it, too"
        );
        assert_eq!(throttle.admit("m", later + PERIOD, false), Some(0), "and costs the others nothing");
    }

    #[test]
    fn what_could_not_be_sent_counts_as_suppressed() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        throttle.lost("m", start, 3);
        assert_eq!(throttle.admit("m", start, false), Some(4));
    }

    #[test]
    fn mounts_that_come_and_go_do_not_pile_up() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let later = start + PERIOD;
        assert_eq!(out(&mut throttle, later, 20), 10);
        for number in 0..3 * MAX_BUCKETS {
            assert_eq!(throttle.admit(&format!("mount-{number}"), start, false), Some(0));
        }
        assert_eq!(throttle.buckets.len(), MAX_BUCKETS);
        assert_eq!(throttle.admit("m", later, false), None, "the busy one is not forgotten");
    }
}
