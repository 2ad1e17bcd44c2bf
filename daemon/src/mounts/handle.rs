//! What others hold of a mount: its view, and a way to ask its actor.

use memcharge_policy::{MountName, link::StoreStatus};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::state::{MountView, State};
use crate::{
    error::{DaemonError, Result},
    store_link::ANSWER_LIMIT,
};

/// A question to the actor of a mount.
#[derive(Debug)]
pub(super) enum Ask {
    /// How is the store?
    Status(oneshot::Sender<Result<StoreStatus>>),
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
        if state != State::Active {
            return Err(DaemonError::NotActive { name: self.name.to_string(), state: state.word() });
        }
        let (reply, answer) = oneshot::channel();
        let late =
            |_| DaemonError::Late { what: format!("an answer about {}", self.name), limit: ANSWER_LIMIT };
        timeout(ANSWER_LIMIT, self.ask(Ask::Status(reply), answer)).await.map_err(late)?
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
