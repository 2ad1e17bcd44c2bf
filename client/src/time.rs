//! Moments and time spans as text. Times of day are UTC: each one that is printed ends in "Z".

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memcharge_policy::parse_duration;

use crate::error::ClientError;

const DAY: u64 = 86_400;
const USEC: u64 = 1_000_000;

/// Days from 0000-03-01, where the calendar's four hundred years begin, to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_468;
const DAYS_IN_400_YEARS: u64 = 146_097;

/// From when on something is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Duration),
    /// At this moment, in microseconds since 1970.
    At(u64),
}

impl Since {
    /// In microseconds since 1970; what is longer ago than that is 0.
    pub(crate) fn resolve(self, now_usec: u64) -> u64 {
        match self {
            Self::Ago(span) => now_usec.saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
            Self::At(usec) => usec,
        }
    }
}

/// Now, in microseconds since 1970.
pub(crate) fn now() -> Result<u64, ClientError> {
    let span = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| ClientError::Clock)?;
    u64::try_from(span.as_micros()).map_err(|_| ClientError::Clock)
}

/// Reads "10min" (ago), "@SECONDS" since 1970, or a UTC time `YYYY-MM-DD[ HH:MM[:SS]]`, with or without a "Z".
pub(crate) fn parse_since(text: &str) -> Result<Since, String> {
    let refuse = || {
        "give a time span such as \"10min\", \"@SECONDS\" since 1970, or a UTC time as in \"2025-06-30 14:05\"".to_owned()
    };
    let at = |seconds: u64| seconds.checked_mul(USEC).map(Since::At);
    if let Some(seconds) = text.strip_prefix('@') {
        return number(seconds).and_then(at).ok_or_else(refuse);
    }
    if let Ok(span) = parse_duration(text) {
        return Ok(Since::Ago(span));
    }
    parse_utc(text.strip_suffix('Z').unwrap_or(text)).and_then(at).ok_or_else(refuse)
}

fn parse_utc(text: &str) -> Option<u64> {
    let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
    let date = numbers(date, '-', &[4, 2, 2])?;
    let [year, month, day] = date[..] else { return None };
    let time = numbers(time, ':', &[2, 2, 2])?;
    let (hour, minute, second) = match time[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 || !(1..=12).contains(&month) || year < 1970 {
        return None;
    }
    let days = days_of(year, month, day);
    // A day that the month does not have comes back as one of the next month.
    (civil_of(days) == (year, month, day)).then_some(days * DAY + hour * 3600 + minute * 60 + second)
}

/// Numbers of these widths; the last ones may be missing.
fn numbers(text: &str, separator: char, widths: &[usize]) -> Option<Vec<u64>> {
    let parts: Vec<&str> = text.split(separator).collect();
    let fit =
        parts.len() <= widths.len() && parts.iter().zip(widths).all(|(part, width)| part.len() == *width);
    if fit { parts.into_iter().map(number).collect() } else { None }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// A moment in UTC, as in "2025-06-30 14:05:00Z".
pub(crate) fn utc(usec: u64) -> String {
    let seconds = usec / USEC;
    let (year, month, day) = civil_of(seconds / DAY);
    let rest = seconds % DAY;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// How long ago a moment was, or the moment itself where the clock says that it is still to come.
pub(crate) fn ago(usec: u64, now_usec: u64) -> String {
    let Some(span) = now_usec.checked_sub(usec) else { return format!("at {}", utc(usec)) };
    match span / USEC {
        seconds @ 0..60 => format!("{seconds} s ago"),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..DAY => format!("{} h ago", seconds / 3600),
        seconds => format!("{} d ago", seconds / DAY),
    }
}

/// A time span for people: "123 us", "12.3 ms", "1.2 s".
pub(crate) fn span(usec: u64) -> String {
    match usec {
        0..1000 => format!("{usec} us"),
        1000..USEC => format!("{}.{} ms", usec / 1000, usec / 100 % 10),
        _ => format!("{}.{} s", usec / USEC, usec / 100_000 % 10),
    }
}

/// The days since 1970-01-01 of a date of the Gregorian calendar. Years begin in March here, so that a leap day is the
/// last of its year.
fn days_of(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day;
    let day_of_era = year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + day_of_year;
    // The first day of a month is 1, and the days are counted from 0.
    (year / 400 * DAYS_IN_400_YEARS + day_of_era).saturating_sub(DAYS_BEFORE_1970 + 1)
}

/// The year, month and day that are `days` after 1970-01-01.
fn civil_of(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE_1970;
    let day_of_era = days % DAYS_IN_400_YEARS;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (DAYS_IN_400_YEARS - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = days / DAYS_IN_400_YEARS * 400 + year_of_era;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (1_735_689_599, "2024-12-31 23:59:59Z"),
            (1_735_689_600, "2025-01-01 00:00:00Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
            (253_402_300_799, "9999-12-31 23:59:59Z"),
        ] {
            assert_eq!(utc(seconds * USEC + 999_999), text);
            assert_eq!(parse_since(text), Ok(Since::At(seconds * USEC)), "what is printed is accepted");
        }
        assert_eq!(utc(u64::MAX), "586524-01-19 08:01:49Z");
    }

    #[test]
    fn every_day_is_read_back() {
        for days in 0..400_000 {
            let (year, month, day) = civil_of(days);
            assert_eq!(days_of(year, month, day), days, "{year}-{month}-{day}");
        }
    }

    #[test]
    fn since_takes_spans_seconds_and_dates() {
        for (text, since) in [
            ("10min", Since::Ago(Duration::from_secs(600))),
            ("1h 30min", Since::Ago(Duration::from_secs(5400))),
            ("@1700000000", Since::At(1_700_000_000 * USEC)),
            ("2025-01-01", Since::At(1_735_689_600 * USEC)),
            ("2025-01-01 01:02", Since::At((1_735_689_600 + 3720) * USEC)),
            ("2025-01-01T01:02:03Z", Since::At((1_735_689_600 + 3723) * USEC)),
        ] {
            assert_eq!(parse_since(text), Ok(since), "{text}");
        }
        for text in [
            "",
            "@",
            "@-1",
            "@+1",
            "@99999999999999999999",
            "yesterday",
            "2025-1-1",
            "2025-02-29",
            "2025-13-01",
            "2025-00-01",
            "2025-01-00",
            "2025-01-32",
            "1969-12-31",
            "2025-01-01 24:00",
            "2025-01-01 10",
            "2025-01-01 10:60",
            "2025-01-01 10:00:60",
            "2025-01-01 10:00:00:00",
            "+025-01-01",
        ] {
            assert!(parse_since(text).is_err(), "{text}");
        }
        assert_eq!(Since::Ago(Duration::from_secs(1)).resolve(3 * USEC), 2 * USEC);
        assert_eq!(Since::Ago(Duration::from_secs(5)).resolve(3 * USEC), 0);
    }

    #[test]
    fn spans_for_people() {
        for (usec, text) in
            [(0, "0 us"), (999, "999 us"), (1000, "1.0 ms"), (200_990, "200.9 ms"), (1_250_000, "1.2 s")]
        {
            assert_eq!(span(usec), text);
        }
        for (seconds, text) in [(0, "0 s ago"), (119, "1 min ago"), (7200, "2 h ago"), (90_000, "1 d ago")] {
            assert_eq!(ago(0, seconds * USEC), text);
        }
        assert_eq!(ago(USEC, 0), "at 1970-01-01 00:00:01Z");
    }
}
