//! Proxy of `org.memcharge.Memcharge1.Manager`: generated from `xml/org.memcharge.Memcharge1.Manager.xml` by `cargo xtask codegen`, not to be edited.

use zbus::proxy;

/// The properties of `org.memcharge.Memcharge1.Manager`, in the order of the contract.
pub const PROPERTIES: [&str; 4] = ["Version", "MountCount", "ConfigGeneration", "DryRun"];

/// Calls `org.memcharge.Memcharge1.Manager`.
#[proxy(
    interface = "org.memcharge.Memcharge1.Manager",
    default_service = "org.memcharge.Memcharge1",
    default_path = "/org/memcharge/Memcharge1"
)]
pub trait Manager {
    /// CatConfig method
    ///
    /// What the configuration on disk says of a mount, merged from all its files and the defaults, as a file of that mount would say it; a comment at each line names the file that it comes from, or says that it is the built-in default. An empty name: the main configuration. Error.NoSuchMount: no file configures this mount; Error.Failed: the configuration is wrong, with every error.
    fn cat_config(&self, name: &str) -> zbus::Result<String>;

    /// CheckConfig method
    ///
    /// Reads the configuration as it is on disk now. One entry for each error: File s, Line u (0: the whole file), Message s. Empty: all is well.
    fn check_config(
        &self,
    ) -> zbus::Result<Vec<std::collections::HashMap<String, zbus::zvariant::OwnedValue>>>;

    /// GetEvent method
    ///
    /// One recorded arbitration. The id is 32 hex digits, or so many of the first ones, at least 4, that only one event has them. Anything else is refused (Error.InvalidOption).
    fn get_event(
        &self,
        id: &str,
    ) -> zbus::Result<std::collections::HashMap<String, zbus::zvariant::OwnedValue>>;

    /// GetHistory method
    ///
    /// Recorded arbitrations, newest last, with the keys of an event (see the contract). Options: Mount s (of this mount only), Since t (RealtimeUSec, inclusive), Limit u (at most so many, the newest; 1 to 1000; default 1000). Unknown keys and wrong types are refused (Error.InvalidOption).
    fn get_history(
        &self,
        options: std::collections::HashMap<&str, &zbus::zvariant::Value<'_>>,
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
    #[zbus(allow_interactive_auth)]
    fn mount(
        &self,
        name: &str,
        options: std::collections::HashMap<&str, &zbus::zvariant::Value<'_>>,
    ) -> zbus::Result<zbus::zvariant::OwnedObjectPath>;

    /// Reload method
    ///
    /// Reads the configuration anew and puts it in force; returns when that is done. Mounts whose file is new are made, those whose file is gone are ended, policies follow their files. Error.Failed: the configuration is wrong, and nothing was changed; the message has each error with file and line. Error.Busy: mounts whose file is gone are in use, and stay; the message says by whom. Error.Failed also where something else could not be done; the rest is done all the same. Calls are done one after the other; one that comes while the daemon starts waits for that.
    #[zbus(allow_interactive_auth)]
    fn reload(&self) -> zbus::Result<()>;

    /// Unmount method
    ///
    /// Ends a mount; its data are gone. Refused while processes use it (Error.Busy, which names them), unless the option Lazy b is true.
    #[zbus(allow_interactive_auth)]
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

    /// RemoteOom signal
    ///
    /// An arbitration has ended and is recorded; details are the event.
    #[zbus(signal)]
    fn remote_oom(
        &self,
        mount: zbus::zvariant::ObjectPath<'_>,
        outcome: &str,
        details: std::collections::HashMap<&str, zbus::zvariant::Value<'_>>,
    ) -> zbus::Result<()>;

    /// ConfigGeneration property
    ///
    /// 1 when the daemon has started; one more for each reload that has changed something.
    #[zbus(property)]
    fn config_generation(&self) -> zbus::Result<u64>;

    /// DryRun property
    ///
    /// Whether the daemon only records what it would do when a target is out of memory.
    #[zbus(property(emits_changed_signal = "const"))]
    fn dry_run(&self) -> zbus::Result<bool>;

    /// MountCount property
    #[zbus(property(emits_changed_signal = "false"))]
    fn mount_count(&self) -> zbus::Result<u32>;

    /// Version property
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;
}
