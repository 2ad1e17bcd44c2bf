//! The actor of one target: it feeds what happens to the arbiter, and does what the arbiter asks for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use memcharge_policy::{
    Bytes, MountName,
    arbiter::{Arbiter, Ask, Candidate, Input, KillFailure, Rules},
    events::Delta,
    link::Verdict,
    outcome::{EventId, Outcome, Reason},
    sample::{LevelSample, Sample},
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until},
};

use super::{
    Means, Member, Order,
    health::{Health, Reading},
    levels::{Leaf, Levels},
};

/// The kernel tells of one file up to a hundred times a second. What comes within this time is read at once.
const BREATH: Duration = Duration::from_millis(50);

/// How often a condition is looked at that ends without a word of the kernel: use above `memory.high`.
const RECHECK: Duration = Duration::from_secs(1);

/// What the actor of a target is told.
#[derive(Debug)]
pub(super) enum Say {
    Join(Member),
    Leave(MountName),
    RemoteOom { ask: Box<Ask>, patience: Duration, cache_missing: Option<Bytes> },
    Settled(EventId),
    Policy(MountName, Rules),
    Found(EventId, Vec<Candidate>),
    Killed(EventId, Result<(), KillFailure>),
}

/// The one owner of a target.
pub(super) struct Actor {
    pub(super) means: Arc<Means>,
    pub(super) path: String,
    id: u64,
    pub(super) arbiter: Arbiter,
    /// What the arbiter's moments count from.
    origin: Instant,
    pub(super) armed: Option<Instant>,
    pub(super) members: BTreeMap<MountName, Joined>,
    /// Whose asks these are, and until when they wait; until they are settled.
    pub(super) asks: BTreeMap<EventId, (MountName, Instant)>,
    /// `None`: the target is not there, or has no memory controller.
    levels: Option<Levels>,
    wake: Arc<Notify>,
    /// When the files are read next, whatever happens.
    next_look: Option<Instant>,
    last_look: Instant,
    /// Tenants can have the kernel kill as often as they like; each second one line tells of it.
    next_warning: Instant,
    pub(super) own: mpsc::WeakSender<Say>,
    inbox: mpsc::Receiver<Say>,
}

/// A mount of the target.
pub(super) struct Joined {
    member: Member,
    leaf: Option<Leaf>,
    /// What it was told; `None`: nothing yet.
    health: Option<Health>,
    /// Whether its store may hold files of the target that are not the target's any more.
    is_stale: bool,
    since: Instant,
}

impl Actor {
    pub(super) fn new(
        means: Arc<Means>,
        path: String,
        id: u64,
        own: mpsc::WeakSender<Say>,
        inbox: mpsc::Receiver<Say>,
    ) -> Self {
        let now = Instant::now();
        Self {
            means,
            arbiter: Arbiter::new(path.clone()),
            path,
            id,
            origin: now,
            armed: None,
            members: BTreeMap::new(),
            asks: BTreeMap::new(),
            levels: None,
            wake: Arc::new(Notify::new()),
            next_look: None,
            last_look: now,
            next_warning: now,
            own,
            inbox,
        }
    }

    /// Runs until the last mount has left.
    pub(super) async fn run(mut self) {
        self.open();
        let wake = Arc::clone(&self.wake);
        loop {
            tokio::select! {
                say = self.inbox.recv() => match say {
                    Some(say) => self.take(say).await,
                    None => break,
                },
                () = wake.notified() => self.woken().await,
                () = at(self.next_look) => self.look().await,
                () = at(self.armed) => {
                    self.armed = None;
                    let sample = self.sample().unwrap_or_else(no_room);
                    self.step(Input::Sampled { sample }).await;
                }
            }
        }
    }

    async fn take(&mut self, say: Say) {
        match say {
            Say::Join(member) => self.join(member),
            Say::Leave(mount) => {
                self.members.remove(&mount);
                self.asks.retain(|_, (other, _)| *other != mount);
                self.step(Input::Forget { mount }).await;
            }
            Say::RemoteOom { ask, patience, cache_missing } => self.ask(*ask, patience, cache_missing).await,
            Say::Settled(id) => {
                self.asks.remove(&id);
                self.step(Input::Settled { id }).await;
            }
            Say::Policy(mount, rules) => self.step(Input::Policy { mount, rules }).await,
            Say::Found(id, found) => {
                // In a target that cannot be read nobody is killed.
                let (found, sample) = match self.sample() {
                    Some(sample) => (found, sample),
                    None => (Vec::new(), no_room()),
                };
                self.step(Input::Candidates { id, found, sample }).await;
            }
            Say::Killed(id, result) => self.step(Input::Killed { id, result }).await,
        }
    }

    fn join(&mut self, member: Member) {
        let leaf = Leaf::open(&self.means.hierarchy, &self.means.watcher, &member.leaf, &self.wake);
        let leaf = leaf.inspect_err(|error| tracing::warn!(mount = %member.mount, "{error}")).ok();
        let name = member.mount.clone();
        self.members
            .insert(name, Joined { member, leaf, health: None, is_stale: true, since: Instant::now() });
        // How it is the new one hears soon.
        self.wake.notify_one();
    }

    async fn ask(&mut self, mut ask: Ask, patience: Duration, cache_missing: Option<Bytes>) {
        ask.deadline = self.now() + patience;
        let Some(sample) = self.sample() else {
            // Nothing may grow below a target that cannot be read.
            let verdict = Verdict { id: ask.id, grant: false, reason: Reason::TargetLost, killed: false };
            self.tell(&ask.mount, Order::Answer { verdict, victim: None, would_have: None });
            return;
        };
        let cache = self.levels.as_ref().and_then(|levels| levels.file_cache().ok()).unwrap_or_default();
        if let Some(missing) = cache_missing.filter(|missing| *missing > Bytes(0) && *missing <= cache) {
            tracing::debug!("dry run: {missing} of cache would have been reclaimed in {}", self.path);
            let verdict = Verdict { id: ask.id, grant: false, reason: Reason::Policy, killed: false };
            let would_have = Some(Outcome::GrantedAfterReclaim);
            self.tell(&ask.mount, Order::Answer { verdict, victim: None, would_have });
            return;
        }
        self.asks.insert(ask.id, (ask.mount.clone(), self.instant(ask.deadline)));
        self.step(Input::RemoteOom { ask, sample }).await;
    }

    /// Feeds the arbiter and does what it asks for.
    pub(super) async fn step(&mut self, input: Input) {
        for effect in self.arbiter.step(self.now(), input) {
            self.act(effect).await;
        }
    }

    /// The moment that the arbiter knows as now.
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The instant of a moment of the arbiter's.
    pub(super) fn instant(&self, moment: Duration) -> Instant {
        self.origin.checked_add(moment).unwrap_or_else(Instant::now)
    }

    fn sample(&self) -> Option<Sample> {
        self.levels.as_ref().and_then(|levels| levels.sample().ok())
    }

    /// Tells one mount. One that does not listen has a store that knows its own deadline.
    pub(super) fn tell(&self, mount: &MountName, order: Order) {
        if let Some(joined) = self.members.get(mount)
            && joined.member.orders.try_send(order).is_err()
        {
            tracing::warn!(mount = %mount, "mount {mount} does not take what its target tells it");
        }
    }

    fn open(&mut self) {
        let opened = Levels::open(&self.means.hierarchy, &self.means.watcher, &self.path, &self.wake);
        match opened {
            Ok(levels) => {
                self.levels = Some(levels);
                // Their stores may hold the files of before.
                self.members.values_mut().for_each(|joined| joined.is_stale = true);
            }
            // The old ones stay: they can be read no more, but what they watch tells when that changes.
            Err(error) => tracing::debug!("target {}: {error}", self.path),
        }
    }

    async fn woken(&mut self) {
        let due = self.last_look + BREATH;
        if Instant::now() >= due {
            self.look().await;
        } else {
            self.next_look = Some(due);
        }
    }

    /// Reads everything again: deltas decide, not what woke us.
    async fn look(&mut self) {
        (self.last_look, self.next_look) = (Instant::now(), None);
        self.read_events().await;
        self.read_health();
        if self.members.values().any(|joined| matches!(joined.health, Some(Health::Throttled(_)))) {
            self.next_look = Some(self.last_look + RECHECK);
        }
    }

    async fn read_events(&mut self) {
        let Some(levels) = &mut self.levels else { return };
        let Ok((target, above)) = levels.read_events() else { return };
        let total = levels.counters().clone();
        let Some(sample) = self.sample() else { return };
        if let Delta::Grown(grown) = &target {
            self.means.publisher.memory_event(self.id, &self.path, grown).await;
            let killed = grown.get("oom_kill");
            if killed > 0 && self.next_warning <= Instant::now() {
                self.next_warning = Instant::now() + RECHECK;
                tracing::warn!(
                    target_cgroup = %self.path,
                    "the kernel's OOM killer has ended {killed} process(es) in {} ({} in all)",
                    self.path,
                    total.get("oom_kill"),
                );
            }
        }
        for delta in std::iter::once(target).chain(above).filter(|delta| *delta != Delta::Unchanged) {
            self.step(Input::Events { delta, sample: sample.clone() }).await;
        }
    }

    fn read_health(&mut self) {
        let mut reading = self.reading();
        if self.levels.is_none() || !reading.memory {
            // What was taken away may be there again, behind other files.
            self.open();
            reading = self.reading();
        }
        for joined in self.members.values_mut() {
            let at_home = joined.leaf.as_ref().is_some_and(Leaf::is_populated);
            let own = Reading { at_home, ..reading.clone() };
            joined.tell(own.health(&self.path, &joined.member.leaf));
        }
    }

    fn reading(&self) -> Reading {
        let hierarchy = &self.means.hierarchy;
        match &self.levels {
            Some(levels) => {
                let reading = levels.read(hierarchy);
                Reading { same: reading.same.map(|same| same && self.is_same(hierarchy)), ..reading }
            }
            None => Reading {
                same: hierarchy.open(&self.path).ok().map(|now| now.id() == self.id),
                ..Reading::default()
            },
        }
    }

    fn is_same(&self, hierarchy: &memcharge_cgroup::Hierarchy) -> bool {
        hierarchy.open(&self.path).is_ok_and(|now| now.id() == self.id)
    }
}

impl Joined {
    /// Tells a mount how its place is, if that has changed, or if its store has to open its files again.
    fn tell(&mut self, health: Health) {
        let serves = matches!(health, Health::Fine | Health::Throttled(_));
        if self.health.as_ref() == Some(&health) && !(self.is_stale && serves) {
            return;
        }
        // Use goes up and down around memory.high all the time; the end of it is believed when it has lasted.
        let eases = health == Health::Fine && matches!(self.health, Some(Health::Throttled(_)));
        if eases && self.since.elapsed() < RECHECK {
            return;
        }
        let order = Order::Health { health: health.clone(), reopen: self.is_stale && serves };
        if self.member.orders.try_send(order).is_ok() {
            self.is_stale &= !serves;
            (self.health, self.since) = (Some(health), Instant::now());
        }
    }
}

/// A target that cannot be read has no room.
fn no_room() -> Sample {
    let level = LevelSample { current: Bytes(0), max: Some(Bytes(0)), high: None };
    Sample { levels: vec![level], available: Bytes(0) }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
