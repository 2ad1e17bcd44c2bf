//! Fixed names of the bus, and the object path of a mount.

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

/// What the names of memcharge's own errors start with, without the last dot.
pub const ERROR_PREFIX: &str = "org.memcharge.Memcharge1.Error";

/// "No limit" where the bus carries a number of bytes or inodes.
pub const NO_LIMIT: u64 = u64::MAX;

/// The contract of [`MANAGER_INTERFACE`] as introspection XML.
pub const MANAGER_XML: &str = include_str!("../xml/org.memcharge.Memcharge1.Manager.xml");

/// The contract of [`MOUNT_INTERFACE`] as introspection XML.
pub const MOUNT_XML: &str = include_str!("../xml/org.memcharge.Memcharge1.Mount.xml");

/// The object path of the mount of this name.
pub fn mount_path(name: &MountName) -> OwnedObjectPath {
    // An escaped name has only the bytes [A-Za-z0-9_] and is not empty, so the path is always valid.
    ObjectPath::from_string_unchecked(format!("{ROOT_PATH}/mount/{}", name.bus_escaped())).into()
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
        }
    }
}
