//! The object of a target. Every figure is read at the moment; one that cannot be had is an error.

use std::collections::HashMap;

use memcharge_cgroup::{Cgroup, CgroupError, Hierarchy, Sampler};
use memcharge_dbus::{NO_LIMIT, mount_path};
use memcharge_policy::{Bytes, sample::Sample};
use tokio::sync::watch;
use zbus::{fdo::Result, object_server::SignalEmitter, zvariant::OwnedObjectPath};

use super::convert::property_error;
use crate::targets::TargetView;

/// A target on the bus.
#[derive(Debug)]
pub(super) struct TargetObject {
    id: u64,
    path: String,
    view: watch::Receiver<TargetView>,
}

impl TargetObject {
    /// The object of the target with this id and cgroup path.
    pub(super) fn new(id: u64, path: String, view: watch::Receiver<TargetView>) -> Self {
        Self { id, path, view }
    }

    /// The cgroup, if it is still the same.
    fn open(&self) -> Result<Cgroup> {
        let same = |cgroup: Cgroup| match cgroup.id() == self.id {
            true => Ok(cgroup),
            false => Err(CgroupError::Dying { path: self.path.clone() }),
        };
        let opened = Hierarchy::system().open(&self.path).and_then(same);
        opened.map_err(|error| property_error(error.into()))
    }

    fn sample(&self) -> Result<Sample> {
        let _same = self.open()?;
        let sample = Sampler::open(&Hierarchy::system(), &self.path).and_then(|sampler| sampler.sample());
        let sample = sample.map_err(|error| property_error(error.into()))?;
        match sample.levels.is_empty() {
            true => Err(property_error(CgroupError::NoMemoryController { path: self.path.clone() }.into())),
            false => Ok(sample),
        }
    }
}

#[zbus::interface(name = "org.memcharge.Memcharge1.Target", introspection_docs = false)]
impl TargetObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn path(&self) -> String {
        self.path.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> u64 {
        self.id
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn memory_current(&self) -> Result<u64> {
        Ok(self.sample()?.levels.first().map_or(0, |level| level.current.0))
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn memory_max(&self) -> Result<u64> {
        Ok(self.sample()?.levels.first().and_then(|level| level.max).map_or(NO_LIMIT, |max| max.0))
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn headroom(&self) -> Result<u64> {
        Ok(self.sample()?.headroom(Bytes(0)).bytes.0)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn events(&self) -> Result<HashMap<String, u64>> {
        let counters = self.open()?.events(false).map_err(|error| property_error(error.into()))?;
        Ok(counters.0.into_iter().collect())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn mounts(&self) -> Vec<OwnedObjectPath> {
        self.view.borrow().mounts.iter().map(mount_path).collect()
    }

    #[zbus(signal)]
    pub(super) async fn memory_event(
        emitter: &SignalEmitter<'_>,
        deltas: HashMap<&str, u64>,
    ) -> zbus::Result<()>;
}
