//! Replies that several operations share.

use fuser::{Errno, Generation, ReplyEmpty, ReplyEntry, ReplyXattr};
use rustix::io::Errno as Os;

use super::{
    ATTR_TTL, NAME_TTL,
    convert::{attributes, errno},
};

pub(super) fn reply_entry(reply: ReplyEntry, result: Result<crate::fs::Entry, Os>) {
    match result {
        Ok(entry) => {
            let generation = Generation(entry.generation.into());
            reply.entry_with_ttls(&ATTR_TTL, &NAME_TTL, &attributes(&entry.stat), generation);
        }
        Err(e) => reply.error(errno(e)),
    }
}

pub(super) fn reply_empty(reply: ReplyEmpty, result: Result<(), Os>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

pub(super) fn reply_xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
