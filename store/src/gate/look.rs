//! Looking at the target: its limits and those above it, what other stores hold below them, and what the mount has.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

use memcharge_cgroup::{CgroupError, Hierarchy, LEDGER_DEPTH, Ledger, Sampler, parse::parse_flat_key};
use memcharge_policy::{
    Bytes,
    admission::{self, Budget, GRANT_CHUNK, MARGIN, Refusal, Standing},
    link::Home,
    outcome::LimitName,
    sample::{Bound, LimitFile, Sample},
};
use rustix::fs::OFlags;

use super::{Denied, Looked, PAGE, State};
use crate::{backing::Backing, case::Obstacle, home};

/// What a store's cgroup is charged beside files, at most: its own memory, and what lags in the kernel's counters. Only
/// what goes beyond is looked into.
const OWN_MEMORY: Bytes = Bytes::mib(8);

/// What an inode costs beside its pages, generously.
const INODE_COST: u64 = 2 << 10;

/// How far the kernel's counters lag behind each other: batches of 64 pages on each processor.
const LAG: Bytes = Bytes::mib(2);

/// How long a refused growth is refused again by a look at the same limit alone.
const BLOCKED: Duration = Duration::from_secs(1);

/// Cache below this is not worth asking the kernel for, which is not quick.
const LEAST_CACHE: Bytes = Bytes::kib(64);

/// How long it is believed that a target without cache has none, if its use has not changed. To read `memory.stat` costs
/// as much as all else that a refusal takes.
const BARREN: Duration = Duration::from_secs(3);

/// Large enough for the start of `cgroup.events`.
const EVENTS_BUFFER: usize = 64;

/// Where the kernel says which cgroup this process is in.
const MEMBERSHIP: &str = "/proc/self/cgroup";

/// Large enough for the cgroup of any unit. What is longer is taken for another one.
const MEMBERSHIP_BUFFER: usize = 1024;

/// The cgroup that pays, by its open files.
pub(crate) struct Target {
    /// The store's own cgroup and all above it.
    pub(super) sampler: Sampler,
    level_ids: Vec<u64>,
    /// The store's own cgroup, below the target.
    own_path: Arc<str>,
    /// Its `cgroup.events`.
    own_events: File,
    /// Which cgroup this process is in, as the kernel says it.
    membership: File,
    /// Whether that is the target itself, and processes of the target are in it, too.
    shared: bool,
    /// Whether the store's own cgroup has counters of its own: then it is the first level.
    own_level: bool,
    /// Whether that is where the store belongs.
    at_home: bool,
    /// Where the target is, or will be.
    target_path: String,
    slot: u32,
    ledger: Arc<Ledger>,
}

/// What a look shows beside the sample.
pub(super) struct Scene {
    /// What counts against the cap.
    pub(super) used: Bytes,
    /// What the mount may take, with the reserve in bytes.
    pub(super) budget: Budget,
}

/// The limit at which a growth was refused a moment ago.
pub(super) struct Blocked {
    index: usize,
    file: LimitFile,
    reserve: Bytes,
    until: Instant,
}

/// The target had next to no cache a moment ago.
pub(super) struct Barren {
    /// What it was charged beside the mount's files.
    beside: Bytes,
    until: Instant,
}

impl Barren {
    /// Whether that still holds. Cache that has come since shows in what is charged. It would not only if something else
    /// had shrunk by just as much; so this is not believed for long.
    fn holds(&self, beside: Bytes, now: Instant) -> bool {
        let change = beside.minus(self.beside).max(self.beside.minus(beside));
        now < self.until && change < LEAST_CACHE
    }
}

impl Target {
    /// Opens the files of the cgroup that this process is in. The store's line in `ledger` is `slot`. Where it is not
    /// `home`, nothing is ever admitted: somebody else would pay.
    pub(crate) fn open(ledger: Arc<Ledger>, slot: u32, home: &Home) -> Result<Self, CgroupError> {
        let hierarchy = Hierarchy::system();
        let own = hierarchy.open_of(None)?;
        let sampler = Sampler::open(&hierarchy, own.path())?;
        // The kernel makes a buffer for each file when it is first read, on the target's bill: not at its limit.
        for index in 0..sampler.level_ids().count() {
            sampler.clean_cache(index)?;
        }
        Ok(Self {
            level_ids: sampler.level_ids().collect(),
            own_path: own.path().into(),
            own_events: own.open_file("cgroup.events", OFlags::RDONLY)?,
            membership: File::open(MEMBERSHIP).map_err(|source| CgroupError::Io {
                action: "open",
                path: MEMBERSHIP.to_owned(),
                source,
            })?,
            shared: home.is_shared(),
            own_level: own.has_memory()? && !home.is_shared(),
            at_home: home::is_home(&own, home),
            target_path: home.target.clone(),
            sampler,
            slot,
            ledger,
        })
    }

    /// Opens `memory.reclaim` of the target, the cgroup above the store's own.
    pub(crate) fn open_reclaim(&self) -> Result<File, CgroupError> {
        let parent = || self.own_path.rsplit_once('/').map_or("/", |(parent, _)| parent);
        let target = if self.shared { &*self.own_path } else { parent() };
        Hierarchy::system().open(target)?.open_file("memory.reclaim", OFlags::WRONLY)
    }

    /// Whether the target that the store is not with has processes, so that the store will be with it soon.
    pub(super) fn is_coming(&self) -> bool {
        let target = Hierarchy::system().open(&self.target_path);
        target.and_then(|target| target.is_populated()).unwrap_or(false)
    }

    /// Whether the store belongs there.
    pub(super) fn is_right(&self) -> bool {
        self.at_home
    }

    /// Cache of the target that could give way.
    fn file_cache(&self) -> Bytes {
        if !self.at_home {
            return Bytes(0);
        }
        self.sampler.file_cache(self.target_level()).unwrap_or_default()
    }

    /// What the target is charged.
    pub(super) fn charged(&self) -> Bytes {
        let level = self.sampler.sample_level(self.target_level()).ok().flatten();
        level.map(|level| level.current).unwrap_or_default()
    }

    fn target_level(&self) -> usize {
        usize::from(self.own_level)
    }

    /// Whether this process is still where its allocations are charged to the target. One that was moved away would
    /// charge somebody else.
    pub(super) fn is_home(&self) -> bool {
        if !self.at_home {
            return false;
        }
        if self.shared {
            // Others are in it, so that it is never empty.
            let mut buffer = [0; MEMBERSHIP_BUFFER];
            let length = self.membership.read_at(&mut buffer, 0).unwrap_or(0);
            let own = buffer[..length].strip_prefix(b"0::").and_then(|own| own.strip_suffix(b"\n"));
            return own == Some(self.own_path.as_bytes());
        }
        let mut buffer = [0; EVENTS_BUFFER];
        let text = self.own_events.read_at(&mut buffer, 0).ok().and_then(|length| buffer.get(..length));
        let text = text.and_then(|text| std::str::from_utf8(text).ok());
        text.and_then(|text| parse_flat_key(text, "populated")) == Some(1)
    }

    fn unreadable(&self, missing: Bytes) -> Denied {
        let path = Some(Arc::clone(&self.own_path));
        Denied { obstacle: Obstacle { limit: LimitName::Unreadable, path }, missing }
    }
}

impl State {
    /// Looks at everything. `need`: what shall be granted if it fits; it is written down first, so that of two stores
    /// that look at the same time each sees the other's wish. `growth`: the cap counts too.
    pub(super) fn look(&mut self, backing: &Backing, need: Bytes, growth: bool) -> Looked<Scene> {
        let target = &self.target;
        // A grant can be a little more than what was asked for.
        let wish = if need > Bytes(0) { need.max(GRANT_CHUNK) } else { need };
        target.ledger.write_down(target.slot, self.in_flight.plus(self.credit).plus(wish));
        // Read before the sample: what another store allocates and takes off its line in between counts twice, never not
        // at all.
        let mut held = [Bytes(0); LEDGER_DEPTH + 1];
        for (held, id) in held.iter_mut().zip(&target.level_ids) {
            *held = target.ledger.held_by_others(target.slot, *id);
        }
        let read = target.is_home().then(|| target.sampler.sample_levels(&mut self.sample));
        if !matches!(read, Some(Ok(()))) {
            self.write_down();
            return Err(self.target.unreadable(need));
        }
        let own_charge = self.sample.levels.first().map(|level| level.current);
        for (level, held) in self.sample.levels.iter_mut().zip(held) {
            level.current = level.current.plus(held);
        }
        let reserve = self.limits.reserve;
        let reserve = reserve.unwrap_or_else(|| admission::default_reserve(self.sample.smallest_limit()));
        let budget = Budget { cap: self.limits.cap.filter(|_| growth), reserve: Some(reserve) };
        self.look_at_the_machine(PAGE.min(need).plus(reserve));
        let used = if growth { self.used(backing, own_charge) } else { Ok(Bytes(0)) };
        let used = used.map_err(|()| {
            self.write_down();
            self.target.unreadable(need)
        })?;
        if growth {
            self.used = used;
        }
        Ok(Scene { used, budget })
    }

    /// Whether the target has cache that is worth asking for, as of the last look at a growth.
    pub(super) fn has_cache(&mut self) -> bool {
        let level = self.sample.levels.get(self.target.target_level());
        let beside = level.map(|level| level.current).unwrap_or_default().minus(self.used);
        let now = Instant::now();
        if self.barren.as_ref().is_some_and(|barren| barren.holds(beside, now)) {
            return false;
        }
        let has_cache = self.target.file_cache() >= LEAST_CACHE;
        self.barren = (!has_cache).then(|| Barren { beside, until: now + BARREN });
        has_cache
    }

    /// Reads the machine's memory where the cgroups leave room; where they do not, it does not matter.
    fn look_at_the_machine(&mut self, need: Bytes) {
        self.sample.available = Bytes(u64::MAX);
        let left = self.sample.headroom(Bytes(0)).bytes;
        if left >= need.plus(self.in_flight).plus(MARGIN) {
            // What cannot be read admits nothing.
            self.sample.available = self.target.sampler.available().unwrap_or_default();
        }
    }

    /// What counts against the cap: the bytes in files, and pages that have lost their file and live on in pipes.
    /// The latter show in what the store's cgroup is charged and in no other counter.
    fn used(&self, backing: &Backing, own_charge: Option<Bytes>) -> Result<Bytes, ()> {
        let usage = backing.usage().map_err(|_| ())?;
        let Some(charged) = own_charge.filter(|_| self.target.own_level && self.limits.cap.is_some()) else {
            return Ok(usage.used);
        };
        let metadata = Bytes(usage.inodes_used.saturating_mul(INODE_COST));
        let expected = usage.used.plus(self.in_flight).plus(OWN_MEMORY).plus(metadata);
        if charged <= expected {
            return Ok(usage.used);
        }
        let accounted = self.target.sampler.accounted(0).map_err(|_| ())?;
        Ok(usage.used.plus(charged.minus(accounted).minus(LAG)))
    }

    /// What stands in the way, in words that mean something outside of this sample.
    pub(super) fn denied(&self, refusal: Refusal) -> Denied {
        let obstacle = match refusal.bound {
            Bound::Cap => Obstacle::of(LimitName::Size),
            Bound::Machine => Obstacle::of(LimitName::Machine),
            Bound::Level { index, file } => match self.target.sampler.level_path(index) {
                Some(path) => Obstacle::at(path, file),
                None => Obstacle::of(LimitName::Unreadable),
            },
        };
        Denied { obstacle, missing: refusal.missing }
    }

    /// What makes a name never waits. Where the target is full of clean cache the kernel drops some for it.
    pub(super) fn drop_cache(&self, refusal: Refusal) -> Looked<()> {
        let clean = match refusal.bound {
            _ if !self.limits.reclaim => Bytes(0),
            bound => self.clean_cache(bound),
        };
        if admission::cache_gives_way(refusal, clean) { Ok(()) } else { Err(self.denied(refusal)) }
    }

    /// Whether a few pages can be charged. Cache that the kernel drops for them is room, whatever the policy: a target that
    /// is full of it is no less healthy.
    pub(super) fn has_room(&self, admitted: Result<(), Refusal>) -> bool {
        let gives_way =
            |refusal: Refusal| admission::cache_gives_way(refusal, self.clean_cache(refusal.bound));
        admitted.map_or_else(gives_way, |()| true)
    }

    fn clean_cache(&self, bound: Bound) -> Bytes {
        match bound {
            Bound::Level { index, .. } => self.target.sampler.clean_cache(index).unwrap_or_default(),
            Bound::Cap | Bound::Machine => Bytes(0),
        }
    }

    /// Remembers where a growth was refused.
    pub(super) fn block(&mut self, refusal: &Refusal, budget: Budget) {
        if let Bound::Level { index, file } = refusal.bound {
            let reserve = budget.reserve.unwrap_or_default();
            self.blocked = Some(Blocked { index, file, reserve, until: Instant::now() + BLOCKED });
        }
    }

    /// A quick refusal: a growth by `least` was refused a moment ago, and the same limit is still in the way.
    pub(super) fn still_blocked(&mut self, need: Bytes, least: Bytes) -> Looked<()> {
        // Looked at first: once it is over, everything is read anyway.
        let lasts = |blocked: &Blocked| Instant::now() < blocked.until;
        let Some(blocked) = self.blocked.take().filter(lasts) else { return Ok(()) };
        let target = &self.target;
        let Some(id) = target.level_ids.get(blocked.index) else { return Ok(()) };
        let held = target.ledger.held_by_others(target.slot, *id);
        let level = target.sampler.sample_level(blocked.index).ok().flatten();
        let Some(mut level) = level.filter(|_| target.is_home()) else { return Ok(()) };
        level.current = level.current.plus(held);
        if level.limit().is_none_or(|(_, file)| file != blocked.file) {
            return Ok(());
        }
        let sample = Sample { levels: vec![level], available: Bytes(u64::MAX) };
        let standing = Standing { used: Bytes(0), outstanding: self.in_flight };
        let budget = Budget { cap: None, reserve: Some(blocked.reserve) };
        match admission::admit(need, &sample, standing, budget) {
            Err(refusal) if need.minus(refusal.missing).page_floor() < least.max(PAGE) => {
                let bound = Bound::Level { index: blocked.index, file: blocked.file };
                self.blocked = Some(blocked);
                Err(self.denied(Refusal { bound, ..refusal }))
            }
            _ => Ok(()),
        }
    }

    /// Writes down what this store holds, for the others to see.
    pub(super) fn write_down(&self) {
        self.target.ledger.write_down(self.target.slot, self.in_flight.plus(self.credit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r14_no_cache_is_believed_for_a_moment_and_only_while_use_stands_still() {
        let now = Instant::now();
        let barren = Barren { beside: Bytes::mib(2), until: now + BARREN };
        let little = Bytes(LEAST_CACHE.0 - 1);
        for (why, beside, after, holds) in [
            ("nothing has changed", Bytes::mib(2), Duration::ZERO, true),
            ("a little more", Bytes::mib(2).plus(little), Duration::ZERO, true),
            ("enough to be cache", Bytes::mib(2).plus(LEAST_CACHE), Duration::ZERO, false),
            ("cache may have taken a part of what went", Bytes::mib(1), Duration::ZERO, false),
            ("just before the end", Bytes::mib(2), BARREN - Duration::from_millis(1), true),
            ("too long ago", Bytes::mib(2), BARREN, false),
        ] {
            assert_eq!(barren.holds(beside, now + after), holds, "{why}");
        }
    }
}
