//! The formats of cgroup files and of `/proc/meminfo`. Pure: text in, values out; `None` for what is malformed.

use memcharge_policy::{Bytes, events::Counters};

/// Counters in one file, at most. Linux 6.12 has seven.
const MAX_COUNTERS: usize = 64;

/// The longest name of a counter, in bytes. Those of Linux 6.12 have at most 15.
const MAX_NAME: usize = 64;

/// `memory.current`: a number.
pub fn parse_bytes(text: &str) -> Option<Bytes> {
    text.trim_end().parse().ok().map(Bytes)
}

/// `memory.max`, `memory.high`: a number, or "max" (`Some(None)`).
pub fn parse_limit(text: &str) -> Option<Option<Bytes>> {
    match text.trim_end() {
        "max" => Some(None),
        number => number.parse().ok().map(|n| Some(Bytes(n))),
    }
}

/// `cgroup.events` and other flat-keyed files: the number behind `key`.
pub fn parse_flat_key(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim_end().parse().ok())
}

/// `memory.events`, `memory.events.local`: all counters. `None` for a line that is not a name and a number, for a
/// name that comes twice, and for more than 64 of them.
pub fn parse_counters(text: &str) -> Option<Counters> {
    let mut counters = Counters::default();
    for line in text.lines() {
        let (name, number) = line.split_once(' ')?;
        let known = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if name.is_empty() || name.len() > MAX_NAME || !known || counters.0.len() == MAX_COUNTERS {
            return None;
        }
        if counters.0.insert(name.to_owned(), parse_count(number)?).is_some() {
            return None;
        }
    }
    Some(counters)
}

/// A decimal number without a sign: `str::parse` takes a plus.
fn parse_count(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `memory.stat`: cache of files on disk that the kernel can drop without writing anything.
pub fn parse_clean_cache(stat: &str) -> Option<Bytes> {
    let key = |key| parse_flat_key(stat, key);
    let cache = key("inactive_file")?.saturating_add(key("active_file")?);
    Some(Bytes(cache).minus(Bytes(key("file_dirty")?)).minus(Bytes(key("file_writeback")?)))
}

/// `memory.stat`: cache of files on disk.
pub fn parse_file_cache(stat: &str) -> Option<Bytes> {
    let key = |key| parse_flat_key(stat, key);
    Some(Bytes(key("inactive_file")?.saturating_add(key("active_file")?)))
}

/// `memory.stat`: what is charged as far as the kernel tells for what: private memory, files (shared memory among them),
/// the kernel's own, network buffers. Pages that have lost their file and live on in pipes are in none of these.
pub fn parse_accounted(stat: &str) -> Option<Bytes> {
    ["anon", "file", "kernel", "sock"]
        .into_iter()
        .try_fold(Bytes(0), |sum, key| Some(sum.plus(Bytes(parse_flat_key(stat, key)?))))
}

/// `cgroup.controllers`, `cgroup.subtree_control`: whether `controller` is among them.
pub fn has_controller(text: &str, controller: &str) -> bool {
    text.split_ascii_whitespace().any(|word| word == controller)
}

/// `MemAvailable` of `/proc/meminfo`.
pub fn parse_available(meminfo: &str) -> Option<Bytes> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

/// `/proc/PID/cgroup`: the process' cgroup v2 path.
pub fn parse_own_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux 6.12, after one kill.
    const EVENTS: &str = "low 0\nhigh 0\nmax 35\noom 1\noom_kill 1\noom_group_kill 0\n";

    #[test]
    fn limits() {
        assert_eq!(parse_limit("max\n"), Some(None));
        assert_eq!(parse_limit("4096\n"), Some(Some(Bytes(4096))));
        for bad in ["", "-1\n", "4096K\n", "maximum"] {
            assert_eq!(parse_limit(bad), None, "{bad}");
        }
        assert_eq!(parse_bytes("123\n"), Some(Bytes(123)));
        assert_eq!(parse_bytes("\n"), None);
    }

    #[test]
    fn flat_keys() {
        let text = "populated 1\nfrozen 0\n";
        assert_eq!(parse_flat_key(text, "populated"), Some(1));
        assert_eq!(parse_flat_key(text, "frozen"), Some(0));
        assert_eq!(parse_flat_key(text, "pop"), None);
        assert_eq!(parse_flat_key("oom_kill x\n", "oom_kill"), None);
    }

    #[test]
    fn counters_are_read_by_name() {
        let counters = parse_counters(EVENTS).unwrap();
        assert_eq!((counters.get("max"), counters.get("oom_kill"), counters.0.len()), (35, 1, 6));
        assert_eq!(parse_counters(""), Some(Counters::default()));
    }

    #[test]
    fn a_malformed_counter_is_an_error() {
        for bad in ["low\n", "low x\n", "low +1\n", "low -1\n", "low 1 2\n", "low 1\nlow 2\n", " 1\n", "\n"] {
            assert_eq!(parse_counters(bad), None, "{bad:?}");
        }
        assert_eq!(parse_counters(&format!("{} 1\n", "a".repeat(MAX_NAME + 1))), None);
        let many = |count| (0..count).map(|i| format!("c{i} 1\n")).collect::<String>();
        assert!(parse_counters(&many(MAX_COUNTERS)).is_some());
        assert_eq!(parse_counters(&many(MAX_COUNTERS + 1)), None);
    }

    #[test]
    fn clean_cache_is_what_needs_no_writing() {
        let stat = "file 99\nfile_dirty 3\nfile_writeback 2\ninactive_file 10\nactive_file 7\n";
        assert_eq!(parse_clean_cache(stat), Some(Bytes(12)));
        assert_eq!(parse_clean_cache("file 99\n"), None);
    }

    #[test]
    fn controllers_are_words() {
        assert!(has_controller("cpu io memory pids\n", "memory"));
        assert!(!has_controller("cpu io memoryx\n", "memory"));
        assert!(!has_controller("", "memory"));
    }

    #[test]
    fn meminfo() {
        let text = "MemTotal:        1015132 kB\nMemFree:          781232 kB\nMemAvailable:     800000 kB\n";
        assert_eq!(parse_available(text), Some(Bytes(800_000 << 10)));
        assert_eq!(parse_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn own_path() {
        assert_eq!(parse_own_path("0::/a.slice/x.service\n"), Some("/a.slice/x.service"));
        assert_eq!(parse_own_path("1:name=systemd:/x\n0::/y\n"), Some("/y"));
        assert_eq!(parse_own_path("4:memory:/x\n"), None);
    }
}
