//! Between FUSE's types and the system's. Pure.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{Errno, FileAttr, FileType, FopenFlags, INodeNo, OpenAccMode, Request, TimeOrNow};
use rustix::{
    fs::{Stat, Timespec, Timestamps},
    io::Errno as Os,
};

use crate::fs::Caller;

/// The kernel's ENOMEM is a charge that the target's limit refuses (nobody is killed for a process that the OOM killer
/// spares), and its EMFILE the store's own limit.
pub(super) fn errno(e: Os) -> Errno {
    match e {
        Os::NOMEM => Errno::ENOSPC,
        Os::MFILE => Errno::ENFILE,
        e => Errno::from_i32(e.raw_os_error()),
    }
}

pub(super) fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let nanoseconds = Duration::from_nanos(nanoseconds as u64);
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds) + nanoseconds,
        Err(_) => UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + nanoseconds,
    }
}

pub(super) fn kind(kind: rustix::fs::FileType) -> FileType {
    use rustix::fs::FileType as Os;
    match kind {
        Os::Directory => FileType::Directory,
        Os::Symlink => FileType::Symlink,
        Os::Fifo => FileType::NamedPipe,
        Os::Socket => FileType::Socket,
        Os::CharacterDevice => FileType::CharDevice,
        Os::BlockDevice => FileType::BlockDevice,
        Os::RegularFile | Os::Unknown => FileType::RegularFile,
    }
}

pub(super) fn attributes(stat: &Stat) -> FileAttr {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    FileAttr {
        ino: INodeNo(stat.st_ino),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec as i64),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec as i64),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec as i64),
        crtime: UNIX_EPOCH,
        kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        // The kernel's `new_encode_dev`.
        rdev: (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12),
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

pub(super) fn timestamps(atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>) -> Option<Timestamps> {
    let timespec = |time| match time {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(UNIX_EPOCH) {
            Ok(after) => {
                Timespec { tv_sec: after.as_secs() as i64, tv_nsec: i64::from(after.subsec_nanos()) }
            }
            Err(before) => {
                // fuser 0.18 subtracts the nanoseconds, where the protocol counts them upwards from the seconds.
                let before = before.duration();
                Timespec { tv_sec: -(before.as_secs() as i64), tv_nsec: i64::from(before.subsec_nanos()) }
            }
        },
    };
    if atime.is_none() && mtime.is_none() {
        return None;
    }
    Some(Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) })
}

pub(super) fn caller(request: &Request, umask: u32) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), umask }
}

/// How an open file works. Read-only: the kernel reads from the backing file, as fast as tmpfs. Writable: reads and
/// writes come here, so that this process allocates; mappings go to the backing file in both cases.
pub(super) fn open_flags(access: OpenAccMode) -> FopenFlags {
    match access {
        OpenAccMode::O_RDONLY => FopenFlags::FOPEN_PASSTHROUGH,
        OpenAccMode::O_WRONLY | OpenAccMode::O_RDWR => {
            FopenFlags::FOPEN_PASSTHROUGH
                | FopenFlags::FOPEN_DIRECT_IO
                | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
        }
    }
}

pub(crate) fn to_os(e: &io::Error) -> Os {
    Os::from_io_error(e).unwrap_or(Os::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        // As fuser 0.18 decodes (-2 s, 0.8e9 ns).
        let decoded = UNIX_EPOCH - Duration::new(2, 800_000_000);
        let times = timestamps(None, Some(TimeOrNow::SpecificTime(decoded))).unwrap();
        assert_eq!((times.last_modification.tv_sec, times.last_modification.tv_nsec), (-2, 800_000_000));
        assert_eq!(times.last_access.tv_nsec, rustix::fs::UTIME_OMIT);
        // And back: -1.2 s.
        assert_eq!(time(-2, 800_000_000), UNIX_EPOCH - Duration::from_millis(1200));
    }

    #[test]
    fn what_the_target_refuses_is_enospc() {
        assert_eq!(errno(Os::NOMEM), Errno::ENOSPC);
        assert_eq!(errno(Os::MFILE), Errno::ENFILE);
        assert_eq!(errno(Os::NOENT), Errno::ENOENT);
    }

    #[test]
    fn only_writable_files_are_served_here() {
        assert!(!open_flags(OpenAccMode::O_RDONLY).contains(FopenFlags::FOPEN_DIRECT_IO));
        for access in [OpenAccMode::O_WRONLY, OpenAccMode::O_RDWR] {
            assert!(open_flags(access).contains(FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PASSTHROUGH));
        }
    }
}
