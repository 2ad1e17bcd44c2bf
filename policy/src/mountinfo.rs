//! `/proc/PID/mountinfo`: what is mounted where. Pure; the mounts themselves are never touched.

/// How the kernel shows a mount of memcharge.
pub const FS_TYPE: &str = "fuse.memcharge";

/// One line of a mountinfo file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The mount's id in its namespace.
    pub id: u32,
    /// The id of the mount that it is on.
    pub parent: u32,
    /// Major and minor number of the file system.
    pub device: (u32, u32),
    /// The part of the file system that is mounted.
    pub root: String,
    /// The mount point.
    pub place: String,
    /// The peer group that it shares mounts with.
    pub shared: Option<u32>,
    /// Whether it receives mounts from elsewhere.
    pub is_slave: bool,
    /// The file system's type.
    pub fs_type: String,
}

/// Reads a mountinfo file; `Err` is the first line that is not as documented.
pub fn parse_mountinfo(text: &str) -> Result<Vec<MountEntry>, String> {
    text.lines().map(|line| parse_line(line).ok_or_else(|| line.to_owned())).collect()
}

fn parse_line(line: &str) -> Option<MountEntry> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut words = mount.split(' ');
    let id = words.next()?.parse().ok()?;
    let parent = words.next()?.parse().ok()?;
    let (major, minor) = words.next()?.split_once(':')?;
    let root = unescape(words.next()?);
    let place = unescape(words.next()?);
    let _mount_options = words.next()?;
    let (mut shared, mut is_slave) = (None, false);
    for field in words {
        if let Some(group) = field.strip_prefix("shared:") {
            shared = Some(group.parse().ok()?);
        }
        is_slave |= field.starts_with("master:");
    }
    let fs_type = file_system.split(' ').next()?.to_owned();
    let device = (major.parse().ok()?, minor.parse().ok()?);
    Some(MountEntry { id, parent, device, root, place, shared, is_slave, fs_type })
}

/// Undoes the kernel's `\ooo` for blanks, newlines and backslashes.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) if byte.is_ascii() => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// What is visible at `place`: the last mount there.
pub fn topmost<'a>(entries: &'a [MountEntry], place: &str) -> Option<&'a MountEntry> {
    entries.iter().rev().find(|entry| entry.place == place)
}

/// The mount of memcharge with this id, wherever it is by now.
pub fn find_own(entries: &[MountEntry], id: u32) -> Option<&MountEntry> {
    entries.iter().find(|entry| entry.id == id && entry.fs_type == FS_TYPE)
}

/// Whether another mount at the same place hides `entry`.
pub fn is_hidden(entries: &[MountEntry], entry: &MountEntry) -> bool {
    topmost(entries, &entry.place).is_some_and(|top| top.id != entry.id)
}

/// The mount of memcharge that `place` is in or at.
pub fn own_above<'a>(entries: &'a [MountEntry], place: &str) -> Option<&'a MountEntry> {
    entries.iter().find(|entry| entry.fs_type == FS_TYPE && is_within(place, &entry.place))
}

/// Whether `path` is `above` or below it, by components.
pub fn is_within(path: &str, above: &str) -> bool {
    std::path::Path::new(path).starts_with(above)
}

/// The mounts in `entries` (of any mount namespace) of the same file system as `own` (of `own_entries`), without
/// `own` itself and without its propagated copies: these go when `own` goes, the others are binds of somebody.
pub fn binds<'a>(
    own: &MountEntry,
    own_entries: &[MountEntry],
    entries: &'a [MountEntry],
    same_namespace: bool,
) -> Vec<&'a MountEntry> {
    let anchor = own_entries.iter().find(|entry| entry.id == own.parent);
    entries
        .iter()
        .filter(|entry| entry.device == own.device && !(same_namespace && entry.id == own.id))
        .filter(|entry| {
            let parent = entries.iter().find(|other| other.id == entry.parent);
            !anchor.zip(parent).is_some_and(|(anchor, parent)| is_copy(own, anchor, entry, parent))
        })
        .collect()
}

/// Whether `entry` on `parent` is where propagation from `anchor` puts a copy of `own`.
fn is_copy(own: &MountEntry, anchor: &MountEntry, entry: &MountEntry, parent: &MountEntry) -> bool {
    let receives = parent.is_slave || (parent.shared.is_some() && parent.shared == anchor.shared);
    let in_file_system = |mount: &MountEntry, on: &MountEntry| {
        let below = mount.place.strip_prefix(on.place.trim_end_matches('/'))?;
        Some(format!("{}{below}", on.root.trim_end_matches('/')))
    };
    let (here, there) = (in_file_system(own, anchor), in_file_system(entry, parent));
    anchor.shared.is_some()
        && receives
        && anchor.device == parent.device
        && entry.root == own.root
        && here.is_some()
        && here == there
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
25 22 0:24 / /run rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,mode=755
90 25 0:50 / /run/shared/a\\040b rw,nosuid,nodev,relatime shared:99 - fuse.memcharge models.slice rw,user_id=0
91 25 0:51 / /run/other rw shared:98 master:7 propagate_from:2 - fuse.memcharge x.slice rw
";

    fn host() -> Vec<MountEntry> {
        parse_mountinfo(HOST).unwrap()
    }

    #[test]
    fn lines_are_read_and_wrong_ones_refused() {
        let entries = host();
        assert_eq!(entries.len(), 4);
        assert_eq!(
            entries[2],
            MountEntry {
                id: 90,
                parent: 25,
                device: (0, 50),
                root: "/".into(),
                place: "/run/shared/a b".into(),
                shared: Some(99),
                is_slave: false,
                fs_type: "fuse.memcharge".into(),
            }
        );
        assert!(entries[3].is_slave && !entries[0].is_slave);
        for bad in [
            "x",
            "22 1 254:1 / / rw",
            "22 1 2541 / / rw - ext4 a rw",
            "22 1 254:1 / / rw shared:x - ext4 a rw",
        ] {
            assert_eq!(parse_mountinfo(bad), Err(bad.to_owned()));
        }
    }

    #[test]
    fn escapes() {
        for (escaped, plain) in
            [("a\\040b\\134", "a b\\"), ("\\01", "\\01"), ("\\", "\\"), ("\\777x", "\\777x"), ("é", "é")]
        {
            assert_eq!(unescape(escaped), plain);
        }
    }

    #[test]
    fn a_mount_is_found_by_its_id_and_known_to_be_hidden() {
        let mut entries = host();
        let own = find_own(&entries, 90).cloned().unwrap();
        assert_eq!(own.place, "/run/shared/a b");
        assert!(!is_hidden(&entries, &own));
        let other = entries.iter().find(|entry| entry.fs_type != FS_TYPE).unwrap();
        assert_eq!(find_own(&entries, other.id), None, "not one of ours");
        assert_eq!(own_above(&entries, "/run/shared/a b/c").map(|entry| entry.id), Some(90));
        assert_eq!(own_above(&entries, "/run/shared/a bc"), None);
        let hidden = MountEntry { id: 95, fs_type: "tmpfs".into(), ..entries[2].clone() };
        entries.push(hidden);
        assert!(is_hidden(&entries, &own));
        assert!(find_own(&entries, 90).is_some());
    }

    #[test]
    fn binds_are_told_from_propagated_copies() {
        let host = host();
        let own = &host[2];
        assert!(binds(own, &host, &host, true).is_empty());
        let service = "\
100 1 254:1 / / rw master:1 - ext4 /dev/vda rw
101 100 0:24 / /run rw master:5 - tmpfs tmpfs rw
102 101 0:50 / /run/shared/a\\040b rw master:99 - fuse.memcharge models.slice rw
103 100 0:50 / /dev/shm rw master:99 - fuse.memcharge models.slice rw
104 100 0:50 /sub /srv rw - fuse.memcharge models.slice rw
";
        let container = "\
200 1 0:70 / / rw - overlay overlay rw
201 200 0:50 / /run/shared/a\\040b rw master:99 - fuse.memcharge models.slice rw
";
        let ids = |text: &str| {
            let there = parse_mountinfo(text).unwrap();
            binds(own, &host, &there, false).iter().map(|entry| entry.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(service), [103, 104]);
        assert_eq!(ids(container), [201], "the same path, and no copy all the same");
    }
}
