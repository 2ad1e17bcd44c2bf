//! Files that the kernel writes. Parts of them are chosen by tenants: names of mount points, of processes, of cgroups.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memcharge_cgroup::parse::{
    has_controller, parse_accounted, parse_available, parse_bytes, parse_clean_cache, parse_counters,
    parse_file_cache, parse_flat_key, parse_limit, parse_own_path,
};
use memcharge_policy::{
    events::{Counters, Delta},
    mountinfo::{MountEntry, binds, find_own, is_hidden, own_above, parse_mountinfo, topmost},
};

// memcharged is a program, and nobody depends on it.
#[path = "../../daemon/src/kill/smaps.rs"]
mod smaps;

/// All pairs of mounts are looked at: with more of them this would take its time, and find nothing new.
const MAX_MOUNTS: usize = 32;

fuzz_target!(|bytes: &[u8]| {
    // As it is read: names in it can be of any bytes.
    let text = &*String::from_utf8_lossy(bytes);
    events(text);
    numbers(text);
    if let Ok(mounts) = parse_mountinfo(text) {
        assert_eq!(mounts.len(), text.lines().count());
        about(&mounts[..mounts.len().min(MAX_MOUNTS)]);
    }
    let _ = smaps::sum_private(bytes);
});

fn events(text: &str) {
    let Some(counters) = parse_counters(text) else { return };
    let written: String = counters.0.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
    assert_eq!(parse_counters(&written).as_ref(), Some(&counters));
    for (name, count) in &counters.0 {
        assert_eq!(parse_flat_key(text, name), Some(*count), "{name}");
    }
    assert_eq!(counters.since(&counters), Delta::Unchanged);
    match counters.since(&Counters::default()) {
        Delta::Unchanged => assert!(counters.0.values().all(|count| *count == 0)),
        Delta::Grown(grown) => assert!(grown.0.iter().all(|(name, more)| counters.get(name) == *more)),
        Delta::Replaced => panic!("nothing was there before"),
    }
}

fn numbers(text: &str) {
    if let Some(Some(limit)) = parse_limit(text) {
        assert_eq!(parse_bytes(text), Some(limit));
    }
    if let Some(clean) = parse_clean_cache(text) {
        assert!(parse_file_cache(text).is_some_and(|all| clean <= all));
    }
    for key in ["populated", "frozen", "anon", "shmem"] {
        let _ = parse_flat_key(text, key);
    }
    let _ = (parse_accounted(text), parse_available(text), has_controller(text, "memory"));
    if let Some(path) = parse_own_path(text) {
        assert!(!path.contains('\n'));
    }
}

fn about(mounts: &[MountEntry]) {
    for mount in mounts {
        let top = topmost(mounts, &mount.place).expect("it is there itself");
        assert!(top.id == mount.id || is_hidden(mounts, mount));
        assert!(!is_hidden(mounts, top));
        let _ = (find_own(mounts, mount.id), own_above(mounts, &mount.place));
        for same_namespace in [false, true] {
            let found = binds(mount, mounts, mounts, same_namespace);
            assert!(found.iter().all(|bind| bind.device == mount.device));
        }
    }
}
