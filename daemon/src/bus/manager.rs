//! The root object: mounts are made, ended and found here.

use std::{collections::HashMap, path::Path};

use futures_util::future::join_all;
use memcharge_cgroup::User;
use memcharge_config::{Accounts, ConfigError, Fragment, Problem, Roots, merge, resolve};
use memcharge_dbus::{MountRow, NO_LIMIT, event_details, mount_path};
use memcharge_policy::{MountName, MountPolicy, is_unsafe_mount_point};
use tokio::sync::watch;
use zbus::{
    Connection,
    message::Header,
    object_server::SignalEmitter,
    zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value},
};

use super::{
    auth::{Action, Caller, Claim, claim, identify, require, root_only},
    convert::CallError,
    options::{MountOptions, Options, read_mount, read_query, read_unmount},
};
use crate::{
    error::{DaemonError, Result},
    history::HistoryHandle,
    mounts::{Request, Source, TableHandle},
    reload::ReloadHandle,
    settings::{self, Draft},
};

/// The longest path that is looked for, in bytes.
const MAX_PATH: usize = 4096;

/// No answer lists more errors.
const MAX_ERRORS: usize = 1000;

/// The root object.
#[derive(Debug)]
pub(crate) struct Manager {
    /// The mounts.
    pub(crate) table: TableHandle,
    /// Becomes true when all mounts of an earlier daemon are found again. Calls wait for it.
    pub(crate) ready: watch::Receiver<bool>,
    /// Where configuration is read, and written with `Persist`.
    pub(crate) roots: Roots,
    /// The record of arbitrations.
    pub(crate) history: HistoryHandle,
    /// Whether nothing is done to memory, processes or errors.
    pub(crate) dry_run: bool,
    /// The one who reloads, and what is in force.
    pub(crate) reload: ReloadHandle,
}

impl Manager {
    async fn table(&self) -> Result<&TableHandle> {
        self.ready.clone().wait_for(|ready| *ready).await.map_err(|_| DaemonError::Stopping)?;
        Ok(&self.table)
    }

    /// Makes a mount for the caller: as the user's own if all of it is the user's, else with polkit's consent.
    async fn make_for(
        &self,
        connection: &Connection,
        caller: &Caller,
        name: &str,
        options: &Options,
    ) -> Result<OwnedObjectPath, CallError> {
        let name = parse_name(name)?;
        let given = read_mount(options, Accounts::system())?;
        let refused = match claim(caller, &given.fragment, given.persist) {
            _ if caller.is_root() => None,
            Claim::Holds => {
                let mut own = given.clone();
                own.fragment.uid = Some(caller.user.uid);
                match self.make(&name, own, Some(caller.user.clone())).await {
                    Err(error @ DaemonError::NotPermitted(_)) => Some(error),
                    made => return Ok(made?),
                }
            }
            Claim::TooMuch(error) => Some(error),
            Claim::None => None,
        };
        if let Err(denied) = caller.ask(connection, Action::Mount, Some(name.as_str())).await {
            // Whose cgroup it is is told what is in the way, rather than that others could.
            return Err(refused.map_or_else(|| denied.into(), CallError::from));
        }
        Ok(self.make(&name, given, None).await?)
    }

    async fn make(
        &self,
        name: &MountName,
        given: MountOptions,
        on_behalf: Option<User>,
    ) -> Result<OwnedObjectPath> {
        let table = self.table().await?;
        let policy = self.policy(name.clone(), given.fragment.clone())?;
        // Also where the administrator's defaults say so: they are meant for the administrator's own mounts.
        if on_behalf.is_some()
            && let Some(option) = root_only(&policy.options)
        {
            return Err(DaemonError::NotPermitted(format!("only root may have the mount option {option}")));
        }
        let (_held, draft) = match given.persist {
            true => {
                let held = self.reload.hold().await;
                (Some(held), Some(Draft::write(&self.roots, name, &given.fragment.to_toml())?))
            }
            false => (None, None),
        };
        let fragment = draft.as_ref().map(|draft| draft.path().display().to_string()).unwrap_or_default();
        let source = Source { fragment, drop_ins: Vec::new() };
        table.create(Request { policy, source, keep_failed: false, wait: given.wait, on_behalf }).await?;
        draft.map_or(Ok(()), Draft::commit)?;
        Ok(mount_path(name))
    }

    fn policy(&self, name: MountName, given: Fragment) -> Result<MountPolicy> {
        if let Some(place) = given.place.as_deref()
            && place.starts_with('/')
            && is_unsafe_mount_point(Path::new(place))
        {
            return Err(DaemonError::UnsafeMountPoint { path: place.to_owned() });
        }
        let words = |found: Vec<Problem>| found.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ");
        // What mounts made here have unless they say otherwise.
        let merged = merge(self.reload.in_force().main.defaults, given);
        resolve(name, &merged).map_err(|found| DaemonError::InvalidOption(words(found)))
    }

    async fn rows(&self) -> Result<Vec<MountRow>> {
        let mounts = self.table().await?.list().await?;
        // All at once: a store that does not answer costs its deadline, and that only once.
        let rows = mounts.iter().map(|mount| async {
            let view = mount.view();
            MountRow {
                name: mount.name().to_string(),
                place: view.policy.place.clone(),
                target: view.policy.target.to_string(),
                used: mount.status().await.map_or(NO_LIMIT, |status| status.used.0),
                object: mount_path(mount.name()),
            }
        });
        Ok(join_all(rows).await)
    }
}

fn parse_name(name: &str) -> Result<MountName> {
    name.parse().map_err(|error: memcharge_policy::PolicyError| DaemonError::InvalidOption(error.to_string()))
}

fn entry(error: &ConfigError) -> HashMap<&'static str, OwnedValue> {
    let line = u32::try_from(error.line).unwrap_or(0);
    let values = [
        ("File", Value::from(error.file.display().to_string())),
        ("Line", line.into()),
        ("Message", error.problem.to_string().into()),
    ];
    values.into_iter().filter_map(|(key, value)| Some((key, OwnedValue::try_from(value).ok()?))).collect()
}

#[zbus::interface(name = "org.memcharge.Memcharge1.Manager", introspection_docs = false)]
impl Manager {
    #[zbus(out_args("mount"))]
    async fn mount(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
        name: &str,
        options: Options,
    ) -> Result<OwnedObjectPath, CallError> {
        let caller = identify(connection, &call).await?;
        self.make_for(connection, &caller, name, &options).await
    }

    async fn unmount(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
        name: &str,
        options: Options,
    ) -> Result<(), CallError> {
        let lazy = read_unmount(&options)?;
        let mount = self.table().await?.find(&parse_name(name)?).await?;
        require(connection, &call, Action::Unmount, Some((name, mount.view().owner))).await?;
        Ok(mount.unmount(lazy).await?)
    }

    async fn reload(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(), CallError> {
        require(connection, &call, Action::Reload, None).await?;
        Ok(self.reload.reload().await?)
    }

    #[zbus(out_args("mount"))]
    async fn get_mount(&self, name: &str) -> Result<OwnedObjectPath, CallError> {
        let no_such_mount = |_| DaemonError::NoSuchMount { name: name.escape_debug().to_string() };
        let name: MountName = name.parse().map_err(no_such_mount)?;
        let mount = self.table().await?.find(&name).await?;
        Ok(mount_path(mount.name()))
    }

    #[zbus(out_args("mount"))]
    async fn get_mount_by_path(&self, path: &str) -> Result<OwnedObjectPath, CallError> {
        if !path.starts_with('/') || path.len() > MAX_PATH {
            let what = format!("give an absolute path of at most {MAX_PATH} bytes");
            return Err(DaemonError::InvalidOption(what).into());
        }
        let mount = self.table().await?.find_by_path(path).await?;
        Ok(mount_path(mount.name()))
    }

    #[zbus(out_args("mounts"))]
    async fn list_mounts(&self) -> Result<Vec<MountRow>, CallError> {
        Ok(self.rows().await?)
    }

    #[zbus(out_args("errors"))]
    async fn check_config(&self) -> Result<Vec<HashMap<&'static str, OwnedValue>>, CallError> {
        let errors = settings::load_in_time(&self.roots).await?.err().unwrap_or_default();
        Ok(errors.iter().take(MAX_ERRORS).map(entry).collect())
    }

    #[zbus(out_args("text"))]
    async fn cat_config(&self, name: &str) -> Result<String, CallError> {
        let name = if name.is_empty() { None } else { Some(parse_name(name)?) };
        Ok(settings::cat(&self.roots, name).await?)
    }

    #[zbus(out_args("events"))]
    async fn get_history(
        &self,
        options: Options,
    ) -> Result<Vec<HashMap<&'static str, Value<'static>>>, CallError> {
        let events = self.history.query(read_query(&options)?.into()).await?;
        Ok(events.iter().map(event_details).collect())
    }

    #[zbus(out_args("event"))]
    async fn get_event(&self, id: &str) -> Result<HashMap<&'static str, Value<'static>>, CallError> {
        Ok(event_details(&self.history.get(id).await?))
    }

    #[zbus(property)]
    fn config_generation(&self) -> u64 {
        self.reload.in_force().generation
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn dry_run(&self) -> bool {
        self.dry_run
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn mount_count(&self) -> zbus::fdo::Result<u32> {
        let count = async { Ok(self.table().await?.list().await?.len()) };
        count
            .await
            .map(|count| u32::try_from(count).unwrap_or(u32::MAX))
            .map_err(super::convert::property_error)
    }

    #[zbus(signal)]
    pub(super) async fn remote_oom(
        emitter: &SignalEmitter<'_>,
        mount: ObjectPath<'_>,
        outcome: &str,
        details: HashMap<&str, Value<'_>>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(super) async fn mount_new(
        emitter: &SignalEmitter<'_>,
        name: &str,
        mount: ObjectPath<'_>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(super) async fn mount_removed(
        emitter: &SignalEmitter<'_>,
        name: &str,
        mount: ObjectPath<'_>,
    ) -> zbus::Result<()>;
}
