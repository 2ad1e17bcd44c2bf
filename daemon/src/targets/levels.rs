//! The cgroups that a target's memory depends on: itself and all above it, watched and read.

use std::sync::Arc;

use memcharge_cgroup::{Cgroup, CgroupError, Hierarchy, Sampler};
use memcharge_policy::{
    events::{Counters, Delta},
    sample::Sample,
};
use tokio::sync::Notify;

use super::health::Reading;
use crate::{
    error::Result,
    watch::{Watch, Watcher},
};

/// What changes in a target when something happens to it: its counters, its limits, whether it is frozen.
const TARGET_FILES: [&str; 5] =
    ["memory.events", "cgroup.events", "cgroup.freeze", "memory.max", "memory.high"];

/// The same of a cgroup above: only what its own limits lead to, since what happens below is not this target's.
const ABOVE_FILES: [&str; 5] =
    ["memory.events.local", "cgroup.subtree_control", "cgroup.freeze", "memory.max", "memory.high"];

/// What changes when a store leaves its own cgroup.
const LEAF_FILES: [&str; 1] = ["cgroup.events"];

/// A target and all above it, held.
#[derive(Debug)]
pub(super) struct Levels {
    target: Level,
    above: Vec<Level>,
    /// `None`: the target has no memory controller.
    sampler: Option<Sampler>,
    /// The directory that the target is in: it tells when the target is removed or made anew.
    _parent: Watch,
    /// What the root gives to its children.
    _root: Watch,
}

#[derive(Debug)]
struct Level {
    cgroup: Cgroup,
    counters: Counters,
    _watch: Watch,
}

impl Levels {
    /// Opens everything and reads the counters for the first time: what happens after this is noticed.
    pub(super) fn open(
        hierarchy: &Hierarchy,
        watcher: &Watcher,
        path: &str,
        wake: &Arc<Notify>,
    ) -> Result<Self> {
        let watched = |path: &str, files: &[&str], local| {
            let cgroup = hierarchy.open(path)?;
            // Watched first, then read: a change in between wakes for nothing, and none is missed. Without the memory
            // controller the files of memory are not there; that it is given again the others tell.
            let memory = cgroup.has_memory()?;
            let files: Vec<_> =
                files.iter().copied().filter(|file| memory || !file.starts_with("memory.")).collect();
            let watch = watcher.add(&cgroup, &files, wake)?;
            let counters = read_counters(&cgroup, local)?;
            Ok::<_, crate::error::DaemonError>(Level { cgroup, counters, _watch: watch })
        };
        let target = watched(path, &TARGET_FILES, false)?;
        let mut above = Vec::new();
        let mut rest = path.trim_end_matches('/');
        while let Some((parent, _)) = rest.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            above.push(watched(parent, &ABOVE_FILES, true)?);
            rest = parent;
        }
        let parent = hierarchy.open(parent_of(path))?;
        let root = watcher.add(hierarchy.open("/")?, &["cgroup.subtree_control"], wake)?;
        let sampler = match target.cgroup.has_memory()? {
            true => Some(Sampler::open(hierarchy, path)?),
            false => None,
        };
        Ok(Self { target, above, sampler, _parent: watcher.add_directory(&parent, wake)?, _root: root })
    }

    /// The target and all above it now.
    pub(super) fn sample(&self) -> Result<Sample, CgroupError> {
        self.sampler()?.sample()
    }

    fn sampler(&self) -> Result<&Sampler, CgroupError> {
        let missing = || CgroupError::NoMemoryController { path: self.target.cgroup.path().to_owned() };
        self.sampler.as_ref().ok_or_else(missing)
    }

    /// Cache of files in the target.
    pub(super) fn file_cache(&self) -> Result<memcharge_policy::Bytes, CgroupError> {
        self.sampler()?.file_cache(0)
    }

    /// The target's counters.
    pub(super) fn counters(&self) -> &Counters {
        &self.target.counters
    }

    /// Reads all counters again. What the target's have grown by, and what those above have.
    pub(super) fn read_events(&mut self) -> Result<(Delta, Vec<Delta>), CgroupError> {
        let target = self.target.read_events(false)?;
        let above = self.above.iter_mut().map(|level| level.read_events(true)).collect::<Result<_, _>>()?;
        Ok((target, above))
    }

    /// What keeps stores of this target from serving; `at_home` is left open.
    pub(super) fn read(&self, hierarchy: &Hierarchy) -> Reading {
        let path = self.target.cgroup.path();
        let all = || std::iter::once(&self.target).chain(&self.above);
        let frozen = all().find(|level| level.cgroup.freeze_asked().unwrap_or(false));
        let sample = self.sample().ok();
        let over = sample.and_then(|sample| {
            sample.levels.iter().position(|level| level.high.is_some_and(|high| level.current > high))
        });
        Reading {
            same: hierarchy.open(path).ok().map(|now| now.id() == self.target.cgroup.id()),
            // The files of a controller that was taken away and given again are others than those that are held.
            memory: self.sample().is_ok(),
            frozen: frozen.map(|level| level.cgroup.path().to_owned()),
            over_high: over
                .and_then(|index| self.sampler.as_ref()?.level_path(index))
                .map(|path| path.to_string()),
            at_home: true,
        }
    }
}

impl Level {
    fn read_events(&mut self, local: bool) -> Result<Delta, CgroupError> {
        let now = read_counters(&self.cgroup, local)?;
        let delta = now.since(&self.counters);
        self.counters = now;
        Ok(delta)
    }
}

/// The cgroup of one store, watched.
#[derive(Debug)]
pub(super) struct Leaf {
    cgroup: Cgroup,
    _watch: Watch,
}

impl Leaf {
    /// Opens it.
    pub(super) fn open(
        hierarchy: &Hierarchy,
        watcher: &Watcher,
        path: &str,
        wake: &Arc<Notify>,
    ) -> Result<Self> {
        let cgroup = hierarchy.open(path)?;
        let watch = watcher.add(&cgroup, &LEAF_FILES, wake)?;
        Ok(Self { cgroup, _watch: watch })
    }

    /// Whether anybody is in it: nobody but the store ever is.
    pub(super) fn is_populated(&self) -> bool {
        self.cgroup.is_populated().unwrap_or(false)
    }
}

/// A cgroup without the memory controller has no counters, and nothing happens in it.
fn read_counters(cgroup: &Cgroup, local: bool) -> Result<Counters, CgroupError> {
    match cgroup.events(local) {
        Err(CgroupError::NoMemoryController { .. }) => Ok(Counters::default()),
        counters => counters,
    }
}

fn parent_of(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        for (path, parent) in [("/a/b", "/a"), ("/a", "/"), ("/a/b/", "/a"), ("/", "/")] {
            assert_eq!(parent_of(path), parent, "{path}");
        }
    }
}
