//! Mounts as the kernel sees them: file systems, mount points, and who uses them.

pub(crate) mod backing;
pub(crate) mod fuse;
pub(crate) mod holders;
pub(crate) mod host;
pub(crate) mod line;
pub(crate) mod point;
