//! Which kernels can serve a mount.

use std::{fmt, str::FromStr};

use crate::PolicyError;

/// The oldest kernel that can serve a mount: the first with FUSE passthrough and FUSE_NOTIFY_RESEND.
pub const MIN_KERNEL: KernelVersion = KernelVersion { major: 6, minor: 9 };

/// The first two numbers of a kernel release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// 6 in 6.12.9.
    pub major: u32,
    /// 12 in 6.12.9.
    pub minor: u32,
}

impl FromStr for KernelVersion {
    type Err = PolicyError;

    /// Parses what `uname -r` prints.
    fn from_str(release: &str) -> Result<Self, PolicyError> {
        let refuse = || PolicyError::Kernel(release.to_owned());
        let number = |part: Option<&str>| {
            let part = part?;
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse().ok()
        };
        let mut parts = release.split('.');
        let major = number(parts.next()).ok_or_else(refuse)?;
        let minor = number(parts.next()).ok_or_else(refuse)?;
        Ok(Self { major, minor })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for (release, major, minor) in
            [("6.12.9-amd64", 6, 12), ("6.9", 6, 9), ("6.9-rc1", 6, 9), ("5.10.0-30-cloud", 5, 10)]
        {
            assert_eq!(release.parse(), Ok(KernelVersion { major, minor }), "{release}");
        }
        for bad in ["", "6", "x.y", "linux 6.1"] {
            assert!(bad.parse::<KernelVersion>().is_err(), "{bad}");
        }
        assert!(KernelVersion { major: 6, minor: 1 } < MIN_KERNEL);
        assert!(KernelVersion { major: 6, minor: 12 } > MIN_KERNEL);
        assert!(KernelVersion { major: 7, minor: 0 } > MIN_KERNEL);
    }
}
