//! Time spans as systemd writes them (`systemd.time(7)`): "200ms", "5s", "1min 30s".

use std::time::Duration;

use crate::PolicyError;

const UNITS: [(&str, u64); 20] = [
    ("us", 1),
    ("usec", 1),
    ("µs", 1),
    ("ms", 1_000),
    ("msec", 1_000),
    ("s", 1_000_000),
    ("sec", 1_000_000),
    ("second", 1_000_000),
    ("seconds", 1_000_000),
    ("m", 60_000_000),
    ("min", 60_000_000),
    ("minute", 60_000_000),
    ("minutes", 60_000_000),
    ("h", 3_600_000_000),
    ("hr", 3_600_000_000),
    ("hour", 3_600_000_000),
    ("hours", 3_600_000_000),
    ("d", 86_400_000_000),
    ("day", 86_400_000_000),
    ("days", 86_400_000_000),
];

/// Parses a time span: numbers with units, in any order, added up; a number alone is seconds.
/// Resolution is one microsecond; units beyond days are refused.
pub fn parse_duration(text: &str) -> Result<Duration, PolicyError> {
    let refuse = || PolicyError::Duration(text.to_owned());
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refuse());
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(rest.len());
        let usec = match &rest[..letters] {
            "" => 1_000_000,
            unit => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, usec)| *usec).ok_or_else(refuse)?,
        };
        rest = rest[letters..].trim_start();
        total = number.checked_mul(usec).and_then(|part| total.checked_add(part)).ok_or_else(refuse)?;
    }
    Ok(Duration::from_micros(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_in_systemd_time() {
        for (text, usec) in [
            ("200ms", 200_000),
            ("5s", 5_000_000),
            ("5", 5_000_000),
            ("1min 30s", 90_000_000),
            ("1min30s", 90_000_000),
            ("2h", 7_200_000_000),
            ("15 s", 15_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(usec)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_span_is_refused() {
        for text in
            ["", " ", "ms", "5 parsecs", "1.5s", "-1s", "99999999999999999999", "5s,", "9999999999999999d"]
        {
            assert_eq!(parse_duration(text), Err(PolicyError::Duration(text.into())), "{text}");
        }
    }
}
