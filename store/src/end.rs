//! The one way in which everything of a mount is undone, whoever ends it.
//!
//! systemd runs this when the store's unit stops (also while memcharged is away); memcharged runs it for a mount
//! whose unit is gone. Each step may have been done before. The record goes last, so that what is left can be found.

use std::{fs, io};

use memcharge_cgroup::Hierarchy;
use memcharge_policy::{MountName, link::MountRecord, mountinfo};
use rustix::{io::Errno, mount::UnmountFlags};

use crate::error::{StoreError, io as io_error};

/// What systemd tells an `ExecStopPost=` program about how the service ended.
const SERVICE_RESULT: &str = "SERVICE_RESULT";

/// How a service ends that was told to: by itself, or by force since it did not in time.
const ASKED_FOR: [&str; 2] = ["success", "timeout"];

/// Undoes the mount `name`. A store that ended by itself without being asked (systemd then says so in
/// `SERVICE_RESULT`) is left for memcharged to report.
pub(crate) fn end(name: &MountName) -> Result<(), StoreError> {
    if std::env::var(SERVICE_RESULT).is_ok_and(|result| !ASKED_FOR.contains(&result.as_str())) {
        return Ok(());
    }
    let path = MountRecord::path(name);
    let refuse = |reason: String| StoreError::Record { path: path.clone(), reason };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(refuse(e.to_string())),
    };
    let record: MountRecord = serde_json::from_slice(&text).map_err(|e| refuse(e.to_string()))?;
    unmount(&record)?;
    if record.made_leaf {
        remove_leaf(&record)?;
    }
    for made in record.made_directories.iter().rev() {
        match rustix::fs::rmdir(made) {
            // Somebody uses the directory for something else by now, or has removed it.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::BUSY | Errno::NOTDIR) => {}
            Err(e) => return Err(io_error("remove the mount point")(e)),
        }
    }
    remove_file(&MountRecord::socket_path(name))?;
    remove_file(&path)
}

fn unmount(record: &MountRecord) -> Result<(), StoreError> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(io_error("read the mount table"))?;
    let malformed = |line| {
        io_error::<io::Error>("read the mount table")(io::Error::new(io::ErrorKind::InvalidData, line))
    };
    let mounts = mountinfo::parse_mountinfo(&text).map_err(malformed)?;
    let Some(own) = mountinfo::find_own(&mounts, record.mount_id) else { return Ok(()) };
    if mountinfo::is_hidden(&mounts, own) {
        return Err(StoreError::Hidden { path: own.place.clone() });
    }
    // Detached: the store is gone, so whoever still uses the mount can only get errors from it.
    match rustix::mount::unmount(own.place.as_str(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(e) => Err(io_error("unmount")(e)),
    }
}

fn remove_leaf(record: &MountRecord) -> Result<(), StoreError> {
    let Some((parent, leaf)) = record.leaf.rsplit_once('/') else { return Ok(()) };
    match Hierarchy::system().open(parent) {
        Ok(parent) => Ok(parent.remove_child(leaf)?),
        Err(memcharge_cgroup::CgroupError::NoSuchCgroup { .. }) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn remove_file(path: &str) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove a file of the mount")(e)),
        _ => Ok(()),
    }
}
