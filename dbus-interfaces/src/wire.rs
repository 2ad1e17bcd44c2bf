//! Types that cross the bus as they are.

use serde::{Deserialize, Serialize};
use zbus::zvariant::{OwnedObjectPath, Type};

/// One mount in the answer of `ListMounts`: `(sssto)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct MountRow {
    /// The mount's name.
    pub name: String,
    /// The mount point.
    pub place: String,
    /// Who pays, as it was configured.
    pub target: String,
    /// Bytes in files.
    pub used: u64,
    /// The mount's object.
    pub object: OwnedObjectPath,
}

impl From<(String, String, String, u64, OwnedObjectPath)> for MountRow {
    /// Takes a row as [`crate::ManagerProxy::list_mounts`] gives it.
    fn from((name, place, target, used, object): (String, String, String, u64, OwnedObjectPath)) -> Self {
        Self { name, place, target, used, object }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_signature_of_the_contract() {
        assert_eq!(Vec::<MountRow>::SIGNATURE.to_string(), "a(sssto)");
    }
}
