//! Fixed names of the bus, and the object paths of mounts and targets.

use memcharge_policy::MountName;
use zbus::zvariant::{ObjectPath, OwnedObjectPath};

/// The well-known name that the daemon owns on the system bus.
pub const BUS_NAME: &str = "org.memcharge.Memcharge1";

/// The object with the manager interface and the object manager.
pub const ROOT_PATH: &str = "/org/memcharge/Memcharge1";

/// The interface of the root object.
pub const MANAGER_INTERFACE: &str = "org.memcharge.Memcharge1.Manager";

/// The interface of a mount's object.
pub const MOUNT_INTERFACE: &str = "org.memcharge.Memcharge1.Mount";

/// The interface of a target's object.
pub const TARGET_INTERFACE: &str = "org.memcharge.Memcharge1.Target";

/// What the names of memcharge's own errors start with, without the last dot.
pub const ERROR_PREFIX: &str = "org.memcharge.Memcharge1.Error";

/// "No limit" where the bus carries a number of bytes or inodes.
pub const NO_LIMIT: u64 = u64::MAX;

/// The contract of [`MANAGER_INTERFACE`] as introspection XML.
pub const MANAGER_XML: &str = include_str!("../xml/org.memcharge.Memcharge1.Manager.xml");

/// The contract of [`MOUNT_INTERFACE`] as introspection XML.
pub const MOUNT_XML: &str = include_str!("../xml/org.memcharge.Memcharge1.Mount.xml");

/// The contract of [`TARGET_INTERFACE`] as introspection XML.
pub const TARGET_XML: &str = include_str!("../xml/org.memcharge.Memcharge1.Target.xml");

/// The object path of the mount of this name.
pub fn mount_path(name: &MountName) -> OwnedObjectPath {
    // An escaped name has only the bytes [A-Za-z0-9_] and is not empty, so the path is always valid.
    ObjectPath::from_string_unchecked(format!("{ROOT_PATH}/mount/{}", name.bus_escaped())).into()
}

/// The name of the mount whose object is at `path`; `None` where no mount can be.
pub fn mount_of_path(path: &str) -> Option<MountName> {
    let escaped = path.strip_prefix(ROOT_PATH)?.strip_prefix("/mount/")?;
    let name: MountName = unescape(escaped)?.parse().ok()?;
    // Each name has one path only.
    (name.bus_escaped() == escaped).then_some(name)
}

/// The object path of the target with this cgroup id.
pub fn target_path(id: u64) -> OwnedObjectPath {
    // The usual escape of the first digit N is `_3N`, since its byte is 0x3N; other digits stand as they are.
    ObjectPath::from_string_unchecked(format!("{ROOT_PATH}/target/_3{id}")).into()
}

/// The cgroup id of the target whose object is at `path`; `None` where no target can be.
pub fn target_id_of_path(path: &str) -> Option<u64> {
    let digits = path.strip_prefix(ROOT_PATH)?.strip_prefix("/target/_3")?;
    let id: u64 = digits.parse().ok()?;
    (id.to_string() == digits).then_some(id)
}

fn unescape(escaped: &str) -> Option<String> {
    let mut parts = escaped.split('_');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_valid_path() {
        for (name, path) in [
            ("models", "/org/memcharge/Memcharge1/mount/models"),
            ("a.b-c_d", "/org/memcharge/Memcharge1/mount/a_2eb_2dc_5fd"),
            ("0", "/org/memcharge/Memcharge1/mount/_30"),
        ] {
            let made = mount_path(&name.parse().unwrap());
            assert_eq!(made.as_str(), path);
            assert!(ObjectPath::try_from(made.as_str()).is_ok());
            assert_eq!(mount_of_path(path).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_target_s_path_has_its_id_escaped_as_names_are() {
        for id in [0, 7, 4711, u64::MAX] {
            let escaped = id.to_string().parse::<MountName>().unwrap().bus_escaped();
            let made = target_path(id);
            assert_eq!(made.as_str(), format!("{ROOT_PATH}/target/{escaped}"));
            assert!(ObjectPath::try_from(made.as_str()).is_ok());
            assert_eq!(target_id_of_path(made.as_str()), Some(id));
        }
    }

    #[test]
    fn other_paths_name_nothing() {
        for path in
            ["", "/", ROOT_PATH, "mount/a_", "mount/a_2", "mount/_zz", "mount/_61", "mount/", "mount/a/b"]
        {
            let path = if path.starts_with('m') { format!("{ROOT_PATH}/{path}") } else { path.to_owned() };
            assert_eq!(mount_of_path(&path), None, "{path}");
        }
        for last in ["", "4", "_3", "_3+4", "_304", "_399999999999999999999"] {
            assert_eq!(target_id_of_path(&format!("{ROOT_PATH}/target/{last}")), None, "{last}");
        }
    }
}
