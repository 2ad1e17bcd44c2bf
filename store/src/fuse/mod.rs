//! The FUSE edge: decodes a request, calls [`crate::fs::Fs`], replies. Nothing is decided here but how long the kernel may
//! remember an answer and how an open file works.

use std::{
    ffi::{CString, OsStr},
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use memcharge_policy::outcome::Operation;

mod convert;
mod negotiate;
mod reply;
mod serve;

pub(crate) use convert::to_os;
use convert::{attributes, caller, errno, kind, open_flags, timestamps};
pub(crate) use negotiate::{ask_again, request_again};
use reply::{reply_empty, reply_entry, reply_xattr};
pub(crate) use serve::Adapter;
use serve::Memory;

use crate::fs::{Change, Entry, NewKind};

/// How long the kernel may remember a name: for good, since nobody but this mount's clients changes names.
const NAME_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long the kernel may remember attributes. Stores through a mapping change the modification time without the
/// kernel's FUSE side knowing; it shows after this time.
const ATTR_TTL: Duration = Duration::from_secs(1);

/// File handles carry nothing: a node id is enough to find a file, also after a restart.
const NO_HANDLE: FileHandle = FileHandle(0);

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate::ask_for(config, self.max_write)
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (result, _after) =
            self.serve(request, Operation::Look, |case| self.fs.lookup(case, parent.0, name));
        reply_entry(reply, result);
    }

    fn forget(&self, _request: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(ino.0, nlookup);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let (result, _after) = self.serve(request, Operation::Look, |case| self.fs.getattr(case, ino.0));
        match result {
            Ok(stat) => reply.attr(&ATTR_TTL, &attributes(&stat)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn setattr(
        &self,
        request: &Request,
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
        let operation = if size.is_some() { Operation::Truncate } else { Operation::Change };
        // The attributes are read again: they are what the change has led to.
        let memory =
            Memory { number: |_: &_| ino.0, again: |ino| self.fs.known(ino).map(|entry| entry.stat) };
        let (result, _after) =
            self.effect(request, operation, memory, |case| self.fs.setattr(case, ino.0, change));
        match result {
            Ok(stat) => reply.attr(&ATTR_TTL, &attributes(&stat)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let (result, _after) = self.serve(request, Operation::Look, |case| self.fs.readlink(case, ino.0));
        match result {
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
        self.make(request, reply, |case| {
            self.fs.make(case, caller(request, umask), parent.0, name, mode, NewKind::Node(rdev))
        });
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
        self.make(request, reply, |case| {
            self.fs.make(case, caller(request, umask), parent.0, name, mode, NewKind::Directory)
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let Ok(target) = CString::new(target.as_os_str().as_bytes()) else {
            return reply.error(Errno::EINVAL);
        };
        self.make(request, reply, |case| {
            self.fs.make(case, caller(request, 0), parent.0, name, 0o777, NewKind::Symlink(&target))
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (result, _after) =
            self.change(request, Operation::Change, |case| self.fs.unlink(&case.run, parent.0, name));
        reply_empty(reply, result);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (result, _after) =
            self.change(request, Operation::Change, |case| self.fs.rmdir(&case.run, parent.0, name));
        reply_empty(reply, result);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (result, _after) = self.change(request, Operation::Make, |case| {
            self.fs.rename(case, (parent.0, name), (newparent.0, newname), flags.bits())
        });
        reply_empty(reply, result);
    }

    fn link(&self, request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.make(request, reply, |case| self.fs.link(case, ino.0, newparent.0, newname));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let memory = Memory { number: |_: &_| ino.0, again: |ino| self.fs.opened(ino) };
        let (result, _after) =
            self.effect(request, Operation::Look, memory, |case| self.fs.open(case, ino.0));
        match result {
            Ok(opened) => {
                // SAFETY: the kernel has given this id for the inode, and it lasts until the last release.
                let id = unsafe { reply.wrap_backing(opened.backing_id) };
                reply.opened_passthrough(NO_HANDLE, open_flags(flags.acc_mode()), &id);
                // Not closed here: it is the inode's.
                id.into_raw();
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
        let again = |ino| Ok((self.fs.known(ino)?, self.fs.opened(ino)?));
        let memory = Memory { number: |(entry, _): &(Entry, _)| entry.stat.st_ino, again };
        let (created, _after) = self.effect(request, Operation::Make, memory, |case| {
            let entry = self.fs.make(case, caller(request, umask), parent.0, name, mode, NewKind::Node(0))?;
            let opened = self.fs.open(case, entry.stat.st_ino);
            opened
                .map_err(|e| self.fs.unmake(parent.0, name, entry.stat.st_ino, e))
                .map(|opened| (entry, opened))
        });
        match created {
            // The name must be remembered for good, and both have one time here. The first write or truncate of the new
            // file makes the kernel ask for the attributes again.
            Ok((entry, opened)) => {
                // SAFETY: as for `open`.
                let id = unsafe { reply.wrap_backing(opened.backing_id) };
                reply.created_passthrough(
                    &NAME_TTL,
                    &attributes(&entry.stat),
                    Generation(entry.generation.into()),
                    NO_HANDLE,
                    open_flags(OpenFlags(flags).acc_mode()),
                    &id,
                );
                id.into_raw();
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn read(
        &self,
        request: &Request,
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
        let (result, _after) = self.serve(request, Operation::Look, |_| {
            self.fs.read(ino.0, offset, size as usize, |data| {
                if let Some(reply) = reply.take() {
                    reply.data(data);
                }
            })
        });
        if let (Err(e), Some(reply)) = (result, reply) {
            reply.error(errno(e));
        }
    }

    fn write(
        &self,
        request: &Request,
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
        let (result, _after) = self
            .amount(request, Operation::Write, |case| self.fs.write(case, ino.0, offset, data, clear_ids));
        match result {
            Ok(written) => reply.written(written as u32),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let (result, _after) = self.change(request, Operation::Look, |case| {
            self.fs.release(ino.0, &case.run);
            Ok(())
        });
        reply_empty(reply, result);
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (result, _after) = self.serve(request, Operation::Look, |case| self.fs.opendir(case, ino.0));
        match result {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let (result, _after) = self.serve(request, Operation::Look, |case| {
            self.fs.readdir(case, ino.0, fh.0, offset, |entry, next, entry_kind, name| {
                reply.add(INodeNo(entry), next, kind(entry_kind), name)
            })
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
        let (result, _after) = self.change(request, Operation::Change, |case| {
            self.fs.setxattr(case, caller(request, 0), ino.0, name, value, flags)
        });
        reply_empty(reply, result);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let mut reply = Some(reply);
        let (result, _after) = self.serve(request, Operation::Look, |case| {
            self.fs.getxattr(case, ino.0, name, |value| {
                if let Some(reply) = reply.take() {
                    reply_xattr(reply, size, value);
                }
            })
        });
        if let (Err(e), Some(reply)) = (result, reply) {
            reply.error(errno(e));
        }
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let mut reply = Some(reply);
        let (result, _after) = self.serve(request, Operation::Look, |case| {
            self.fs.listxattr(case, ino.0, request.uid() == 0, |names| {
                if let Some(reply) = reply.take() {
                    reply_xattr(reply, size, names);
                }
            })
        });
        if let (Err(e), Some(reply)) = (result, reply) {
            reply.error(errno(e));
        }
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (result, _after) =
            self.change(request, Operation::Look, |case| self.fs.removexattr(&case.run, ino.0, name));
        reply_empty(reply, result);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (result, _after) = self.change(request, Operation::Fallocate, |case| {
            self.fs.fallocate(case, ino.0, offset, length, mode)
        });
        reply_empty(reply, result);
    }

    fn lseek(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let (result, _after) = self.serve(request, Operation::Look, |_| self.fs.lseek(ino.0, offset, whence));
        match result {
            Ok(position) => reply.offset(position as i64),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
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
        let (result, _after) = self.amount(request, Operation::Copy, |case| {
            self.fs.copy(case, (ino_in.0, offset_in), (ino_out.0, offset_out), len)
        });
        match result {
            Ok(copied) => reply.written(copied as u32),
            Err(e) => reply.error(errno(e)),
        }
    }
}
