//! Who may change something: root, the user who has made a mount, and whomever polkit allows it.

mod delegated;
mod polkit;

use memcharge_cgroup::User;
use zbus::{
    Connection,
    fdo::{self, DBusProxy},
    message::{Flags, Header},
    names::{BusName, UniqueName},
};

pub(super) use delegated::{Claim, claim, root_only};

/// What a caller wants to do, as polkit knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Make a mount, or mount its data again.
    Mount,
    /// End a mount.
    Unmount,
    /// Change a policy.
    SetPolicy,
    /// Have another cgroup pay.
    Retarget,
    /// Put the configuration in force.
    Reload,
}

impl Action {
    /// The action's name.
    fn id(self) -> &'static str {
        match self {
            Self::Mount => "org.memcharge.Memcharge1.mount",
            Self::Unmount => "org.memcharge.Memcharge1.unmount",
            Self::SetPolicy => "org.memcharge.Memcharge1.set-policy",
            Self::Retarget => "org.memcharge.Memcharge1.retarget",
            Self::Reload => "org.memcharge.Memcharge1.reload",
        }
    }
}

/// Who calls.
#[derive(Debug)]
pub(super) struct Caller {
    /// The name on the bus: it cannot be taken over by somebody else, as a process number can.
    name: UniqueName<'static>,
    /// Whether the user may be asked for a password.
    interactive: bool,
    /// The user.
    pub(super) user: User,
    /// The process, if the bus knows it.
    pub(super) pid: Option<u32>,
}

/// Finds out who calls. Nothing in the call itself is believed.
pub(super) async fn identify(connection: &Connection, call: &Header<'_>) -> fdo::Result<Caller> {
    let unknown = |what: &str| fdo::Error::AccessDenied(format!("the bus does not know {what}"));
    let name = call.sender().ok_or_else(|| unknown("the caller"))?.to_owned();
    let bus = DBusProxy::new(connection).await?;
    let known = bus.get_connection_credentials(BusName::from(name.clone())).await?;
    let uid = known.unix_user_id().ok_or_else(|| unknown("the caller's user"))?;
    let groups = known.unix_group_ids().cloned().unwrap_or_default();
    let interactive = call.primary().flags().contains(Flags::AllowInteractiveAuth);
    Ok(Caller { name, interactive, user: User { uid, groups }, pid: known.process_id() })
}

impl Caller {
    /// Whether this is root, whom nobody has to ask.
    pub(super) fn is_root(&self) -> bool {
        self.user.uid == 0
    }

    /// Asks polkit. `mount`: whom it is about, for the dialogue.
    pub(super) async fn ask(
        &self,
        connection: &Connection,
        action: Action,
        mount: Option<&str>,
    ) -> fdo::Result<()> {
        if self.is_root() { Ok(()) } else { polkit::check(connection, self, action.id(), mount).await }
    }
}

/// Refuses callers who may not do this to the mount of this `owner` (0: it was made by root, or with its consent).
pub(super) async fn require(
    connection: &Connection,
    call: &Header<'_>,
    action: Action,
    mount: Option<(&str, u32)>,
) -> fdo::Result<()> {
    let caller = identify(connection, call).await?;
    if mount.is_some_and(|(_, owner)| owner == caller.user.uid) {
        return Ok(());
    }
    caller.ask(connection, action, mount.map(|(name, _)| name)).await
}
