//! The formats of cgroup files and of `/proc/meminfo`. Pure: text in, values out; `None` for what is malformed.

use memcharge_policy::Bytes;

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
