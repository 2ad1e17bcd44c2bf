//! memcharge on the bus: names, proxies, wire types and errors, for the daemon and its clients alike.
//!
//! The files in `xml/` are the contract. The proxies are generated from them (`cargo xtask codegen`), the rest is
//! what XML cannot say: errors, the escaping of object paths, the row of `ListMounts`.

mod error;
// The types are the contract's.
#[allow(clippy::type_complexity)]
mod generated;
mod names;
mod wire;

pub use error::{Error, ErrorKind, describe};
pub use generated::{
    manager::{
        ManagerProxy, MountNew, MountNewArgs, MountNewStream, MountRemoved, MountRemovedArgs,
        MountRemovedStream, PROPERTIES as MANAGER_PROPERTIES,
    },
    mount::{MountProxy, PROPERTIES as MOUNT_PROPERTIES},
};
pub use names::{
    BUS_NAME, ERROR_PREFIX, MANAGER_INTERFACE, MANAGER_XML, MOUNT_INTERFACE, MOUNT_XML, NO_LIMIT, ROOT_PATH,
    mount_path,
};
pub use wire::MountRow;
