//! One request of a client from the first look to the answer: who asks, what was in the way, what was tried.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::{Duration, Instant},
};

use memcharge_policy::{
    Bytes,
    outcome::{LimitName, Operation, Outcome, Reason},
    sample::LimitFile,
};

use crate::keep::Run;

/// What stands in the way of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// Which limit.
    pub(crate) limit: LimitName,
    /// The cgroup whose limit it is; `None` for the mount's own and the machine.
    pub(crate) path: Option<Arc<str>>,
}

impl Obstacle {
    /// A limit that no cgroup has.
    pub(crate) fn of(limit: LimitName) -> Self {
        Self { limit, path: None }
    }

    /// A limit of the cgroup at `path`.
    pub(crate) fn at(path: &Arc<str>, file: LimitFile) -> Self {
        let limit = match file {
            LimitFile::Max => LimitName::Max,
            LimitFile::High => LimitName::High,
        };
        Self { limit, path: Some(Arc::clone(path)) }
    }
}

/// The request. It stays in the thread that answers it.
#[derive(Debug)]
pub(crate) struct Case {
    /// The client's thread.
    pub(crate) tid: u32,
    /// Its user.
    pub(crate) uid: u32,
    /// What it does.
    pub(crate) operation: Operation,
    /// When something was first in the way.
    started: Cell<Option<Instant>>,
    /// What is in the way now.
    obstacle: RefCell<Option<Obstacle>>,
    /// What was asked for then.
    pub(crate) asked: Cell<Bytes>,
    /// What was missing at first.
    pub(crate) missing: Cell<Bytes>,
    /// What reclaim was asked to free, and did.
    pub(crate) reclaimed: Cell<Bytes>,
    /// Why it ends as it does.
    pub(crate) reason: Cell<Reason>,
    /// The event that memcharged was asked under.
    pub(crate) sequence: Cell<Option<u64>>,
    /// What memcharged has answered: one request asks once.
    pub(crate) answered: Cell<Option<Reason>>,
    /// Whether everything was tried for it.
    pub(crate) tried: Cell<bool>,
    /// Whether it was answered at once, since one like it had been refused a moment before.
    pub(crate) quick: Cell<bool>,
    /// What an arbitration has led to.
    pub(crate) granted: Cell<Option<Outcome>>,
    /// What its permits hold.
    pub(crate) held: Cell<Bytes>,
    /// What of it was done already, by a store that was killed, and what is to be remembered of it.
    pub(crate) run: Run,
}

impl Case {
    /// A request that has just come.
    pub(crate) fn new(tid: u32, uid: u32, operation: Operation) -> Self {
        Self {
            tid,
            uid,
            operation,
            started: Cell::new(None),
            obstacle: RefCell::new(None),
            asked: Cell::new(Bytes(0)),
            missing: Cell::new(Bytes(0)),
            reclaimed: Cell::new(Bytes(0)),
            reason: Cell::new(Reason::Policy),
            sequence: Cell::new(None),
            answered: Cell::new(None),
            tried: Cell::new(false),
            quick: Cell::new(false),
            granted: Cell::new(None),
            held: Cell::new(Bytes(0)),
            run: Run::unremembered(),
        }
    }

    /// The same request, with what is remembered of it.
    pub(crate) fn remembered(self, run: Run) -> Self {
        Self { run, ..self }
    }

    /// Something is in the way of `asked` bytes, `missing` of which are not there.
    pub(crate) fn obstruct(&self, obstacle: Obstacle, asked: Bytes, missing: Bytes) {
        if self.started.get().is_none() {
            self.started.set(Some(Instant::now()));
            self.missing.set(missing);
        }
        self.asked.set(asked);
        self.reason.set(match (obstacle.limit, self.operation) {
            (LimitName::Size | LimitName::Inodes, _) => Reason::Cap,
            (LimitName::Machine, _) => Reason::Machine,
            (LimitName::Unreadable, _) => Reason::TargetLost,
            (_, Operation::Make | Operation::Change | Operation::Look) => Reason::Metadata,
            (LimitName::Max | LimitName::High, _) => Reason::Policy,
        });
        self.obstacle.replace(Some(obstacle));
    }

    /// What is in the way now.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle.borrow().clone()
    }

    /// How long it has taken since something was in the way.
    pub(crate) fn duration(&self) -> Duration {
        self.started.get().map(|start| start.elapsed()).unwrap_or_default()
    }

    /// Until when it may wait: the mount's deadline, from the first obstacle on, however often it waits.
    pub(crate) fn until(&self, deadline: Duration) -> Instant {
        let start = self.started.get().unwrap_or_else(Instant::now);
        start.checked_add(deadline).unwrap_or(start)
    }
}
