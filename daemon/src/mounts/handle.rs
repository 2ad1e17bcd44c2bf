//! What others hold of a mount: its view, and a way to ask its actor.

use memcharge_policy::{MountName, MountPolicy, PolicyPatch, link::StoreStatus};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    retarget::Wanted,
    state::{MountView, Source, State},
};
use crate::{
    error::{DaemonError, Result},
    store_link::ANSWER_LIMIT,
};

/// A question to the actor of a mount.
#[derive(Debug)]
pub(super) enum Ask {
    /// How is the store?
    Status(oneshot::Sender<Result<StoreStatus>>),
    /// Change the policy; `None`: back to what the configuration says. The answer is the new generation.
    SetPolicy(Option<Box<PolicyPatch>>, oneshot::Sender<Result<u64>>),
    /// Give the mount another target.
    Retarget(Box<Wanted>, oneshot::Sender<Result<()>>),
    /// Mount the data of a mount again whose store was given up.
    Recover(oneshot::Sender<Result<()>>),
    /// The configuration says something else now.
    Follow(Box<MountPolicy>, Source, oneshot::Sender<Result<()>>),
    /// End the mount.
    Unmount {
        /// Even if somebody uses it.
        lazy: bool,
        /// When it is gone.
        reply: oneshot::Sender<Result<()>>,
    },
}

/// A mount, as everybody but its actor knows it.
#[derive(Debug, Clone)]
pub(crate) struct MountHandle {
    pub(super) name: MountName,
    pub(super) view: watch::Receiver<MountView>,
    pub(super) asks: mpsc::Sender<Ask>,
}

impl MountHandle {
    /// A mount without an actor.
    #[cfg(test)]
    pub(crate) fn detached(view: MountView) -> Self {
        let (name, view) = (view.policy.name.clone(), watch::channel(view).1);
        Self { name, view, asks: mpsc::channel(1).0 }
    }

    /// The mount's name.
    pub(crate) fn name(&self) -> &MountName {
        &self.name
    }

    /// What is known of the mount now.
    pub(crate) fn view(&self) -> MountView {
        self.view.borrow().clone()
    }

    /// Asks the mount's store for its figures.
    pub(crate) async fn status(&self) -> Result<StoreStatus> {
        let state = self.view.borrow().state.clone();
        // One that is frozen has a store that cannot answer.
        if !state.has_store() || matches!(state, State::Frozen(_)) {
            return Err(DaemonError::NotActive { name: self.name.to_string(), state: state.word() });
        }
        let (reply, answer) = oneshot::channel();
        let late =
            |_| DaemonError::Late { what: format!("an answer about {}", self.name), limit: ANSWER_LIMIT };
        timeout(ANSWER_LIMIT, self.ask(Ask::Status(reply), answer)).await.map_err(late)?
    }

    /// Changes the policy; returns its new generation when the store has it.
    pub(crate) async fn set_policy(&self, patch: PolicyPatch) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::SetPolicy(Some(Box::new(patch)), reply), answer).await
    }

    /// Goes back to the policy that the mount was made with; returns when the store has it.
    pub(crate) async fn revert_policy(&self) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::SetPolicy(None, reply), answer).await
    }

    /// Gives the mount another target; returns when its store is there.
    pub(crate) async fn retarget(&self, wanted: Wanted) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Retarget(Box::new(wanted), reply), answer).await
    }

    /// Mounts the data of a mount again that has failed; returns when it is usable.
    pub(crate) async fn recover(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Recover(reply), answer).await
    }

    /// Follows what the configuration says now, in all that can change while the mount is there; returns when the store
    /// has it. What was changed at run time stays.
    pub(crate) async fn follow(&self, policy: MountPolicy, source: Source) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Follow(Box::new(policy), source, reply), answer).await
    }

    /// Ends the mount; returns when nothing of it is left.
    pub(crate) async fn unmount(&self, lazy: bool) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Unmount { lazy, reply }, answer).await
    }

    async fn ask<T>(&self, ask: Ask, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        let gone = || DaemonError::NoSuchMount { name: self.name.to_string() };
        self.asks.send(ask).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
