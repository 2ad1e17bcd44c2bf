//! Proxy of `org.memcharge.Memcharge1.Target`: generated from `xml/org.memcharge.Memcharge1.Target.xml` by `cargo xtask codegen`, not to be edited.

use zbus::proxy;

/// The properties of `org.memcharge.Memcharge1.Target`, in the order of the contract.
pub const PROPERTIES: [&str; 7] =
    ["Path", "Id", "MemoryCurrent", "MemoryMax", "Headroom", "Events", "Mounts"];

/// Calls `org.memcharge.Memcharge1.Target`.
#[proxy(
    interface = "org.memcharge.Memcharge1.Target",
    default_service = "org.memcharge.Memcharge1",
    assume_defaults = true
)]
pub trait Target {
    /// MemoryEvent signal
    ///
    /// Counters of memory.events have grown by so much.
    #[zbus(signal)]
    fn memory_event(&self, deltas: std::collections::HashMap<&str, u64>) -> zbus::Result<()>;

    /// Events property
    ///
    /// The counters of memory.events by the kernel's names: low, high, max, oom, oom_kill, ...
    #[zbus(property(emits_changed_signal = "false"))]
    fn events(&self) -> zbus::Result<std::collections::HashMap<String, u64>>;

    /// Headroom property
    ///
    /// What could still be charged before the tightest of memory.max and memory.high of it and of its ancestors is hit. A mount's reserve is not taken off.
    #[zbus(property(emits_changed_signal = "false"))]
    fn headroom(&self) -> zbus::Result<u64>;

    /// Id property
    ///
    /// The cgroup id: the inode number of its directory.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::Result<u64>;

    /// MemoryCurrent property
    ///
    /// What it is charged: memory.current.
    #[zbus(property(emits_changed_signal = "false"))]
    fn memory_current(&self) -> zbus::Result<u64>;

    /// MemoryMax property
    ///
    /// Its own limit: memory.max.
    #[zbus(property(emits_changed_signal = "false"))]
    fn memory_max(&self) -> zbus::Result<u64>;

    /// Mounts property
    ///
    /// The mounts that have this target.
    #[zbus(property(emits_changed_signal = "false"))]
    fn mounts(&self) -> zbus::Result<Vec<zbus::zvariant::OwnedObjectPath>>;

    /// Path property
    ///
    /// The cgroup below the cgroup root, as in "/models.slice".
    #[zbus(property(emits_changed_signal = "const"))]
    fn path(&self) -> zbus::Result<String>;
}
