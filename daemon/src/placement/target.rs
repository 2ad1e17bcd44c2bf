//! The target of a mount: found, started if it is a slice, and asked whether a store fits in.

use memcharge_cgroup::{Cgroup, Hierarchy, Sampler};
use memcharge_policy::{
    Bytes, KillScope, MountName, MountPolicy, OnFull, SizeCap, Target, admission::MACHINE_MARGIN,
    sample::Sample,
};

use super::{raw::leaf_name, systemd::Systemd};
use crate::{
    attach::holders::read_mounts,
    error::{DaemonError, Result},
};

/// What a store takes when it starts: its buffers, its heap and its code. Measured: 2.9 MiB at the peak.
const STORE_NEEDS: Bytes = Bytes::mib(4);

/// The same without what is there to be safe, and what each mount of the host adds in a slice: systemd gives the store its
/// mount namespace when it is already there, and a namespace begins as a copy. Measured: 0.4 KB for each, 1.6 KB at the peak.
const STORE_ITSELF: Bytes = Bytes::mib(3);
const EACH_HOST_MOUNT: u64 = 2048;

/// A target that is there and has room.
#[derive(Debug)]
pub(crate) struct Site {
    /// Its cgroup.
    pub(crate) cgroup: Cgroup,
    /// It and its ancestors at that moment.
    pub(crate) sample: Sample,
    /// The ids of the levels of the sample.
    pub(crate) level_ids: Vec<u64>,
}

/// The path of a target's cgroup.
pub(crate) async fn find_path(systemd: &Systemd, target: &Target) -> Result<String> {
    match target {
        Target::Path(path) => Ok(path.clone()),
        Target::Slice(slice) => {
            let path = systemd.slice_cgroup(slice).await?.or_else(|| target.slice_path());
            path.ok_or_else(|| DaemonError::NoSuchTarget {
                target: slice.clone(),
                why: "it has no cgroup".into(),
            })
        }
        Target::Service(unit) | Target::Scope(unit) => systemd.unit_cgroup(unit).await,
    }
}

/// What the store of a mount on `target` takes when it starts.
pub(crate) fn store_needs(target: &Target) -> Result<Bytes> {
    // Other stores start elsewhere, and are moved. What they have been charged for by then stays where it was.
    if is_raw(target) { Ok(STORE_NEEDS) } else { Ok(needs_beside(read_mounts()?.len())) }
}

fn needs_beside(host_mounts: usize) -> Bytes {
    let copies = EACH_HOST_MOUNT.saturating_mul(u64::try_from(host_mounts).unwrap_or(u64::MAX));
    Bytes(STORE_ITSELF.0.saturating_add(copies)).max(STORE_NEEDS)
}

/// Opens the cgroup of `target` at `path` and checks that a store can start there.
pub(crate) fn open_site(hierarchy: &Hierarchy, target: &Target, path: &str) -> Result<Site> {
    let site = look_at_site(hierarchy, path)?;
    check_room(&site.sample, path, store_needs(target)?)?;
    Ok(site)
}

/// Opens a target's cgroup.
pub(crate) fn look_at_site(hierarchy: &Hierarchy, path: &str) -> Result<Site> {
    let cgroup = hierarchy.open(path)?;
    if !cgroup.has_memory()? {
        return Err(memcharge_cgroup::CgroupError::NoMemoryController { path: path.to_owned() }.into());
    }
    let sampler = Sampler::open(hierarchy, path)?;
    let sample = sampler.sample()?;
    Ok(Site { cgroup, sample, level_ids: sampler.level_ids().collect() })
}

fn check_room(sample: &Sample, path: &str, needs: Bytes) -> Result<()> {
    let headroom = sample.headroom(MACHINE_MARGIN).bytes;
    if headroom < needs {
        return Err(DaemonError::TooSmall { target: path.to_owned(), headroom, needs });
    }
    Ok(())
}

/// A mount's cap in bytes.
pub(crate) fn resolve_cap(size: Option<SizeCap>, sample: &Sample) -> Result<Option<Bytes>> {
    let Some(size) = size else { return Ok(None) };
    let no_limit = "size is a share of the target's limit, and neither the target nor an ancestor has one";
    let cap = size.resolve(sample.smallest_max());
    cap.map(Some).ok_or_else(|| DaemonError::InvalidOption(no_limit.to_owned()))
}

/// Refuses a policy whose kill of a cgroup would take the store along: the processes of the target itself are in no
/// cgroup below it that does not hold the store.
pub(crate) fn check_scope(hierarchy: &Hierarchy, policy: &MountPolicy, target_path: &str) -> Result<()> {
    if policy.on_full != OnFull::Kill || policy.kill.scope != KillScope::Cgroup {
        return Ok(());
    }
    if !is_unit(&policy.target) && !hierarchy.open(target_path)?.has_own_procs()? {
        return Ok(());
    }
    let (scope, way) = (
        "scope = \"cgroup\"",
        "give scope = \"process\", or a target whose processes are in cgroups below it",
    );
    Err(DaemonError::InvalidOption(format!(
        "{scope} would kill the store: {target_path} has processes of its own beside it; {way}"
    )))
}

/// Where the store of `name` will be, below `target_path`.
pub(crate) fn leaf_path(name: &MountName, target: &Target, target_path: &str) -> String {
    if is_unit(target) {
        // A unit that is not delegated cannot be divided: the store is beside its processes.
        return target_path.to_owned();
    }
    let leaf = if is_raw(target) { leaf_name(name) } else { name.unit() };
    format!("{}/{leaf}", target_path.trim_end_matches('/'))
}

/// Whether the target is a unit that has processes of its own, and so comes and goes.
pub(crate) fn is_unit(target: &Target) -> bool {
    matches!(target, Target::Service(_) | Target::Scope(_))
}

/// Whether a store is moved into this target by hand.
pub(crate) fn is_raw(target: &Target) -> bool {
    !matches!(target, Target::Slice(_))
}

#[cfg(test)]
mod tests {
    use memcharge_policy::sample::LevelSample;

    use super::*;

    fn sample(current: u64, max: Option<u64>) -> Sample {
        let level = LevelSample { current: Bytes::mib(current), max: max.map(Bytes::mib), high: None };
        Sample { levels: vec![level], available: Bytes::mib(1000) }
    }

    #[test]
    fn a_store_needs_room() {
        assert!(check_room(&sample(6, Some(10)), "/t", Bytes::mib(4)).is_ok());
        assert!(check_room(&sample(6, None), "/t", Bytes::mib(4)).is_ok());
        let error = check_room(&sample(8, Some(10)), "/t", Bytes::mib(4)).unwrap_err().to_string();
        assert_eq!(
            error,
            "/t has 2M of headroom, and a store needs 4M; raise its limit or free memory there"
        );
    }

    #[test]
    fn a_store_in_a_slice_pays_for_its_copy_of_the_mounts() {
        assert_eq!(needs_beside(30), Bytes::mib(4));
        assert_eq!(needs_beside(512), Bytes::mib(4));
        assert_eq!(needs_beside(1024), Bytes::mib(5));
        assert_eq!(needs_beside(usize::MAX), Bytes(u64::MAX));
        assert_eq!(store_needs(&Target::Path("/t".into())).unwrap(), Bytes::mib(4));
    }

    #[test]
    fn caps_are_resolved_or_refused() {
        let cap =
            |size: Option<&str>, max| resolve_cap(size.map(|size| size.parse().unwrap()), &sample(0, max));
        assert_eq!(cap(None, Some(10)).unwrap(), None);
        assert_eq!(cap(Some("50%"), Some(10)).unwrap(), Some(Bytes::mib(5)));
        assert_eq!(cap(Some("1M"), None).unwrap(), Some(Bytes::mib(1)));
        assert!(matches!(cap(Some("50%"), None), Err(DaemonError::InvalidOption(_))));
    }

    #[test]
    fn leaves() {
        let name = "m".parse().unwrap();
        let leaf = |target: &str, path: &str| leaf_path(&name, &target.parse().unwrap(), path);
        assert_eq!(leaf("a.slice", "/a.slice"), "/a.slice/memcharge-store-m.service");
        assert_eq!(leaf("/pod/x", "/pod/x"), "/pod/x/memcharge-m");
        assert_eq!(leaf("db.service", "/system.slice/db.service"), "/system.slice/db.service");
    }
}
