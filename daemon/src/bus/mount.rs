//! The object of a mount. Every figure is asked for at the moment; one that cannot be had is an error.

use std::collections::HashMap;

use memcharge_cgroup::{
    CgroupError, Hierarchy,
    parse::{parse_bytes, parse_flat_key},
};
use memcharge_config::Fragment;
use memcharge_dbus::{NO_LIMIT, event_details};
use memcharge_policy::{Bytes, link::StoreStatus};
use zbus::{
    Connection,
    fdo::Result,
    message::Header,
    object_server::SignalEmitter,
    zvariant::{OwnedValue, Value},
};

use super::{
    auth::{Action, Claim, claim, identify, require},
    convert::{CallError, property_error},
    options::{Options, RetargetOptions, read_policy, read_retarget},
};
use crate::{
    error::DaemonError,
    history::HistoryHandle,
    mounts::{MountHandle, MountView, Wanted},
    placement::target::is_unit,
};

/// What `Backend` says; there is no other yet.
const BACKEND: &str = "redirect";

/// What a store's cgroup may be charged as files beside those of the mount: its state, and what the kernel's counters lag.
const STATE_AND_LAG: Bytes = Bytes::mib(2);

/// A mount on the bus.
#[derive(Debug)]
pub(super) struct MountObject {
    mount: MountHandle,
    history: HistoryHandle,
}

impl MountObject {
    /// The object of this mount.
    pub(super) fn new(mount: MountHandle, history: HistoryHandle) -> Self {
        Self { mount, history }
    }

    fn view(&self) -> MountView {
        self.mount.view()
    }

    async fn require(&self, connection: &Connection, call: &Header<'_>, action: Action) -> Result<()> {
        let owner = self.view().owner;
        require(connection, call, action, Some((self.mount.name().as_str(), owner))).await
    }

    async fn status(&self) -> Result<StoreStatus> {
        self.mount.status().await.map_err(property_error)
    }

    /// The error for what a mount does not have in its present state.
    fn absent(&self) -> zbus::fdo::Error {
        let state = self.view().state.word();
        property_error(DaemonError::NotActive { name: self.mount.name().to_string(), state })
    }
}

/// What the store's own cgroup is charged.
fn read_charged(leaf: &str) -> Result<u64> {
    let read = || {
        let text = Hierarchy::system().open(leaf)?.read("memory.current")?;
        let malformed = || CgroupError::Malformed {
            path: format!("{leaf}/memory.current"),
            found: text.clone(),
            expected: "a number",
        };
        parse_bytes(&text).ok_or_else(malformed)
    };
    match read() {
        Ok(bytes) => Ok(bytes.0),
        Err(CgroupError::NoMemoryController { .. }) => Err(zbus::fdo::Error::Failed(format!(
            "the store's cgroup {leaf} has no memory controller of its own, since the target does not give it to its \
             children; what it is charged is part of what the target is charged"
        ))),
        Err(error) => Err(property_error(error.into())),
    }
}

/// What the store's own cgroup is charged for files, at least; `None`: it has none, or that cannot be read.
fn read_files(view: &MountView) -> Option<Bytes> {
    let placement = view.placement.as_ref().filter(|_| !is_unit(&view.policy.target))?;
    let text = Hierarchy::system().open(&placement.leaf).ok()?.read("memory.stat").ok()?;
    parse_flat_key(&text, "shmem").map(|charged| Bytes(charged).minus(STATE_AND_LAG))
}

fn usec(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[zbus::interface(name = "org.memcharge.Memcharge1.Mount", introspection_docs = false)]
impl MountObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.mount.name().to_string()
    }

    #[zbus(property(emits_changed_signal = "const"), name = "Where")]
    fn place(&self) -> String {
        self.view().policy.place.clone()
    }

    #[zbus(property)]
    fn backend(&self) -> &'static str {
        BACKEND
    }

    #[zbus(property)]
    fn target(&self) -> String {
        self.view().policy.target.to_string()
    }

    #[zbus(property)]
    fn target_id(&self) -> Result<u64> {
        self.view().placement.map(|placement| placement.target_id).ok_or_else(|| self.absent())
    }

    #[zbus(property)]
    fn on_full(&self) -> &'static str {
        self.view().policy.on_full.as_str()
    }

    #[zbus(property)]
    fn sparse(&self) -> &'static str {
        self.view().policy.sparse.as_str()
    }

    #[zbus(property)]
    fn reserve(&self) -> u64 {
        self.view().policy.reserve.map_or(NO_LIMIT, |bytes| bytes.0)
    }

    #[zbus(property)]
    fn size_max(&self) -> Result<u64> {
        let cap = self.view().cap().map_err(|()| self.absent())?;
        Ok(cap.map_or(NO_LIMIT, |bytes| bytes.0))
    }

    #[zbus(property)]
    fn inodes_max(&self) -> u64 {
        self.view().policy.inodes.unwrap_or(NO_LIMIT)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn inodes_used(&self) -> Result<u64> {
        Ok(self.status().await?.inodes_used)
    }

    #[zbus(property)]
    fn mode(&self) -> u32 {
        self.view().policy.mode
    }

    #[zbus(property)]
    fn uid(&self) -> u32 {
        self.view().policy.uid
    }

    #[zbus(property)]
    fn gid(&self) -> u32 {
        self.view().policy.gid
    }

    #[zbus(property)]
    fn options(&self) -> Vec<String> {
        self.view().policy.options.iter().map(ToString::to_string).collect()
    }

    #[zbus(property)]
    fn reclaim(&self) -> bool {
        self.view().policy.reclaim
    }

    #[zbus(property, name = "DeadlineUSec")]
    fn deadline(&self) -> u64 {
        usec(self.view().policy.deadline)
    }

    #[zbus(property)]
    fn kill_victim(&self) -> &'static str {
        self.view().policy.kill.victim.as_str()
    }

    #[zbus(property)]
    fn kill_scope(&self) -> &'static str {
        self.view().policy.kill.scope.as_str()
    }

    #[zbus(property)]
    fn kill_protect(&self) -> Vec<String> {
        self.view().policy.kill.protect.clone()
    }

    #[zbus(property, name = "KillCooldownUSec")]
    fn kill_cooldown(&self) -> u64 {
        usec(self.view().policy.kill.cooldown)
    }

    #[zbus(property)]
    fn fragment_path(&self) -> String {
        self.view().source.fragment
    }

    #[zbus(property)]
    fn drop_in_paths(&self) -> Vec<String> {
        self.view().source.drop_ins
    }

    #[zbus(property)]
    fn state(&self) -> &'static str {
        self.view().state.word()
    }

    #[zbus(property)]
    fn state_reason(&self) -> String {
        self.view().state.reason().to_owned()
    }

    #[zbus(property)]
    fn store_pid(&self) -> u32 {
        self.view().placement.and_then(|placement| placement.store_pid).unwrap_or(0)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn used_bytes(&self) -> Result<u64> {
        Ok(self.status().await?.used.0)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn charged_bytes(&self) -> Result<u64> {
        read_charged(&self.view().placement.ok_or_else(|| self.absent())?.leaf)
    }

    #[zbus(property)]
    fn previous_targets(&self) -> Vec<String> {
        self.view().placement.map(|placement| placement.previous.targets).unwrap_or_default()
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn previous_bytes(&self) -> Result<u64> {
        let view = self.view();
        let Some(placement) = &view.placement else { return Err(self.absent()) };
        if placement.previous.targets.is_empty() {
            // There is nothing to ask the store about.
            return Ok(0);
        }
        let used = self.status().await?.used;
        Ok(placement.previous.at_most(used, read_files(&view)).0)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn headroom_bytes(&self) -> Result<u64> {
        Ok(self.status().await?.headroom.0)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn denials(&self) -> Result<u64> {
        Ok(self.status().await?.denials)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn kills(&self) -> Result<u64> {
        Ok(self.status().await?.kills)
    }

    #[zbus(property)]
    async fn last_outcome(&self) -> Result<HashMap<String, OwnedValue>> {
        let last = self.history.last(self.mount.name().as_str()).await.map_err(property_error)?;
        // An earlier mount of the same name is another one.
        let since = self.view().placement.map_or(u64::MAX, |placement| placement.made_usec);
        let Some(last) = last.filter(|event| event.realtime_usec >= since) else { return Ok(HashMap::new()) };
        let owned = |(key, value): (&str, Value<'static>)| Ok((key.to_owned(), OwnedValue::try_from(value)?));
        let details = event_details(&last).into_iter().map(owned).collect::<zbus::zvariant::Result<_>>();
        details.map_err(|error| zbus::fdo::Error::Failed(error.to_string()))
    }

    #[zbus(out_args("generation"))]
    async fn set_policy(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
        options: Options,
    ) -> std::result::Result<u64, CallError> {
        self.require(connection, &call, Action::SetPolicy).await?;
        Ok(self.mount.set_policy(read_policy(&options)?).await?)
    }

    async fn retarget(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
        target: &str,
        options: Options,
    ) -> std::result::Result<(), CallError> {
        let RetargetOptions { target, leave_data, wait } = read_retarget(target, &options)?;
        let caller = identify(connection, &call).await?;
        let given = Fragment { target: Some(target.clone()), ..Fragment::default() };
        // The mount and both cgroups are the user's: nobody else has to be asked.
        let own = !caller.is_root()
            && caller.user.uid == self.view().owner
            && matches!(claim(&caller, &given, false), Claim::Holds);
        if !own {
            caller.ask(connection, Action::Retarget, Some(self.mount.name().as_str())).await?;
        }
        let on_behalf = own.then_some(caller.user);
        let wanted = Wanted { target, leave_data, wait, on_behalf };
        Ok(self.mount.retarget(wanted).await?)
    }

    async fn recover(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> std::result::Result<(), CallError> {
        self.require(connection, &call, Action::Mount).await?;
        Ok(self.mount.recover().await?)
    }

    async fn revert_policy(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> std::result::Result<(), CallError> {
        self.require(connection, &call, Action::SetPolicy).await?;
        Ok(self.mount.revert_policy().await.map(drop)?)
    }

    #[zbus(signal)]
    pub(super) async fn outcome(
        emitter: &SignalEmitter<'_>,
        outcome: &str,
        details: HashMap<&str, Value<'_>>,
    ) -> zbus::Result<()>;
}
