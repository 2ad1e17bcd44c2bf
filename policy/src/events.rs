//! The counters of `memory.events`. The kernel merges notifications, so what counts is what a counter has grown by, not
//! how often somebody was woken.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The counters of one cgroup's `memory.events` (or `memory.events.local`) at one moment, by the kernel's names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters(pub BTreeMap<String, u64>);

/// What has happened between two readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// Nothing.
    Unchanged,
    /// These counters have grown by so much; others have not.
    Grown(Counters),
    /// A counter went backwards or disappeared: this is another cgroup of the same name. Nothing is known to have
    /// happened in it.
    Replaced,
}

impl Counters {
    /// A counter; 0 for one that the kernel does not have.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What has happened since `before`.
    pub fn since(&self, before: &Self) -> Delta {
        if before.0.iter().any(|(name, old)| self.0.get(name).is_none_or(|new| new < old)) {
            return Delta::Replaced;
        }
        let grown = self.0.iter().filter_map(|(name, new)| {
            let more = new - before.get(name);
            (more > 0).then(|| (name.clone(), more))
        });
        let grown: BTreeMap<_, _> = grown.collect();
        if grown.is_empty() { Delta::Unchanged } else { Delta::Grown(Self(grown)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(pairs: &[(&str, u64)]) -> Counters {
        Counters(pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
    }

    #[test]
    fn deltas() {
        let old = counters(&[("max", 3), ("oom", 1), ("oom_kill", 0)]);
        for (new, delta) in [
            (vec![("max", 3), ("oom", 1), ("oom_kill", 0)], Delta::Unchanged),
            (
                vec![("max", 5), ("oom", 1), ("oom_kill", 1)],
                Delta::Grown(counters(&[("max", 2), ("oom_kill", 1)])),
            ),
            (vec![("max", 5), ("oom", 0), ("oom_kill", 0)], Delta::Replaced),
            (vec![("max", 5), ("oom", 1)], Delta::Replaced),
            // A newer kernel's counter.
            (
                vec![("max", 3), ("oom", 1), ("oom_kill", 0), ("sock_throttled", 2)],
                Delta::Grown(counters(&[("sock_throttled", 2)])),
            ),
        ] {
            assert_eq!(counters(&new).since(&old), delta);
        }
    }
}
