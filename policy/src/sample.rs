//! Readings of a cgroup and its ancestors, and what they leave to be charged.

use serde::{Deserialize, Serialize};

use crate::Bytes;

/// One cgroup at one moment: `memory.current`, `memory.max` and `memory.high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelSample {
    /// `memory.current`.
    pub current: Bytes,
    /// `memory.max`; `None` for "max".
    pub max: Option<Bytes>,
    /// `memory.high`; `None` for "max".
    pub high: Option<Bytes>,
}

impl LevelSample {
    /// The tighter of the two limits. A store whose cgroup is over `memory.high` is stalled by the kernel for up to
    /// two seconds a call, so for a charge through a mount it counts like `memory.max`.
    pub fn limit(&self) -> Option<(Bytes, LimitFile)> {
        match (self.max, self.high) {
            (None, None) => None,
            (Some(max), Some(high)) if high < max => Some((high, LimitFile::High)),
            (Some(max), _) => Some((max, LimitFile::Max)),
            (None, Some(high)) => Some((high, LimitFile::High)),
        }
    }
}

/// Which of a cgroup's two limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitFile {
    /// `memory.max`.
    Max,
    /// `memory.high`.
    High,
}

/// What a charge runs into first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The mount's own cap.
    Cap,
    /// A limit of the cgroup at this place in the sample.
    Level {
        /// The place in [`Sample::levels`].
        index: usize,
        /// Which limit.
        file: LimitFile,
    },
    /// The machine's memory.
    Machine,
}

/// The store's cgroup and all its ancestors at one moment, and the machine's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The store's own cgroup first, then its ancestors up to, not including, the root; those without the memory
    /// controller are left out.
    pub levels: Vec<LevelSample>,
    /// `MemAvailable` of `/proc/meminfo`.
    pub available: Bytes,
}

/// How much could be charged before something is hit, and what that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headroom {
    /// The bytes.
    pub bytes: Bytes,
    /// What is hit first.
    pub bound: Bound,
    /// By how much that is exceeded already.
    pub exceeded: Bytes,
}

impl Sample {
    /// The minimum over all levels of min(max, high) - current, and over the machine of `available` less
    /// `machine_margin`.
    pub fn headroom(&self, machine_margin: Bytes) -> Headroom {
        self.tightest(machine_margin, LevelSample::limit)
    }

    /// As [`Sample::headroom`], counting `memory.max` alone: where the kernel would kill. Beyond `memory.high` it only
    /// slows the store down.
    pub fn headroom_to_max(&self) -> Headroom {
        self.tightest(Bytes(0), |level| Some((level.max?, LimitFile::Max)))
    }

    fn tightest(
        &self,
        machine_margin: Bytes,
        limit_of: impl Fn(&LevelSample) -> Option<(Bytes, LimitFile)>,
    ) -> Headroom {
        let machine = Headroom {
            bytes: self.available.minus(machine_margin),
            bound: Bound::Machine,
            exceeded: machine_margin.minus(self.available),
        };
        self.levels
            .iter()
            .enumerate()
            .filter_map(|(index, level)| {
                let (limit, file) = limit_of(level)?;
                Some(Headroom {
                    bytes: limit.minus(level.current),
                    bound: Bound::Level { index, file },
                    exceeded: level.current.minus(limit),
                })
            })
            .fold(machine, |least, next| {
                let tighter = next.bytes < least.bytes
                    || (next.bytes == least.bytes && next.exceeded >= least.exceeded);
                if tighter { next } else { least }
            })
    }

    /// The smallest limit of all levels; `None` where no level has one.
    pub fn smallest_limit(&self) -> Option<Bytes> {
        self.levels.iter().filter_map(LevelSample::limit).map(|(limit, _)| limit).min()
    }

    /// The smallest `memory.max` of all levels; `None` where no level has one.
    pub fn smallest_max(&self) -> Option<Bytes> {
        self.levels.iter().filter_map(|level| level.max).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(current: u64, max: Option<u64>, high: Option<u64>) -> LevelSample {
        LevelSample { current: Bytes::mib(current), max: max.map(Bytes::mib), high: high.map(Bytes::mib) }
    }

    fn headroom(levels: &[LevelSample], available: u64) -> Headroom {
        Sample { levels: levels.to_vec(), available: Bytes::mib(available) }.headroom(Bytes(0))
    }

    #[test]
    fn the_tightest_level_decides() {
        let high = Bound::Level { index: 1, file: LimitFile::High };
        let max = Bound::Level { index: 2, file: LimitFile::Max };
        for (levels, available, bytes, bound) in [
            (vec![], 7, 7, Bound::Machine),
            (vec![level(1, None, None)], 7, 7, Bound::Machine),
            (
                vec![level(1, None, None), level(4, Some(20), Some(10)), level(5, Some(100), None)],
                99,
                6,
                high,
            ),
            (vec![level(1, None, None), level(4, Some(20), None), level(15, Some(20), None)], 99, 5, max),
            (vec![level(1, None, None), level(4, Some(20), None), level(30, Some(20), None)], 99, 0, max),
            (vec![level(1, None, None), level(4, None, Some(3)), level(30, Some(20), None)], 99, 0, max),
        ] {
            let found = headroom(&levels, available);
            assert_eq!((found.bytes, found.bound), (Bytes::mib(bytes), bound));
        }
        assert_eq!(headroom(&[level(30, Some(20), None)], 99).exceeded, Bytes::mib(10));
    }
}
