//! A mount's name: the stem of its file, a part of its unit's name and of its D-Bus path.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::PolicyError;

const MAX_LEN: usize = 63;

/// A valid mount name: `[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MountName(String);

impl MountName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The systemd unit of this mount's store.
    pub fn unit(&self) -> String {
        format!("memcharge-store-{}.service", self.0)
    }

    /// The name as an element of a D-Bus object path: every byte but letters and digits becomes `_xx`, as systemd
    /// does it for unit names.
    pub fn bus_escaped(&self) -> String {
        self.0.bytes().fold(String::new(), |mut out, b| {
            if b.is_ascii_alphabetic() || (b.is_ascii_digit() && !out.is_empty()) {
                out.push(char::from(b));
            } else {
                out.push_str(&format!("_{b:02x}"));
            }
            out
        })
    }
}

impl FromStr for MountName {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let rest_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        match text.as_bytes() {
            [first, rest @ ..]
                if first.is_ascii_alphanumeric()
                    && rest.len() < MAX_LEN
                    && rest.iter().all(|b| rest_ok(*b)) =>
            {
                Ok(Self(text.to_owned()))
            }
            // Whoever is told of it need not get megabytes back.
            _ => Err(PolicyError::Name(text.chars().take(MAX_LEN + 1).collect())),
        }
    }
}

impl TryFrom<String> for MountName {
    type Error = PolicyError;

    fn try_from(text: String) -> Result<Self, PolicyError> {
        text.parse()
    }
}

impl From<MountName> for String {
    fn from(name: MountName) -> Self {
        name.0
    }
}

impl fmt::Display for MountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "0", "models", "a.b-c_d", &"x".repeat(63)] {
            assert!(good.parse::<MountName>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "_a", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert_eq!(bad.parse::<MountName>(), Err(PolicyError::Name(bad.into())));
        }
    }

    #[test]
    fn bus_escape_is_systemd_s() -> Result<(), PolicyError> {
        for (name, escaped) in
            [("models", "models"), ("a-b", "a_2db"), ("a_b", "a_5fb"), ("0a", "_30a"), ("a0", "a0")]
        {
            assert_eq!(name.parse::<MountName>()?.bus_escaped(), escaped);
        }
        Ok(())
    }
}
