//! Byte counts, and the page arithmetic that goes with them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::PolicyError;

/// Bytes in a page. memcharge runs on kernels with 4 KiB pages (x86-64, most arm64 distributions).
pub const PAGE_SIZE: u64 = 4096;

/// The end of the page that holds the last byte before `offset`: `offset` rounded up to a whole page, in bytes.
/// Saturates at the last page below 2^64.
pub fn pages_end(offset: u64) -> u64 {
    offset.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX - (PAGE_SIZE - 1))
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// The sum, at most 2^64 - 1.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least 0.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Rounded up to whole pages.
    #[must_use]
    pub fn page_ceil(self) -> Self {
        Self(pages_end(self.0))
    }

    /// Rounded down to whole pages.
    #[must_use]
    pub fn page_floor(self) -> Self {
        Self(self.0 - self.0 % PAGE_SIZE)
    }
}

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl FromStr for Bytes {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let refuse = || PolicyError::Size(text.to_owned());
        let (digits, shift) = match UNITS.iter().find(|(unit, _)| text.ends_with(*unit)) {
            Some((_, shift)) => (&text[..text.len() - 1], *shift),
            None => (text, 0),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refuse());
        }
        let number: u64 = digits.parse().map_err(|_| refuse())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(refuse)
    }
}

impl fmt::Display for Bytes {
    /// Writes the shortest form that is read back as the same number: `64M`, `1536K`, `1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("4K", 4096), ("16M", 16 << 20), ("2G", 2 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "M", "-1", "+1", "1.5G", "1 M", "10MB", "1m", "99999999999T", "0x10", "١"] {
            assert_eq!(text.parse::<Bytes>(), Err(PolicyError::Size(text.into())), "{text}");
        }
    }

    #[test]
    fn pages_end_rounds_up_and_saturates() {
        for (offset, end) in [(0, 0), (1, 4096), (4096, 4096), (4097, 8192), (u64::MAX, u64::MAX - 4095)] {
            assert_eq!(pages_end(offset), end);
        }
    }

    proptest! {
        #[test]
        fn display_is_read_back(n: u64) {
            prop_assert_eq!(Bytes(n).to_string().parse(), Ok(Bytes(n)));
        }
    }
}
