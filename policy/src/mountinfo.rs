//! `/proc/PID/mountinfo`: which mounts are memcharge's, without touching any of them.

/// The type that memcharge's file systems show.
pub const FS_TYPE: &str = "fuse.memcharge";

/// One line of `/proc/PID/mountinfo`, as far as memcharge needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountLine {
    /// The mount's id.
    pub id: u64,
    /// The file system's device number, "major:minor": the same for each mount of one file system.
    pub device: String,
    /// Where it is mounted.
    pub mounted_on: String,
    /// The file system's type.
    pub fs_type: String,
    /// The file system's source; memcharge shows the target there.
    pub source: String,
}

/// Parses one line; `None` for what is malformed.
pub fn parse_mount_line(line: &str) -> Option<MountLine> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let id = mount.next()?.parse().ok()?;
    let device = mount.nth(1)?.to_owned();
    let mounted_on = unescape(mount.nth(1)?);
    let mut file_system = file_system.split(' ');
    let fs_type = file_system.next()?.to_owned();
    let source = unescape(file_system.next()?);
    Some(MountLine { id, device, mounted_on, fs_type, source })
}

/// memcharge's mounts in a mountinfo text.
pub fn parse_own_mounts(text: &str) -> impl DoubleEndedIterator<Item = MountLine> {
    text.lines().filter_map(parse_mount_line).filter(|line| line.fs_type == FS_TYPE)
}

/// Undoes the kernel's octal escapes (`\040` for a space).
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = |b: &u8| matches!(b, b'0'..=b'7').then(|| u32::from(b - b'0'));
        let escaped = match (first, tail) {
            (b'\\', [a, b, c, after @ ..]) => {
                octal(a).zip(octal(b)).zip(octal(c)).map(|((a, b), c)| ((a * 64 + b * 8 + c) as u8, after))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, tail));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
25 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw
61 25 0:45 / /run/shared/a\\040b rw,nosuid,nodev shared:30 - fuse.memcharge models.slice rw,user_id=0,allow_other
62 25 0:46 / /mnt rw - fuse.other x rw
malformed
63 25 0:45 /sub /srv/x rw,relatime master:3 propagate_from:2 - fuse.memcharge models.slice rw
";

    #[test]
    fn own_mounts_are_found() {
        let own: Vec<_> = parse_own_mounts(TEXT).collect();
        assert_eq!(own.len(), 2);
        assert_eq!(own[0].id, 61);
        assert_eq!(own[0].device, "0:45");
        assert_eq!(own[0].mounted_on, "/run/shared/a b");
        assert_eq!(own[0].source, "models.slice");
        assert_eq!(own[1].mounted_on, "/srv/x");
    }

    #[test]
    fn escapes() {
        for (text, plain) in [("a\\040b", "a b"), ("\\134", "\\"), ("\\04", "\\04"), ("\\9", "\\9"), ("", "")]
        {
            assert_eq!(unescape(text), plain);
        }
    }
}
