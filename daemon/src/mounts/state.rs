//! What a mount is like at one moment, and how it gets from one state to the next. Pure.

use std::sync::Arc;

use memcharge_policy::{Bytes, MountPolicy, PolicyPatch, SizeCap, link::Previous};

use crate::targets::Health;

/// The state of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It is being made.
    Activating,
    /// It works.
    Active,
    /// It works slowly, for this reason.
    Throttled(String),
    /// Whoever uses it waits, for this reason.
    Frozen(String),
    /// What exists can be used, and nothing can grow, for this reason.
    Degraded(String),
    /// The same, until the target comes.
    Waiting(String),
    /// It does not work, for this reason.
    Failed(String),
    /// It is being ended.
    Deactivating,
}

/// Something that happens to a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It was made, or found again.
    Attached,
    /// It could not be made or found, for this reason. `keep`: it is configured, and stays in the list.
    NotAttached {
        /// Why.
        reason: String,
        /// Whether it stays in the list.
        keep: bool,
    },
    /// Its place is in another condition.
    Health(Health),
    /// Its target is not there, for this reason.
    Waiting(String),
    /// Its store has come to the target.
    Entered,
    /// Its end was asked for, and nobody uses it.
    Ending,
    /// It could not be ended, for this reason.
    NotEnded(String),
    /// All of it is gone.
    Ended,
    /// It works again, with its data.
    Recovered,
    /// Its store is gone, and left something to clean up.
    StoreLost(String),
}

impl State {
    /// The state after an event; `None`: the mount is not there any more. Events that do not fit change nothing.
    pub(crate) fn after(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Activating, Event::Attached) => Some(Self::Active),
            (Self::Activating, Event::NotAttached { reason, keep }) => keep.then_some(Self::Failed(reason)),
            (Self::Failed(_), Event::Recovered) => Some(Self::Active),
            (Self::Deactivating, Event::NotEnded(reason)) => Some(Self::Failed(reason)),
            (_, Event::Ended) => None,
            (Self::Failed(_), Event::Ending) => Some(Self::Deactivating),
            (state, Event::Ending) if state.has_store() => Some(Self::Deactivating),
            (state, Event::StoreLost(reason)) if state.has_store() => Some(Self::Failed(reason)),
            (state, Event::Waiting(reason)) if state.has_store() => Some(Self::Waiting(reason)),
            (Self::Waiting(_), Event::Entered) => Some(Self::Active),
            // How its place is does not matter before it is there.
            (Self::Waiting(reason), Event::Health(_)) => Some(Self::Waiting(reason)),
            (state, Event::Health(health)) if state.has_store() => Some(match health {
                Health::Fine => Self::Active,
                Health::Throttled(reason) => Self::Throttled(reason),
                Health::Frozen(reason) => Self::Frozen(reason),
                Health::Degraded(reason) => Self::Degraded(reason),
            }),
            (state, _) => Some(state),
        }
    }

    /// Whether a store serves, or would if its place let it.
    pub(crate) fn has_store(&self) -> bool {
        matches!(
            self,
            Self::Active | Self::Throttled(_) | Self::Frozen(_) | Self::Degraded(_) | Self::Waiting(_)
        )
    }

    /// The state's name on the bus.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Activating => "activating",
            Self::Active => "active",
            Self::Throttled(_) => "throttled",
            Self::Frozen(_) => "frozen",
            Self::Degraded(_) => "degraded",
            Self::Waiting(_) => "waiting",
            Self::Failed(_) => "failed",
            Self::Deactivating => "deactivating",
        }
    }

    /// Why the mount has failed, or does not work as it should; empty otherwise.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Failed(reason)
            | Self::Throttled(reason)
            | Self::Frozen(reason)
            | Self::Degraded(reason)
            | Self::Waiting(reason) => reason,
            Self::Activating | Self::Active | Self::Deactivating => "",
        }
    }
}

/// Where a mount's configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Source {
    /// The mount's file; empty for a mount made at run time.
    pub(crate) fragment: String,
    /// Its drop-ins.
    pub(crate) drop_ins: Vec<String>,
}

/// Where a mount and its store are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The mount point, symlinks resolved.
    pub(crate) mounted_on: String,
    /// The target's cgroup id.
    pub(crate) target_id: u64,
    /// The store's cgroup.
    pub(crate) leaf: String,
    /// What of the files is charged elsewhere.
    pub(crate) previous: Previous,
    /// The cap in bytes, where it is a share of the target's limit.
    pub(crate) cap: Option<Bytes>,
    /// When the mount was made, in microseconds since 1970.
    pub(crate) made_usec: u64,
    /// The store's process.
    pub(crate) store_pid: Option<u32>,
}

/// All that the daemon knows of a mount, without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountView {
    /// What was decided about it.
    pub(crate) policy: Arc<MountPolicy>,
    /// The same without what was changed at run time.
    pub(crate) base: Arc<MountPolicy>,
    /// Where that comes from.
    pub(crate) source: Source,
    /// How it is.
    pub(crate) state: State,
    /// Where it is; `None`: nowhere.
    pub(crate) placement: Option<Placement>,
    /// The user who has made it and may change it; 0: root.
    pub(crate) owner: u32,
}

impl MountView {
    /// A mount of which nothing is made yet.
    pub(crate) fn new(policy: MountPolicy, source: Source) -> Self {
        let policy = Arc::new(policy);
        Self {
            base: Arc::clone(&policy),
            policy,
            source,
            state: State::Activating,
            placement: None,
            owner: 0,
        }
    }

    /// The cap in bytes: `Ok(None)` where there is none, `Err(())` where it is a share that was not resolved.
    pub(crate) fn cap(&self) -> Result<Option<Bytes>, ()> {
        match self.policy.size {
            None => Ok(None),
            Some(SizeCap::Bytes(bytes)) => Ok(Some(bytes.page_ceil())),
            Some(SizeCap::Percent(_)) => {
                self.placement.as_ref().and_then(|placement| placement.cap).map(Some).ok_or(())
            }
        }
    }

    /// Where the mount is: resolved if it is there, as configured otherwise.
    pub(crate) fn place(&self) -> &str {
        self.placement.as_ref().map_or(&self.policy.place, |placement| &placement.mounted_on)
    }
}

/// The keys in which two policies of one mount differ and that cannot change while it is there.
pub(crate) fn fixed_keys(old: &MountPolicy, new: &MountPolicy) -> Vec<&'static str> {
    let new = new.patched(PolicyPatch::between(new, old));
    changed_keys(old, &new)
}

/// The keys in which two policies of one mount differ, as they are written in its file.
pub(crate) fn changed_keys(old: &MountPolicy, new: &MountPolicy) -> Vec<&'static str> {
    let differs = [
        ("where", old.place != new.place),
        ("target", old.target != new.target),
        ("options", old.options != new.options),
        ("size", old.size != new.size),
        ("inodes", old.inodes != new.inodes),
        ("mode", old.mode != new.mode),
        ("uid", old.uid != new.uid),
        ("gid", old.gid != new.gid),
        ("on-full", old.on_full != new.on_full),
        ("reserve", old.reserve != new.reserve),
        ("reclaim", old.reclaim != new.reclaim),
        ("sparse", old.sparse != new.sparse),
        ("deadline", old.deadline != new.deadline),
        ("victim", old.kill.victim != new.kill.victim),
        ("scope", old.kill.scope != new.kill.scope),
        ("protect", old.kill.protect != new.kill.protect),
        ("cooldown", old.kill.cooldown != new.kill.cooldown),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// The daemon's status in a few words: "2 mounts active, 1 failed".
pub(crate) fn summarize<'a>(states: impl IntoIterator<Item = &'a State>) -> String {
    let (mut active, mut waiting, mut failed, mut other) = (0usize, 0usize, 0usize, 0usize);
    for state in states {
        match state {
            State::Waiting(_) => waiting += 1,
            state if state.has_store() => active += 1,
            State::Failed(_) => failed += 1,
            _ => other += 1,
        }
    }
    if active + waiting + failed + other == 0 {
        return "no mounts configured".to_owned();
    }
    let mounts = if active == 1 { "mount" } else { "mounts" };
    let mut text = format!("{active} {mounts} active");
    for (count, word) in [(waiting, "waiting"), (failed, "failed"), (other, "changing")] {
        if count > 0 {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use memcharge_policy::Target;

    use super::*;

    #[test]
    fn states_follow_each_other() {
        let failed = || State::Failed("why".into());
        let not = |keep| Event::NotAttached { reason: "why".into(), keep };
        for (state, event, next) in [
            (State::Activating, Event::Attached, Some(State::Active)),
            (State::Activating, not(true), Some(failed())),
            (State::Activating, not(false), None),
            (State::Active, Event::Ending, Some(State::Deactivating)),
            (State::Active, Event::StoreLost("why".into()), Some(failed())),
            (State::Active, Event::Ended, None),
            (State::Active, Event::Health(Health::Frozen("why".into())), Some(State::Frozen("why".into()))),
            (State::Frozen("x".into()), Event::Health(Health::Fine), Some(State::Active)),
            (State::Degraded("x".into()), Event::StoreLost("why".into()), Some(failed())),
            (State::Throttled("x".into()), Event::Ending, Some(State::Deactivating)),
            (State::Deactivating, Event::Health(Health::Fine), Some(State::Deactivating)),
            (State::Active, not(false), Some(State::Active)),
            (failed(), Event::Ending, Some(State::Deactivating)),
            (failed(), Event::Attached, Some(failed())),
            (failed(), Event::Recovered, Some(State::Active)),
            (State::Active, Event::Waiting("w".into()), Some(State::Waiting("w".into()))),
            (State::Waiting("w".into()), Event::Health(Health::Fine), Some(State::Waiting("w".into()))),
            (State::Waiting("w".into()), Event::Entered, Some(State::Active)),
            (State::Waiting("w".into()), Event::StoreLost("why".into()), Some(failed())),
            (State::Waiting("w".into()), Event::Ending, Some(State::Deactivating)),
            (State::Active, Event::Entered, Some(State::Active)),
            (State::Deactivating, Event::Recovered, Some(State::Deactivating)),
            (State::Deactivating, Event::NotEnded("why".into()), Some(failed())),
            (State::Deactivating, Event::StoreLost("x".into()), Some(State::Deactivating)),
            (State::Deactivating, Event::Ended, None),
        ] {
            assert_eq!(state.clone().after(event.clone()), next, "{state:?} {event:?}");
        }
    }

    fn policy() -> MountPolicy {
        MountPolicy::new("m".parse().unwrap(), "/run/m".into(), Target::Slice("m.slice".into()))
    }

    #[test]
    fn changed_keys_are_named() {
        assert!(changed_keys(&policy(), &policy()).is_empty());
        let other = MountPolicy { place: "/x".into(), mode: 0o700, reclaim: false, ..policy() };
        assert_eq!(changed_keys(&policy(), &other), ["where", "mode", "reclaim"]);
        assert_eq!(fixed_keys(&policy(), &other), ["where", "mode"]);
    }

    #[test]
    fn a_share_is_no_number_until_it_is_resolved() {
        let mut view = MountView::new(policy(), Source::default());
        assert_eq!(view.cap(), Ok(None));
        let share = MountPolicy { size: Some(SizeCap::Percent(50)), ..policy() };
        view.policy = Arc::new(share);
        assert_eq!(view.cap(), Err(()));
    }

    #[test]
    fn the_status_is_short() {
        let failed = State::Failed(String::new());
        for (states, text) in [
            (vec![], "no mounts configured"),
            (vec![State::Active], "1 mount active"),
            (vec![State::Active, State::Active, failed.clone()], "2 mounts active, 1 failed"),
            (vec![State::Waiting(String::new())], "0 mounts active, 1 waiting"),
            (vec![failed, State::Activating], "0 mounts active, 1 failed, 1 changing"),
        ] {
            assert_eq!(summarize(&states), text);
        }
    }
}
