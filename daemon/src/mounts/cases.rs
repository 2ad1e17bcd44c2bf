//! What a store tells, and what its target and the history answer: the part of a mount's actor that is about
//! arbitrations.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use memcharge_policy::{
    Bytes, OnFull,
    arbiter::{Ask, Moment, Rules},
    link::{Asked, Notice, RemoteOom, Report, Request, Verdict},
    outcome::{Charger, Event, EventId, Operation, Outcome, Reason},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Shared,
    actor::Actor,
    attach::limits,
    outcome::{Known, event},
    state::Event as Change,
};
use crate::{
    history::Added,
    kill::read_charger,
    placement::target::is_unit,
    store_link::ANSWER_LIMIT,
    targets::{Health, Member, Order},
};

/// Arbitrations of one mount that are under way: a store asks one at a time, and under `--dry-run` there are as many as
/// it keeps reports of.
const MAX_CASES: usize = 128;

/// Reports that wait to be recorded. A store tells no more before some are.
const RECORDS: usize = 512;

/// How long until a store that did not answer is asked again.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// Who asked is read within this time.
const FRESH: Duration = Duration::from_secs(1);

/// The condition of a mount whose store does not answer.
pub(super) fn silent() -> Health {
    Health::Degraded("the store does not answer; it is asked again every few seconds".to_owned())
}

/// Arbitrations under way.
#[derive(Debug, Default)]
pub(super) struct Cases {
    known: BTreeMap<EventId, Known>,
    /// Under `--dry-run`: reports that wait for what would have been.
    waiting: BTreeMap<EventId, Report>,
    recorder: Option<mpsc::Sender<Record>>,
}

/// What is recorded.
#[derive(Debug)]
enum Record {
    Event(Box<Event>),
    Repeats(EventId, u64),
}

impl Actor {
    /// Joins the target, and has the store tell what happens.
    pub(super) async fn join(&mut self) {
        let Some(record) = &self.assets.record else { return };
        let name = self.handle.name.clone();
        let member = Member { mount: name.clone(), leaf: record.leaf.clone(), orders: self.orders.0.clone() };
        match self.shared.targets.join(&record.target_path, record.target_id, member).await {
            Ok(target) => self.assets.target = Some(target),
            Err(error) => tracing::error!(mount = %name, "mount {name} has no arbitration: {error}"),
        }
        self.subscribe().await;
    }

    /// Leaves the target.
    pub(super) async fn part(&mut self) {
        self.leave_target().await;
        // What a lost store asked it will not report.
        self.assets.cases.known.clear();
    }

    /// Leaves the target, and goes on to hear of what was asked there.
    pub(super) async fn leave_target(&mut self) {
        if let Some(target) = self.assets.target.take() {
            self.shared.targets.leave(&target, &self.handle.name).await;
        }
    }

    /// Has the store tell all that it owes: it is about to be stopped.
    pub(super) async fn call_in(&mut self) {
        if let Some(link) = &mut self.assets.link
            && let Err(error) = link.tell_all().await
        {
            // No louder: whoever may unmount the mount of a store that hangs can make it say so as often as they like.
            let name = &self.handle.name;
            tracing::debug!(mount = %name, "mount {name}: what its store has still to tell may be lost: {error}");
        }
    }

    /// Takes what a store that was stopped has told until its end, and ends the connection. Nobody waits for an answer.
    pub(super) async fn hear_out(&mut self) {
        if let Some(mut link) = self.assets.link.take() {
            let all = async {
                while let Some(notice) = link.next().await {
                    if !matches!(notice, Notice::Oom(_)) {
                        self.notice(notice).await;
                    }
                }
            };
            drop(timeout(ANSWER_LIMIT, all).await);
        }
        // Under `--dry-run` there is nobody any more who would say what would have been.
        for report in std::mem::take(&mut self.assets.cases.waiting).into_values() {
            self.close(report);
        }
        self.assets.cases.known.clear();
    }

    /// Gives the store its limits, and listens to it.
    pub(super) async fn subscribe(&mut self) {
        let (Some(record), Some(link)) = (&self.assets.record, &mut self.assets.link) else { return };
        let limits = limits(&record.policy, record.cap, self.shared.dry_run);
        if let Err(error) = link.subscribe(limits).await {
            let name = &self.handle.name;
            tracing::warn!(mount = %name, "mount {name} does not tell what happens, and is asked again: {error}");
            self.assets.retry = Some(Instant::now() + RETRY);
        }
    }

    /// The store tells something.
    pub(super) async fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Oom(oom) => self.remote_oom(oom).await,
            Notice::Report(report) => self.reported(report).await,
            Notice::Repeats { id, repeats } => match self.assets.cases.waiting.get_mut(&id) {
                // Not recorded yet.
                Some(report) => report.repeats = report.repeats.max(repeats),
                None => self.record(Record::Repeats(id, repeats)),
            },
        }
    }

    async fn remote_oom(&mut self, oom: RemoteOom) {
        memcharge_faults::may_die("oom.heard");
        self.know(oom.id, &oom.what, None, true);
        let patience = Duration::from_micros(oom.patience_usec);
        let ask = self.ask_of(oom.id, oom.what);
        match (ask, &self.assets.target) {
            (Some(ask), Some(target)) => target.remote_oom(ask, patience, None).await,
            // Nobody can judge: the charger need not wait for that.
            _ => {
                let verdict = Verdict { id: oom.id, grant: false, reason: Reason::NoDaemon, killed: false };
                self.tell(Request::Verdict(verdict)).await;
            }
        }
    }

    /// Reads who asks while they are there, if the store has not `seen` them. Later the kernel may have given their number to
    /// somebody else.
    fn know(&mut self, id: EventId, what: &Asked, seen: Option<Charger>, fresh: bool) {
        let known = &mut self.assets.cases.known;
        if known.len() >= MAX_CASES {
            // A store has no more reports than that: the rest was lost with a connection.
            known.clear();
        }
        known.entry(id).or_insert_with(|| {
            let nobody = || Charger { uid: what.uid, ..Charger::default() };
            let charger = match seen {
                Some(charger) => Ok(charger),
                None if fresh => read_charger(what.tid, what.uid),
                None => Ok(nobody()),
            };
            let charger = charger.unwrap_or_else(|error| {
                tracing::debug!("who asked cannot be read: {error}");
                nobody()
            });
            Known { charger, ..Known::default() }
        });
    }

    fn ask_of(&self, id: EventId, asked: Asked) -> Option<Ask> {
        let policy = &self.assets.record.as_ref()?.policy;
        let rules =
            Rules { on_full: policy.on_full, kill: policy.kill.clone(), dry_run: self.shared.dry_run };
        let (mount, reserve) = (self.handle.name.clone(), policy.reserve);
        // The deadline is the target's to set, by its own clock.
        Some(Ask { id, mount, asked, deadline: Moment::ZERO, reserve, rules })
    }

    async fn reported(&mut self, report: Report) {
        let id = report.id;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let age = now.saturating_sub(Duration::from_micros(report.realtime_usec));
        self.know(id, &report.what, report.charger.clone(), age < FRESH);
        if let Some(target) = &self.assets.target {
            target.settled(id).await;
        }
        let Some(policy) = self.assets.record.as_ref().map(|record| record.policy.clone()) else { return };
        let names = matches!(report.what.operation, Operation::Make | Operation::Change | Operation::Look);
        let would = (policy.on_full == OnFull::Kill || policy.reclaim) && !names;
        if self.shared.dry_run && report.outcome.is_refusal() && would {
            let missing = policy.reclaim.then_some(report.what.missing);
            self.would_have(report, policy.deadline, missing).await;
        } else {
            self.close(report);
        }
    }

    /// Under `--dry-run`: asks the target what would have been, and records when it has said so.
    async fn would_have(&mut self, report: Report, patience: Duration, missing: Option<Bytes>) {
        let ask = self.ask_of(report.id, report.what.clone());
        match (ask, self.assets.target.clone()) {
            (Some(ask), Some(target)) if self.assets.cases.waiting.len() < MAX_CASES => {
                self.assets.cases.waiting.insert(report.id, report);
                target.remote_oom(ask, patience, missing).await;
            }
            _ => self.close(report),
        }
    }

    /// Records how it ended.
    fn close(&mut self, report: Report) {
        let known = self.assets.cases.known.remove(&report.id).unwrap_or_default();
        if let Some(record) = &self.assets.record {
            let event = event(record, report, known);
            self.record(Record::Event(Box::new(event)));
        }
    }

    fn record(&mut self, record: Record) {
        let cases = &mut self.assets.cases;
        let recorder = cases.recorder.get_or_insert_with(|| {
            let (records, inbox) = mpsc::channel(RECORDS);
            tokio::spawn(keep_records(
                Arc::clone(&self.shared),
                self.handle.name.to_string(),
                inbox,
                self.orders.0.downgrade(),
            ));
            records
        });
        if recorder.try_send(record).is_err() {
            let name = &self.handle.name;
            tracing::error!(mount = %name, "mount {name}: the history does not take what happens");
        }
    }

    /// The target or the history tells something.
    pub(super) async fn obey(&mut self, order: Order) {
        match order {
            Order::Answer { verdict, victim, would_have } => {
                if let Some(known) = self.assets.cases.known.get_mut(&verdict.id) {
                    (known.victim, known.would_have) = (victim, would_have);
                }
                match self.assets.cases.waiting.remove(&verdict.id) {
                    Some(report) => {
                        if let Some(target) = &self.assets.target {
                            // Nothing was granted to anybody.
                            target.settled(report.id).await;
                        }
                        let would =
                            self.assets.cases.known.get(&report.id).and_then(|known| known.would_have);
                        let grant = verdict.grant.then_some(Outcome::Granted);
                        if let Some(known) = self.assets.cases.known.get_mut(&report.id) {
                            known.would_have = would.or(grant);
                        }
                        self.close(report);
                    }
                    None => self.tell(Request::Verdict(verdict)).await,
                }
            }
            Order::Trim => self.tell(Request::Trim).await,
            Order::Recorded(id) => self.tell(Request::Recorded(id)).await,
            Order::Health { health, reopen } => self.take_health(health, reopen).await,
        }
    }

    async fn take_health(&mut self, mut health: Health, reopen: bool) {
        let comes_and_goes = self.assets.record.as_ref().is_some_and(|record| is_unit(&record.policy.target));
        if comes_and_goes && matches!(health, Health::Degraded(_)) {
            // A unit that stops takes the store's process along, and that tells.
            return;
        }
        self.assets.reopen |= reopen;
        self.assets.health = health.clone();
        if matches!(health, Health::Fine | Health::Throttled(_)) && !self.answers().await {
            health = silent();
        }
        if health != Health::Fine {
            // What is granted and not used would go to a place that is out of order.
            self.tell(Request::Trim).await;
        }
        self.step(Change::Health(health)).await;
    }

    /// Whether the store is there, and has the files of its target as it is now.
    async fn answers(&mut self) -> bool {
        self.assets.link.is_some() && (!self.assets.reopen || self.reopen().await)
    }

    /// Has the store open its target's files again. `false`: it has not, and is asked again later.
    async fn reopen(&mut self) -> bool {
        let Some(link) = &mut self.assets.link else { return false };
        match link.order(&Request::Reopen).await {
            Ok(()) => {
                self.assets.reopen = false;
                true
            }
            Err(error) => {
                let name = &self.handle.name;
                tracing::warn!(mount = %name, "mount {name} does not see its target: {error}");
                self.assets.retry = Some(Instant::now() + RETRY);
                false
            }
        }
    }

    /// A store that did not answer is asked again: one that is slow, or frozen, is not lost. Returns whether there is
    /// still a mount to keep.
    pub(super) async fn retry(&mut self) -> bool {
        self.assets.retry = None;
        if self.assets.link.is_some() {
            self.subscribe().await;
        } else if !self.look_again().await {
            return false;
        }
        if !self.view.borrow().state.has_store() {
            return true;
        }
        if self.assets.retry.is_none() && self.answers().await {
            let health = self.assets.health.clone();
            self.step(Change::Health(health)).await;
        } else if self.assets.link.is_none() {
            self.assets.retry = Some(Instant::now() + RETRY);
        }
        true
    }

    async fn tell(&mut self, request: Request) {
        if let Some(link) = &mut self.assets.link
            && let Err(error) = link.tell(&request).await
        {
            let name = &self.handle.name;
            tracing::warn!(mount = %name, "mount {name}: {error}");
        }
    }
}

/// Records what one mount tells, in order: in the history, in the log, on the bus. A slow disk makes nobody wait but
/// the next record.
async fn keep_records(
    shared: Arc<Shared>,
    name: String,
    mut inbox: mpsc::Receiver<Record>,
    orders: mpsc::WeakSender<Order>,
) {
    while let Some(record) = inbox.recv().await {
        match record {
            Record::Repeats(id, repeats) => {
                shared.history.repeats(id, repeats).await;
                if let Ok(Some(last)) = shared.history.last(&name).await
                    && last.id == id
                {
                    shared.publisher.last_outcome(&last).await;
                }
            }
            Record::Event(event) => {
                let id = event.id;
                match shared.history.add(*event).await {
                    Ok(Added::New(event)) => {
                        memcharge_faults::may_die("event.recorded");
                        shared.journal.event(std::time::Instant::now(), &event);
                        shared.publisher.outcome(&event).await;
                    }
                    Ok(Added::Known) => {}
                    // The daemon is exiting: the next one hears it again.
                    Err(_) => return,
                }
                if let Some(orders) = orders.upgrade() {
                    drop(orders.send(Order::Recorded(id)).await);
                }
            }
        }
    }
}
