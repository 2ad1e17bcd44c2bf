//! Proxy of `org.memcharge.Memcharge1.Manager`: generated from `xml/org.memcharge.Memcharge1.Manager.xml` by `cargo xtask codegen`, not to be edited.

use zbus::proxy;

/// The properties of `org.memcharge.Memcharge1.Manager`, in the order of the contract.
pub const PROPERTIES: [&str; 2] = ["Version", "MountCount"];

/// Calls `org.memcharge.Memcharge1.Manager`.
#[proxy(
    interface = "org.memcharge.Memcharge1.Manager",
    default_service = "org.memcharge.Memcharge1",
    default_path = "/org/memcharge/Memcharge1"
)]
pub trait Manager {
    /// CheckConfig method
    ///
    /// Reads the configuration as it is on disk now. One entry for each error: File s, Line u (0: the whole file), Message s. Empty: all is well.
    fn check_config(
        &self,
    ) -> zbus::Result<Vec<std::collections::HashMap<String, zbus::zvariant::OwnedValue>>>;

    /// GetMount method
    ///
    /// The object of the mount of this name.
    fn get_mount(&self, name: &str) -> zbus::Result<zbus::zvariant::OwnedObjectPath>;

    /// GetMountByPath method
    ///
    /// The object of the mount that holds this absolute path.
    fn get_mount_by_path(&self, path: &str) -> zbus::Result<zbus::zvariant::OwnedObjectPath>;

    /// ListMounts method
    ///
    /// Name, where, target, used bytes, object of each mount, ordered by name. Used bytes are 2^64-1 where they cannot be read; the mount's State tells why.
    fn list_mounts(
        &self,
    ) -> zbus::Result<Vec<(String, String, String, u64, zbus::zvariant::OwnedObjectPath)>>;

    /// Mount method
    ///
    /// Makes a mount; returns its object when the mount is usable. Options: Where s and Target s (both needed), the writable property names of org.memcharge.Memcharge1.Mount, Wait b (a target that is not there yet is no error), Persist b (writes the mount's file). SizeMax may also be s, a share of the target's limit as in "50%"; Uid and Gid may be names. Unknown keys and wrong types are refused (Error.InvalidOption).
    fn mount(
        &self,
        name: &str,
        options: std::collections::HashMap<&str, &zbus::zvariant::Value<'_>>,
    ) -> zbus::Result<zbus::zvariant::OwnedObjectPath>;

    /// Unmount method
    ///
    /// Ends a mount; its data are gone. Refused while processes use it (Error.Busy, which names them), unless the option Lazy b is true.
    fn unmount(
        &self,
        name: &str,
        options: std::collections::HashMap<&str, &zbus::zvariant::Value<'_>>,
    ) -> zbus::Result<()>;

    /// MountNew signal
    #[zbus(signal)]
    fn mount_new(&self, name: &str, mount: zbus::zvariant::ObjectPath<'_>) -> zbus::Result<()>;

    /// MountRemoved signal
    #[zbus(signal)]
    fn mount_removed(&self, name: &str, mount: zbus::zvariant::ObjectPath<'_>) -> zbus::Result<()>;

    /// MountCount property
    #[zbus(property(emits_changed_signal = "false"))]
    fn mount_count(&self) -> zbus::Result<u32>;

    /// Version property
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;
}
