//! memcharge on the bus: names, proxies, wire types and errors, for the daemon and its clients alike.
//!
//! The files in `xml/` are the contract. The proxies are generated from them (`cargo xtask codegen`), the rest is
//! what XML cannot say: errors, the escaping of object paths, the row of `ListMounts`, the keys of an event.

mod error;
mod event;
// The types are the contract's.
#[allow(clippy::type_complexity)]
mod generated;
mod names;
mod wire;

pub use error::{Error, ErrorKind, describe};
pub use event::{EVENT_KEYS, WireError, event_details, read_event};
pub use generated::{
    manager::{
        ManagerProxy, MountNew, MountNewArgs, MountNewStream, MountRemoved, MountRemovedArgs,
        MountRemovedStream, PROPERTIES as MANAGER_PROPERTIES,
    },
    mount::{MountProxy, PROPERTIES as MOUNT_PROPERTIES},
    target::{PROPERTIES as TARGET_PROPERTIES, TargetProxy},
};
pub use names::{
    BUS_NAME, ERROR_PREFIX, MANAGER_INTERFACE, MANAGER_XML, MOUNT_INTERFACE, MOUNT_XML, NO_LIMIT, ROOT_PATH,
    TARGET_INTERFACE, TARGET_XML, mount_of_path, mount_path, target_id_of_path, target_path,
};
pub use wire::MountRow;
