//! The mounts' objects come, change and go.

use std::{borrow::Cow, collections::HashMap};

use memcharge_dbus::{MOUNT_INTERFACE, NO_LIMIT, ROOT_PATH, mount_path};
use memcharge_policy::MountName;
use zbus::{
    Connection, fdo::Properties, names::InterfaceName, object_server::SignalEmitter, zvariant::Value,
};

use super::{manager::ManagerSignals, mount::MountObject};
use crate::mounts::{MountHandle, MountView};

/// Where the objects are. What the bus refuses is logged: a mount works without it.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    connection: Connection,
}

impl Publisher {
    /// Publishes on this connection.
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Adds the object of a mount.
    pub(crate) fn add(&self, mount: &MountHandle) -> impl Future<Output = ()> + Send + use<> {
        let (connection, mount) = (self.connection.clone(), mount.clone());
        async move {
            let (path, object) = (mount_path(mount.name()), MountObject::new(mount.clone()));
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
            let said = async {
                let emitter = SignalEmitter::new(&connection, mount_path(&name).into_inner())?;
                let interface = InterfaceName::from_static_str_unchecked(MOUNT_INTERFACE);
                Properties::properties_changed(&emitter, interface, changed, Cow::Borrowed(&[])).await
            };
            report(&name, said.await);
        }
    }
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
    }
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
