//! The mounts' objects come, change and go.

use std::{borrow::Cow, collections::HashMap};

use memcharge_dbus::{
    MANAGER_INTERFACE, MOUNT_INTERFACE, NO_LIMIT, ROOT_PATH, event_details, mount_path, target_path,
};
use memcharge_policy::{MountName, events::Counters, outcome::Event};
use tokio::sync::watch;
use zbus::{
    Connection, fdo::Properties, names::InterfaceName, object_server::SignalEmitter, zvariant::Value,
};

use super::{manager::ManagerSignals, mount::MountObject, target::TargetObject};
use crate::{
    history::HistoryHandle,
    mounts::{MountHandle, MountView},
    targets::TargetView,
};

/// Where the objects are. What the bus refuses is logged: a mount works without it.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    connection: Connection,
    history: HistoryHandle,
}

impl Publisher {
    /// Publishes on this connection.
    pub(crate) fn new(connection: Connection, history: HistoryHandle) -> Self {
        Self { connection, history }
    }

    /// Adds the object of a mount.
    pub(crate) fn add(&self, mount: &MountHandle) -> impl Future<Output = ()> + Send + use<> {
        let (connection, mount, history) = (self.connection.clone(), mount.clone(), self.history.clone());
        async move {
            let (path, object) = (mount_path(mount.name()), MountObject::new(mount.clone(), history));
            let added = connection.object_server().at(path, object).await;
            report(mount.name(), added);
        }
    }

    /// Says that a mount is there now.
    pub(crate) fn announce_new(&self, name: &MountName) -> impl Future<Output = ()> + Send + use<> {
        let (connection, name) = (self.connection.clone(), name.clone());
        async move {
            let path = mount_path(&name).into_inner();
            let said = async { root(&connection)?.mount_new(name.as_str(), path).await };
            report(&name, said.await);
        }
    }

    /// Removes the object of a mount, and says so if the mount was announced.
    pub(crate) fn remove(
        &self,
        name: &MountName,
        announced: bool,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (connection, name) = (self.connection.clone(), name.clone());
        async move {
            let removed = connection.object_server().remove::<MountObject, _>(mount_path(&name)).await;
            report(&name, removed);
            if announced {
                let path = mount_path(&name).into_inner();
                let said = async { root(&connection)?.mount_removed(name.as_str(), path).await };
                report(&name, said.await);
            }
        }
    }

    /// Says how an arbitration has ended.
    pub(crate) async fn outcome(&self, event: &Event) {
        let Ok(name) = event.mount.parse::<MountName>() else { return };
        let (outcome, path) = (event.outcome.as_str(), mount_path(&name).into_inner());
        let said = async {
            let mount = SignalEmitter::new(&self.connection, path.clone())?;
            MountObject::outcome(&mount, outcome, event_details(event)).await?;
            root(&self.connection)?.remote_oom(path, outcome, event_details(event)).await
        };
        report(&name, said.await);
        self.last_outcome(event).await;
    }

    /// Says that this is the last outcome of its mount, as it is now.
    pub(crate) async fn last_outcome(&self, event: &Event) {
        let Ok(name) = event.mount.parse::<MountName>() else { return };
        let details: HashMap<_, _> = event_details(event).into_iter().collect();
        let changed = HashMap::from([("LastOutcome", Value::from(details))]);
        report(&name, say_changed(&self.connection, &name, changed).await);
    }

    /// Says that another configuration is in force.
    pub(crate) async fn generation(&self, generation: u64) {
        let changed = HashMap::from([("ConfigGeneration", Value::from(generation))]);
        let said = async {
            let emitter = root(&self.connection)?;
            let interface = InterfaceName::from_static_str_unchecked(MANAGER_INTERFACE);
            Properties::properties_changed(&emitter, interface, changed, Cow::Borrowed(&[])).await
        };
        if let Err(error) = said.await {
            tracing::warn!("the bus cannot be told of the configuration: {error}");
        }
    }

    /// Adds the object of a target.
    pub(crate) async fn add_target(&self, id: u64, path: &str, view: watch::Receiver<TargetView>) {
        let object = TargetObject::new(id, path.to_owned(), view);
        let added = self.connection.object_server().at(target_path(id), object).await;
        report_target(path, added);
    }

    /// Removes the object of a target.
    pub(crate) async fn remove_target(&self, id: u64, path: &str) {
        let removed = self.connection.object_server().remove::<TargetObject, _>(target_path(id)).await;
        report_target(path, removed);
    }

    /// Says what has happened in a target.
    pub(crate) async fn memory_event(&self, id: u64, path: &str, deltas: &Counters) {
        let deltas = deltas.0.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let said = async {
            let target = SignalEmitter::new(&self.connection, target_path(id).into_inner())?;
            TargetObject::memory_event(&target, deltas).await
        };
        report_target(path, said.await);
    }

    /// Says which properties of a mount have other values than before.
    pub(crate) fn changed(
        &self,
        name: &MountName,
        before: &MountView,
        after: &MountView,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (connection, name, changed) =
            (self.connection.clone(), name.clone(), changed_properties(before, after));
        async move {
            if changed.is_empty() {
                return;
            }
            report(&name, say_changed(&connection, &name, changed).await);
        }
    }
}

/// Says that properties of a mount have other values.
async fn say_changed(
    connection: &Connection,
    name: &MountName,
    changed: HashMap<&str, Value<'_>>,
) -> zbus::Result<()> {
    let emitter = SignalEmitter::new(connection, mount_path(name).into_inner())?;
    let interface = InterfaceName::from_static_str_unchecked(MOUNT_INTERFACE);
    Properties::properties_changed(&emitter, interface, changed, Cow::Borrowed(&[])).await
}

fn root(connection: &Connection) -> zbus::Result<SignalEmitter<'static>> {
    SignalEmitter::new(connection, ROOT_PATH).map(SignalEmitter::into_owned)
}

fn changed_properties(before: &MountView, after: &MountView) -> HashMap<&'static str, Value<'static>> {
    let (old, new) = (properties(before), properties(after));
    new.into_iter().filter(|(key, value)| old.get(key) != Some(value)).collect()
}

/// The properties that change by themselves. One without a value is left out.
fn properties(view: &MountView) -> HashMap<&'static str, Value<'static>> {
    let placement = view.placement.as_ref();
    let mut properties = HashMap::from([
        ("State", Value::from(view.state.word())),
        ("StateReason", view.state.reason().to_owned().into()),
        ("StorePid", placement.and_then(|placement| placement.store_pid).unwrap_or(0).into()),
    ]);
    if let Some(placement) = placement {
        properties.insert("TargetId", placement.target_id.into());
        properties.insert("PreviousTargets", placement.previous.targets.clone().into());
    }
    let policy = &view.policy;
    let usec = |span: std::time::Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    properties.extend([
        ("Target", Value::from(policy.target.to_string())),
        ("OnFull", policy.on_full.as_str().into()),
        ("Reserve", policy.reserve.map_or(NO_LIMIT, |bytes| bytes.0).into()),
        ("InodesMax", policy.inodes.unwrap_or(NO_LIMIT).into()),
        ("Reclaim", policy.reclaim.into()),
        ("DeadlineUSec", usec(policy.deadline).into()),
        ("KillVictim", policy.kill.victim.as_str().into()),
        ("KillScope", policy.kill.scope.as_str().into()),
        ("KillProtect", policy.kill.protect.clone().into()),
        ("KillCooldownUSec", usec(policy.kill.cooldown).into()),
    ]);
    properties.extend([
        ("FragmentPath", Value::from(view.source.fragment.clone())),
        ("DropInPaths", view.source.drop_ins.clone().into()),
    ]);
    if let Ok(cap) = view.cap() {
        properties.insert("SizeMax", cap.map_or(NO_LIMIT, |bytes| bytes.0).into());
    }
    properties
}

fn report<T>(name: &MountName, done: zbus::Result<T>) {
    if let Err(error) = done {
        tracing::warn!(mount = %name, "mount {name} cannot be shown on the bus: {error}");
    }
}

fn report_target<T>(path: &str, done: zbus::Result<T>) {
    if let Err(error) = done {
        tracing::warn!("target {path} cannot be shown on the bus: {error}");
    }
}

#[cfg(test)]
mod tests {
    use memcharge_policy::{MountPolicy, Target};

    use super::*;
    use crate::mounts::{Source, State};

    #[test]
    fn only_what_has_changed_is_said() {
        let policy = MountPolicy::new("m".parse().unwrap(), "/run/m".into(), Target::Slice("m.slice".into()));
        let before = MountView::new(policy, Source::default());
        assert!(changed_properties(&before, &before).is_empty());
        let after = MountView { state: State::Failed("why".into()), ..before.clone() };
        let changed = changed_properties(&before, &after);
        assert_eq!(changed.len(), 2);
        assert_eq!(changed["State"], Value::from("failed"));
        assert_eq!(changed["StateReason"], Value::from("why"));
    }
}
