//! The connection to memcharged.

use std::collections::HashMap;

use memcharge_dbus::{BUS_NAME, ManagerProxy, MountRow};
use memcharge_policy::MountName;
use zbus::{
    Connection,
    proxy::CacheProperties,
    zvariant::{DynamicType, ObjectPath, OwnedObjectPath, OwnedValue, Type},
};

use crate::{activation, error::ClientError};

const PROPERTIES_INTERFACE: &str = "org.freedesktop.DBus.Properties";

/// A connection to the system bus, with the manager of memcharged at hand.
pub(crate) struct Bus {
    /// The connection itself.
    pub(crate) connection: Connection,
    /// The manager; it remembers no properties.
    pub(crate) manager: ManagerProxy<'static>,
}

impl Bus {
    /// Connects to the system bus, or to the one in `DBUS_SYSTEM_BUS_ADDRESS`, and has memcharged started where it may be.
    pub(crate) async fn connect() -> Result<Self, ClientError> {
        let bus = Self::connect_as_it_is().await?;
        activation::ensure(&bus.connection).await?;
        Ok(bus)
    }

    /// Connects to the bus, and starts nobody.
    pub(crate) async fn connect_as_it_is() -> Result<Self, ClientError> {
        let connection = Connection::system().await.map_err(|e| ClientError::NoBus(e.to_string()))?;
        let manager =
            ManagerProxy::builder(&connection).cache_properties(CacheProperties::No).build().await?;
        Ok(Self { connection, manager })
    }

    /// All mounts, ordered by name.
    pub(crate) async fn mounts(&self) -> Result<Vec<MountRow>, ClientError> {
        Ok(self.manager.list_mounts().await?.into_iter().map(MountRow::from).collect())
    }

    /// The object of a mount.
    pub(crate) async fn find(&self, name: &MountName) -> Result<OwnedObjectPath, ClientError> {
        Ok(self.manager.get_mount(name.as_str()).await?)
    }

    /// One property.
    pub(crate) async fn property(
        &self,
        object: &ObjectPath<'_>,
        interface: &str,
        name: &str,
    ) -> zbus::Result<OwnedValue> {
        self.ask(object, "Get", &(interface, name)).await
    }

    /// The properties that the daemon gives in one answer; one that fails may be left out, or fail the whole.
    pub(crate) async fn all_properties(
        &self,
        object: &ObjectPath<'_>,
        interface: &str,
    ) -> zbus::Result<HashMap<String, OwnedValue>> {
        self.ask(object, "GetAll", &(interface,)).await
    }

    async fn ask<B, R>(&self, object: &ObjectPath<'_>, method: &str, body: &B) -> zbus::Result<R>
    where
        B: serde::Serialize + DynamicType,
        R: serde::de::DeserializeOwned + Type,
    {
        let reply = self
            .connection
            .call_method(Some(BUS_NAME), object, Some(PROPERTIES_INTERFACE), method, body)
            .await?;
        reply.body().deserialize()
    }
}
