//! The one way in which everything of a mount is undone, whoever ends it.
//!
//! systemd runs this when the store's unit stops (also while memcharged is away); memcharged runs it for a mount
//! whose unit is gone. Each step may have been done before. The record goes last, so that what is left can be found.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    thread,
    time::Duration,
};

use memcharge_cgroup::Hierarchy;
use memcharge_faults::may_die;
use memcharge_policy::{
    MountName,
    link::{GIVEN_UP, MountRecord},
    mountinfo,
};
use rustix::{io::Errno, mount::UnmountFlags, thread::LinkNameSpaceType};

use crate::error::{StoreError, io as io_error};

/// What systemd tells an `ExecStopPost=` program about how the service ended.
const SERVICE_RESULT: &str = "SERVICE_RESULT";

/// The main process of the service, while it is there: told to an `ExecStop=` program.
const MAIN_PID: &str = "MAINPID";

/// A store that was killed is started again at once, since clients wait. One that fails must not take a processor and the
/// journal for itself: systemd waits for this program.
const PAUSE: Duration = Duration::from_secs(1);

/// Notes that the mount `name` shall end. systemd runs this when the store's unit is to be stopped, and also when the
/// store has ended by itself: then there is no main process.
///
/// Signals do not tell: a store that shares its target's cgroup gets those that are meant for the target.
pub(crate) fn note_stop(name: &MountName) -> Result<(), StoreError> {
    if std::env::var_os(MAIN_PID).is_none() {
        return Ok(());
    }
    fs::write(MountRecord::stop_path(name), "").map_err(io_error("note that the mount shall end"))
}

/// Whether the mount has come to its end: it was asked to, or its file system was unmounted everywhere, which is when a
/// store ends by itself. After everything else systemd starts the store again.
fn is_over(name: &MountName) -> bool {
    let told = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|told| told == value);
    std::env::var_os(SERVICE_RESULT).is_none()
        || fs::exists(MountRecord::stop_path(name)).unwrap_or(false)
        || told("EXIT_CODE", "exited") && told("EXIT_STATUS", "0")
}

/// Whether the store, or what systemd does before it, has ended with an error, which the next one may do as well.
fn has_failed() -> bool {
    let told = |variable: &str| std::env::var(variable).unwrap_or_default();
    told("EXIT_CODE") == "exited" && told("EXIT_STATUS") != GIVEN_UP.to_string()
}

/// Undoes the mount `name`, if it is over.
pub(crate) fn end(name: &MountName) -> Result<(), StoreError> {
    if !is_over(name) {
        if has_failed() {
            thread::sleep(PAUSE);
        }
        return Ok(());
    }
    let path = MountRecord::path(name);
    let refuse = |reason: String| StoreError::Record { path: path.clone(), reason };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return remove_file(&MountRecord::stop_path(name)),
        Err(e) => return Err(refuse(e.to_string())),
    };
    let record: MountRecord = serde_json::from_slice(&text).map_err(|e| refuse(e.to_string()))?;
    if record.moving {
        // Another store goes on.
        return remove_file(&MountRecord::stop_path(name));
    }
    may_die("end.begun");
    enter_host()?;
    unmount(&record)?;
    may_die("end.unmounted");
    if record.made_leaf {
        remove_leaf(&record)?;
    }
    may_die("end.leaf");
    if record.recovering {
        // The data are memcharged's, and wait for another try.
        return remove_file(&MountRecord::stop_path(name));
    }
    for made in record.made_directories.iter().rev() {
        match rustix::fs::rmdir(made) {
            // Somebody uses the directory for something else by now, or has removed it.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::BUSY | Errno::NOTDIR) => {}
            Err(e) => return Err(io_error("remove the mount point")(e)),
        }
    }
    may_die("end.directories");
    remove_file(&MountRecord::socket_path(name))?;
    remove_file(&path)?;
    may_die("end.record");
    remove_file(&MountRecord::stop_path(name))
}

/// Enters the mount namespace of the service manager, where the mount is. systemd runs this in one of its own, which the
/// unit's sandbox has, although this has full privileges.
fn enter_host() -> Result<(), StoreError> {
    let host = File::open("/proc/1/ns/mnt").map_err(io_error("find the host's mount namespace"))?;
    rustix::thread::move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(io_error("enter the host's mount namespace"))
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
