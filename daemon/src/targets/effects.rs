//! What an arbiter asks for, done: every act on a process or a store of a target is here.

use std::{sync::Arc, time::Duration};

use memcharge_faults::may_die;
use memcharge_policy::{
    KillScope,
    arbiter::{Candidate, Effect, KillFailure},
    outcome::{EventId, Victim},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    Means, Order,
    actor::{Actor, Say},
};
use crate::kill::Killed;

/// Looking for victims takes no longer. A process that cannot be looked at in time is not one.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// A signal that is not sent by then is not sent any more.
const KILL_LIMIT: Duration = Duration::from_secs(1);

/// A kill frees nothing in less time: who waits no longer than this is refused, and nobody dies for nothing.
const LEAST_PATIENCE: Duration = Duration::from_millis(20);

impl Actor {
    /// Does one thing that the arbiter asks for.
    pub(super) async fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Answer { mount, verdict, victim, would_have, .. } => {
                self.tell(&mount, Order::Answer { verdict, victim, would_have });
            }
            Effect::LookForVictims { id } => {
                let (means, path, own) = (Arc::clone(&self.means), self.path.clone(), self.own.clone());
                tokio::spawn(async move { answer(&own, Say::Found(id, look(means, path).await)).await });
            }
            Effect::Kill { id, victim, scope } => {
                let (means, path, own) = (Arc::clone(&self.means), self.path.clone(), self.own.clone());
                let asked = self.asks.get(&id);
                let mount = asked.map(|(mount, _)| mount.to_string()).unwrap_or_default();
                // Without an ask nobody waits for what a kill would free.
                let until = asked.map_or_else(Instant::now, |(_, until)| *until);
                tokio::spawn(async move {
                    let result = kill_one(&means, (&mount, path), id, victim, scope, until).await;
                    answer(&own, Say::Killed(id, result)).await;
                });
            }
            Effect::Arm { at } => {
                let at = self.instant(at);
                self.armed = Some(self.armed.map_or(at, |armed| armed.min(at)));
            }
            Effect::Trim => {
                for mount in self.members.keys().cloned().collect::<Vec<_>>() {
                    self.tell(&mount, Order::Trim);
                }
            }
        }
    }
}

/// The actor may have ended meanwhile: then nobody waits.
async fn answer(own: &mpsc::WeakSender<Say>, say: Say) {
    if let Some(own) = own.upgrade() {
        drop(own.send(say).await);
    }
}

async fn look(means: Arc<Means>, path: String) -> Vec<Candidate> {
    let found = async {
        let target = Arc::new(means.hierarchy.open(&path)?);
        means.killer.find_candidates(&target, LOOK_LIMIT).await
    };
    found.await.unwrap_or_else(|error| {
        tracing::warn!("nobody can be killed in {path}: {error}");
        Vec::new()
    })
}

/// Writes down what is about to happen, kills, and tells. Sent is not dead: the arbiter looks at the memory.
async fn kill_one(
    means: &Arc<Means>,
    (mount, path): (&str, String),
    id: EventId,
    chosen: Candidate,
    scope: KillScope,
    until: Instant,
) -> Result<(), KillFailure> {
    // Who has got ENOSPC already must not cost anybody's life: nothing is begun late, and nothing goes on late.
    let last = until.checked_sub(LEAST_PATIENCE).unwrap_or(until);
    if Instant::now() >= last {
        return Err(KillFailure::Refused);
    }
    let victim = Victim { pid: chosen.pid, comm: chosen.comm.clone(), cgroup: chosen.cgroup.clone() };
    match timeout_at(last, means.history.intend_kill(id, victim.clone())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            // There is no intent to withdraw.
            tracing::error!("{} is not killed, since that cannot be recorded: {error}", victim.pid);
            return Err(KillFailure::Refused);
        }
        Err(_) => {
            tracing::warn!("{} is not killed, since that is not recorded in time", victim.pid);
            means.history.spared(id).await;
            return Err(KillFailure::Refused);
        }
    }
    may_die("kill.intended");
    let killed = async {
        let target = Arc::new(means.hierarchy.open(&path)?);
        let limit = KILL_LIMIT.min(last.saturating_duration_since(Instant::now()));
        means.killer.kill(&target, &chosen, scope, limit).await
    };
    let failure = match killed.await {
        Ok(Killed::Sent(_)) => {
            may_die("kill.sent");
            means.journal.kill(std::time::Instant::now(), id, mount, &path, &victim);
            return Ok(());
        }
        Ok(Killed::Spared(failure)) => {
            tracing::warn!("process {} ({}) in {path} was not killed: {failure:?}", victim.pid, victim.comm);
            failure
        }
        Err(error) => {
            tracing::warn!("process {} ({}) in {path} was not killed: {error}", victim.pid, victim.comm);
            KillFailure::Refused
        }
    };
    // Before the answer: the event that follows from it must not name a process that lives.
    means.history.spared(id).await;
    Err(failure)
}
