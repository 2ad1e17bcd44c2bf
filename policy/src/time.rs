//! Time spans as systemd writes them (`systemd.time(7)`): "200ms", "5s", "1min 30s".

use std::time::Duration;

use crate::PolicyError;

const UNITS: [(&str, u64); 30] = [
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
    ("w", 604_800_000_000),
    ("week", 604_800_000_000),
    ("weeks", 604_800_000_000),
    ("M", 2_629_800_000_000),
    ("month", 2_629_800_000_000),
    ("months", 2_629_800_000_000),
    ("y", 31_557_600_000_000),
    ("year", 31_557_600_000_000),
    ("years", 31_557_600_000_000),
    // With the other of the two letters that look like this.
    ("μs", 1),
];

/// Parses a time span: numbers with units, in any order, added up; a number alone is seconds, and a number can have a
/// fraction. Resolution is one microsecond. `infinity` is refused: nothing here may take for ever.
pub fn parse_duration(text: &str) -> Result<Duration, PolicyError> {
    let refuse = || PolicyError::Duration(text.to_owned());
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refuse());
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = &rest[..end];
        rest = rest[end..].trim_start();
        let letters = rest.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(rest.len());
        let usec = match &rest[..letters] {
            "" => 1_000_000,
            unit => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, usec)| *usec).ok_or_else(refuse)?,
        };
        rest = rest[letters..].trim_start();
        total = times(number, usec).and_then(|part| total.checked_add(part)).ok_or_else(refuse)?;
    }
    Ok(Duration::from_micros(total))
}

/// A number, perhaps with a fraction, of a unit. Less than a microsecond is dropped.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // A sign is none of ours, and a number has digits on both sides of its point.
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    // A year has fewer than fifteen digits of microseconds: what comes after those is less than one.
    let fraction = &fraction[..fraction.len().min(15)];
    let tenths = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(unit) * fraction.parse::<u128>().ok()? / tenths;
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    whole.checked_add(u64::try_from(part).ok()?)
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
            ("0.5s", 500_000),
            ("1.5", 1_500_000),
            ("1.0000019s", 1_000_001),
            ("1w 1d", 691_200_000_000),
            ("1M", 2_629_800_000_000),
            ("0.5y", 15_778_800_000_000),
            ("3.99999999999999999999999999999999us", 3),
            ("7µs 3μs", 10),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(usec)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_span_is_refused() {
        for text in [
            "",
            " ",
            "ms",
            "5 parsecs",
            "1.s",
            ".5s",
            "1..5s",
            "1.5.5s",
            "-1s",
            "+1s",
            "1.-5s",
            "99999999999999999999",
            "5s,",
            "9999999999999999d",
            "infinity",
        ] {
            assert_eq!(parse_duration(text), Err(PolicyError::Duration(text.into())), "{text}");
        }
    }
}
