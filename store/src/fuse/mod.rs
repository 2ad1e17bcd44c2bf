//! The FUSE edge: decodes a request, calls [`Fs`], replies. Nothing is decided here but how long the kernel may
//! remember an answer and how an open file works.

use std::{
    ffi::{CString, OsStr},
    io,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fuser::{
    BackingId, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use rustix::io::Errno as Os;

mod convert;
mod reply;

use convert::{attributes, caller, errno, kind, open_flags, timestamps, to_os};
use reply::{reply_empty, reply_entry, reply_xattr};

use crate::{
    fs::{Change, Fs, NewKind},
    inodes::Opened,
};

/// How long the kernel may remember a name: for good, since nobody but this mount's clients changes names.
const NAME_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long the kernel may remember attributes. Stores through a mapping change the modification time without the
/// kernel's FUSE side knowing; it shows after this time.
const ATTR_TTL: Duration = Duration::from_secs(1);

/// What must be negotiated, and since when the kernel has it.
const NEEDED: [(InitFlags, &str); 2] =
    [(InitFlags::FUSE_PASSTHROUGH, "passthrough"), (InitFlags::FUSE_HAS_RESEND, "resending of requests")];

/// What is negotiated beside, where the kernel has it.
///
/// Not FUSE_ASYNC_DIO: the kernel would send the pieces of one asynchronous write at once and without the inode's lock,
/// and turn a short count into EIO.
const WANTED: [InitFlags; 5] = [
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_INIT_EXT,
    InitFlags::FUSE_CACHE_SYMLINKS,
];

/// The adapter.
pub(crate) struct Adapter {
    fs: Arc<Fs>,
    max_write: u32,
}

impl Adapter {
    /// An adapter to `fs` that takes writes of up to `max_write` bytes.
    pub(crate) fn new(fs: Arc<Fs>, max_write: u32) -> Self {
        Self { fs, max_write }
    }
}

/// File handles carry nothing: a node id is enough to find a file, also after a restart.
const NO_HANDLE: FileHandle = FileHandle(0);

impl Adapter {
    fn open_with(
        &self,
        ino: u64,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Result<Arc<Opened>, Os> {
        self.fs.open(ino, |file| register(file).map_err(|e| to_os(&e)))
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for (flag, what) in NEEDED {
            config.add_capabilities(flag).map_err(|_| io::Error::new(io::ErrorKind::Unsupported, what))?;
        }
        for flag in WANTED {
            // Absent ones are told apart later, by the requests that never come.
            let _ = config.add_capabilities(flag);
        }
        let refused = |_| io::Error::from(io::ErrorKind::InvalidInput);
        // One level: tmpfs below. An overlay may still be stacked on the mount.
        config.set_max_stack_depth(1).map_err(refused)?;
        config.set_max_write(self.max_write).map_err(refused)?;
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply_entry(reply, self.fs.lookup(parent.0, name));
    }

    fn forget(&self, _request: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(ino.0, nlookup);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.fs.getattr(ino.0) {
            Ok(stat) => reply.attr(&ATTR_TTL, &attributes(&stat)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change { mode, uid, gid, size, times: timestamps(atime, mtime) };
        match self.fs.setattr(ino.0, change) {
            Ok(stat) => reply.attr(&ATTR_TTL, &attributes(&stat)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.fs.readlink(ino.0) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        reply_entry(reply, self.fs.make(caller(request, umask), parent.0, name, mode, NewKind::Node(rdev)));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        reply_entry(reply, self.fs.make(caller(request, umask), parent.0, name, mode, NewKind::Directory));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let Ok(target) = CString::new(target.as_os_str().as_bytes()) else {
            return reply.error(Errno::EINVAL);
        };
        reply_entry(
            reply,
            self.fs.make(caller(request, 0), parent.0, name, 0o777, NewKind::Symlink(&target)),
        );
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.fs.unlink(parent.0, name));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.fs.rmdir(parent.0, name));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.fs.rename((parent.0, name), (newparent.0, newname), flags.bits()));
    }

    fn link(&self, _request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        reply_entry(reply, self.fs.link(ino.0, newparent.0, newname));
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open_with(ino.0, |file| reply.open_backing(file)) {
            Ok(opened) => {
                reply.opened_passthrough(NO_HANDLE, open_flags(flags.acc_mode()), &opened.backing_id)
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let mode = libc::S_IFREG | (mode & 0o7777);
        let entry = match self.fs.make(caller(request, umask), parent.0, name, mode, NewKind::Node(0)) {
            Ok(entry) => entry,
            Err(e) => return reply.error(errno(e)),
        };
        match self.open_with(entry.stat.st_ino, |file| reply.open_backing(file)) {
            // The name must be remembered for good, and both have one time here. The first write or truncate of the new
            // file makes the kernel ask for the attributes again.
            Ok(opened) => reply.created_passthrough(
                &NAME_TTL,
                &attributes(&entry.stat),
                Generation(entry.generation.into()),
                NO_HANDLE,
                open_flags(OpenFlags(flags).acc_mode()),
                &opened.backing_id,
            ),
            Err(e) => {
                // The kernel never learns of the inode, so its reference and its name are taken back here.
                self.fs.forget(entry.stat.st_ino, 1);
                let _ = self.fs.unlink(parent.0, name);
                reply.error(errno(e));
            }
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if lock_owner.is_none() {
            // splice, sendfile or readahead on a writable descriptor: the kernel would put the answer into the page
            // cache of FUSE, where it is charged to the client and goes stale at the next store through a mapping.
            return reply.error(Errno::EINVAL);
        }
        // The reply goes out while the buffer is held.
        let mut reply = Some(reply);
        let result = self.fs.read(ino.0, offset, size as usize, |data| {
            if let Some(reply) = reply.take() {
                reply.data(data);
            }
        });
        if let (Err(e), Some(reply)) = (result, reply) {
            reply.error(errno(e));
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let clear_ids = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        match self.fs.write(ino.0, offset, data, clear_ids) {
            Ok(written) => reply.written(written as u32),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.release(ino.0);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.fs.opendir(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let result = self.fs.readdir(ino.0, fh.0, offset, |entry, next, entry_kind, name| {
            reply.add(INodeNo(entry), next, kind(entry_kind), name)
        });
        match result {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.releasedir(fh.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.fs.statfs() {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                s.f_bsize as u32,
                s.f_namemax as u32,
                s.f_frsize as u32,
            ),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.fs.setxattr(caller(request, 0), ino.0, name, value, flags));
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let mut reply = Some(reply);
        let result = self.fs.getxattr(ino.0, name, |value| {
            if let Some(reply) = reply.take() {
                reply_xattr(reply, size, value);
            }
        });
        if let (Err(e), Some(reply)) = (result, reply) {
            reply.error(errno(e));
        }
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let mut reply = Some(reply);
        let result = self.fs.listxattr(ino.0, request.uid() == 0, |names| {
            if let Some(reply) = reply.take() {
                reply_xattr(reply, size, names);
            }
        });
        if let (Err(e), Some(reply)) = (result, reply) {
            reply.error(errno(e));
        }
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.fs.removexattr(ino.0, name));
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.fs.fallocate(ino.0, offset, length, mode));
    }

    fn lseek(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.fs.lseek(ino.0, offset, whence) {
            Ok(position) => reply.offset(position as i64),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        match self.fs.copy((ino_in.0, offset_in), (ino_out.0, offset_out), len) {
            Ok(copied) => reply.written(copied as u32),
            Err(e) => reply.error(errno(e)),
        }
    }
}
