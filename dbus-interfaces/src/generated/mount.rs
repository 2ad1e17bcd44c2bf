//! Proxy of `org.memcharge.Memcharge1.Mount`: generated from `xml/org.memcharge.Memcharge1.Mount.xml` by `cargo xtask codegen`, not to be edited.

use zbus::proxy;

/// The properties of `org.memcharge.Memcharge1.Mount`, in the order of the contract.
pub const PROPERTIES: [&str; 34] = [
    "Name",
    "Where",
    "Backend",
    "Target",
    "TargetId",
    "OnFull",
    "Sparse",
    "Reserve",
    "SizeMax",
    "InodesMax",
    "InodesUsed",
    "Mode",
    "Uid",
    "Gid",
    "Options",
    "Reclaim",
    "DeadlineUSec",
    "KillVictim",
    "KillScope",
    "KillProtect",
    "KillCooldownUSec",
    "FragmentPath",
    "DropInPaths",
    "State",
    "StateReason",
    "StorePid",
    "UsedBytes",
    "ChargedBytes",
    "PreviousTargets",
    "PreviousBytes",
    "HeadroomBytes",
    "Denials",
    "Kills",
    "LastOutcome",
];

/// Calls `org.memcharge.Memcharge1.Mount`.
#[proxy(
    interface = "org.memcharge.Memcharge1.Mount",
    default_service = "org.memcharge.Memcharge1",
    assume_defaults = true
)]
pub trait Mount {
    /// Recover method
    ///
    /// Mounts the data of a mount again whose State is failed because its store was given up; returns when the mount is usable. Files that were open stay in error. Refused (Error.Failed) where there is nothing to recover.
    #[zbus(allow_interactive_auth)]
    fn recover(&self) -> zbus::Result<()>;

    /// Retarget method
    ///
    /// Has another cgroup pay from now on, at run time, not in the file; returns when the store is there, and clients of the mount wait meanwhile. The target is given as in Mount. Options: Mode s, one of refuse (the default: Error.Busy while files hold memory), future-only (what the files hold stays charged where it is until it is freed; PreviousBytes tells how much that is) and migrate (not built yet: Error.InvalidOption); Wait b, as in Mount. On an error the mount goes on in its old target.
    fn retarget(
        &self,
        target: &str,
        options: std::collections::HashMap<&str, &zbus::zvariant::Value<'_>>,
    ) -> zbus::Result<()>;

    /// RevertPolicy method
    ///
    /// Goes back to the policy of the file, or to that of the call of Mount.
    #[zbus(allow_interactive_auth)]
    fn revert_policy(&self) -> zbus::Result<()>;

    /// SetPolicy method
    ///
    /// Changes the policy at run time, not in the file; answers when the store has it, with the number of changes so far. Options: OnFull, Reserve, Reclaim, DeadlineUSec, SizeMax, InodesMax, KillVictim, KillScope, KillProtect, KillCooldownUSec, with the types of the properties; SizeMax may also be s, as in Mount. The other options of Mount are refused, with what must be done instead (Error.InvalidOption), as is a SizeMax below what is in use (Error.TooSmall). Nothing is changed where one option is refused.
    #[zbus(allow_interactive_auth)]
    fn set_policy(
        &self,
        options: std::collections::HashMap<&str, &zbus::zvariant::Value<'_>>,
    ) -> zbus::Result<u64>;

    /// Outcome signal
    ///
    /// An arbitration of this mount has ended and is recorded; details are the event.
    #[zbus(signal)]
    fn outcome(
        &self,
        outcome: &str,
        details: std::collections::HashMap<&str, zbus::zvariant::Value<'_>>,
    ) -> zbus::Result<()>;

    /// Backend property
    ///
    /// How the mount works: always "redirect".
    #[zbus(property)]
    fn backend(&self) -> zbus::Result<String>;

    /// ChargedBytes property
    ///
    /// What the store's cgroup is charged: files, metadata and the store itself. In a slice a store that was restarted has a new cgroup; what was allocated before is in the target's figures alone.
    #[zbus(property(emits_changed_signal = "false"))]
    fn charged_bytes(&self) -> zbus::Result<u64>;

    /// DeadlineUSec property
    ///
    /// The longest time that one arbitration may take.
    #[zbus(property, name = "DeadlineUSec")]
    fn deadline_usec(&self) -> zbus::Result<u64>;

    /// Denials property
    ///
    /// Refusals since the mount was made.
    #[zbus(property(emits_changed_signal = "false"))]
    fn denials(&self) -> zbus::Result<u64>;

    /// DropInPaths property
    ///
    /// Drop-in files of the mount.
    #[zbus(property)]
    fn drop_in_paths(&self) -> zbus::Result<Vec<String>>;

    /// FragmentPath property
    ///
    /// The file that configures the mount; empty for one made at run time.
    #[zbus(property)]
    fn fragment_path(&self) -> zbus::Result<String>;

    /// Gid property
    ///
    /// Group of the root directory when it was made.
    #[zbus(property)]
    fn gid(&self) -> zbus::Result<u32>;

    /// HeadroomBytes property
    ///
    /// What a remote charger could still get now.
    #[zbus(property(emits_changed_signal = "false"))]
    fn headroom_bytes(&self) -> zbus::Result<u64>;

    /// InodesMax property
    ///
    /// The cap on inodes. 2^64-1: the default of tmpfs.
    #[zbus(property)]
    fn inodes_max(&self) -> zbus::Result<u64>;

    /// InodesUsed property
    ///
    /// Inodes in use, the root directory included.
    #[zbus(property(emits_changed_signal = "false"))]
    fn inodes_used(&self) -> zbus::Result<u64>;

    /// KillCooldownUSec property
    ///
    /// The shortest time between two kills.
    #[zbus(property, name = "KillCooldownUSec")]
    fn kill_cooldown_usec(&self) -> zbus::Result<u64>;

    /// KillProtect property
    ///
    /// Cgroups that are never killed.
    #[zbus(property)]
    fn kill_protect(&self) -> zbus::Result<Vec<String>>;

    /// KillScope property
    ///
    /// How much is killed at once.
    #[zbus(property)]
    fn kill_scope(&self) -> zbus::Result<String>;

    /// KillVictim property
    ///
    /// Which process is killed under OnFull "kill".
    #[zbus(property)]
    fn kill_victim(&self) -> zbus::Result<String>;

    /// Kills property
    ///
    /// Processes killed for this mount since it was made.
    #[zbus(property(emits_changed_signal = "false"))]
    fn kills(&self) -> zbus::Result<u64>;

    /// LastOutcome property
    ///
    /// The last recorded arbitration, with the keys of an event (see the contract of the manager); empty: none.
    #[zbus(property)]
    fn last_outcome(&self) -> zbus::Result<std::collections::HashMap<String, zbus::zvariant::OwnedValue>>;

    /// Mode property
    ///
    /// Permission bits of the root directory when it was made.
    #[zbus(property)]
    fn mode(&self) -> zbus::Result<u32>;

    /// Name property
    ///
    /// The mount's name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// OnFull property
    ///
    /// What a remote charger gets at the limit.
    #[zbus(property)]
    fn on_full(&self) -> zbus::Result<String>;

    /// Options property
    ///
    /// Mount options.
    #[zbus(property)]
    fn options(&self) -> zbus::Result<Vec<String>>;

    /// PreviousBytes property
    ///
    /// How much of UsedBytes they pay for, all of them together, at most: what was removed or written anew since can only be told from what the store's present cgroup is charged.
    #[zbus(property(emits_changed_signal = "false"))]
    fn previous_bytes(&self) -> zbus::Result<u64>;

    /// PreviousTargets property
    ///
    /// Targets that may still pay for a part of the files, since the mount was retargeted with future-only; the last one last, and no more than sixteen.
    #[zbus(property)]
    fn previous_targets(&self) -> zbus::Result<Vec<String>>;

    /// Reclaim property
    ///
    /// Whether the target's cache is reclaimed before a charge is refused.
    #[zbus(property)]
    fn reclaim(&self) -> zbus::Result<bool>;

    /// Reserve property
    ///
    /// Headroom left to the target's own tasks, in bytes. 2^64-1: the default, 16 MiB or a sixteenth of the smallest limit.
    #[zbus(property)]
    fn reserve(&self) -> zbus::Result<u64>;

    /// SizeMax property
    ///
    /// The cap on the bytes in files.
    #[zbus(property)]
    fn size_max(&self) -> zbus::Result<u64>;

    /// Sparse property
    ///
    /// What happens to holes.
    #[zbus(property)]
    fn sparse(&self) -> zbus::Result<String>;

    /// State property
    ///
    /// activating, active, throttled (the target or a cgroup above it is over its memory.high, so the kernel slows its tasks down), frozen (the target's tasks do not run, so the mount does not answer), degraded (the target cannot be read or the store is not in it, so nothing grows), waiting (the target is not there, or has no tasks; nothing grows until it has), failed or deactivating.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// StateReason property
    ///
    /// Why the mount is not simply active; empty where there is nothing to say.
    #[zbus(property)]
    fn state_reason(&self) -> zbus::Result<String>;

    /// StorePid property
    ///
    /// The process that serves the mount; 0: none.
    #[zbus(property)]
    fn store_pid(&self) -> zbus::Result<u32>;

    /// Target property
    ///
    /// Who pays, as it was configured; accepted back as input.
    #[zbus(property)]
    fn target(&self) -> zbus::Result<String>;

    /// TargetId property
    ///
    /// The target's cgroup id: the inode number of its directory.
    #[zbus(property)]
    fn target_id(&self) -> zbus::Result<u64>;

    /// Uid property
    ///
    /// Owner of the root directory when it was made.
    #[zbus(property)]
    fn uid(&self) -> zbus::Result<u32>;

    /// UsedBytes property
    ///
    /// Bytes in files.
    #[zbus(property(emits_changed_signal = "false"))]
    fn used_bytes(&self) -> zbus::Result<u64>;

    /// Where property
    ///
    /// The mount point.
    #[zbus(property(emits_changed_signal = "const"))]
    fn where_(&self) -> zbus::Result<String>;
}
