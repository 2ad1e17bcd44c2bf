//! Conformance suites that nobody here wrote: a mount does what plain tmpfs in the same VM does.

use std::{collections::BTreeSet, fs, time::Duration};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    host::{Needs, PLAIN},
    mount::Mount,
    service::{run, sh},
    vm_tests,
};

const SUITES: Needs = Needs {
    programs: &["MEMCHARGE_PJDFSTEST", "MEMCHARGE_FSX"],
    timeout: Duration::from_secs(1200),
    ..PLAIN
};

const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["tests", "tests"]]
"#;

/// sendfile has no weight: from a descriptor that is open for writing, as all of fsx' are, it is refused.
pub(crate) const FSX: &str = r#"
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 1.0
mapread = 3.0
mapwrite = 3.0
read = 3.0
write = 3.0
truncate = 1.0
fsync = 0.2
posix_fallocate = 1.0
punch_hole = 1.0
posix_fadvise = 0.5
copy_file_range = 1.0
"#;

/// The names of the tests that fail, and how many ran.
fn pjdfstest(dir: &str) -> (BTreeSet<String>, usize) {
    fs::write("/tmp/pjdfstest.toml", PJDFSTEST).unwrap();
    let said = run(&["/mnt/files/MEMCHARGE_PJDFSTEST", "-c", "/tmp/pjdfstest.toml", "-p", dir]);
    let plain = said.out.replace("\u{1b}[", "\u{1}");
    let text: String = plain
        .split('\u{1}')
        .enumerate()
        .map(|(i, part)| match i {
            0 => part,
            _ => part.split_once('m').map_or(part, |(_, text)| text),
        })
        .collect();
    let named = |word: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.trim_end().ends_with(word));
        lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    };
    let (failed, passed): (BTreeSet<_>, _) = (named("FAILED").into_iter().collect(), named("ok"));
    println!("{}", text.lines().last().unwrap_or_default());
    assert!(passed.len() + failed.len() > 300, "too few tests ran:\n{text}\n{}", said.err);
    (failed, passed.len())
}

vm_tests! { SUITES;
    /// pjdfstest: no failure that plain tmpfs does not have.
    fn pjdfstest_fails_nowhere_that_tmpfs_passes() {
        let _ = sh("groupadd tests && useradd -g tests tests").ok();
        fs::create_dir_all("/srv/plain").unwrap();
        let _ = run(&["mount", "-t", "tmpfs", "tmpfs", "/srv/plain"]).ok();
        Cg::make("/t").max(256 * MIB);
        for sparse in ["reserve", "sigbus"] {
            let mount = Mount::make("m", "/t", &["--set", "options=suid,dev", "--sparse", sparse]);
            let (on_tmpfs, tmpfs_passed) = pjdfstest("/srv/plain");
            let (on_mount, mount_passed) = pjdfstest(&mount.place);
            println!("{sparse}: tmpfs: {tmpfs_passed} passed, failed: {on_tmpfs:?}");
            println!("{sparse}: memcharge: {mount_passed} passed, failed: {on_mount:?}");
            let worse: Vec<_> = on_mount.difference(&on_tmpfs).collect();
            // Under "reserve" a file of 2 GiB takes 2 GiB, which this target does not have: ENOSPC, as documented.
            let known: &[&str] = if sparse == "reserve" { &["open::interact_2gb"] } else { &[] };
            assert_eq!(worse, known, "{sparse}");
            mount.unmount();
        }
    }

    /// fsx: 20,000 operations with mapped I/O, punched holes and copy_file_range. Under "sigbus" a mapped access to a
    /// hole is a SIGBUS, so there without mapped I/O.
    fn fsx_finds_no_wrong_byte() {
        Cg::make("/t").max(128 * MIB);
        for (sparse, seed) in [("reserve", "4711"), ("sigbus", "815")] {
            let mount = Mount::make("m", "/t", &["--sparse", sparse]);
            let weights = match sparse {
                "sigbus" => FSX.replace("mapread = 3.0", "mapread = 0.0").replace("mapwrite = 3.0", "mapwrite = 0.0"),
                _ => FSX.to_owned(),
            };
            fs::write("/tmp/fsx.toml", weights).unwrap();
            let said = run(&["/mnt/files/MEMCHARGE_FSX", "-N", "12000", "-S", seed, "-f", "/tmp/fsx.toml", "-P", "/tmp",
                &mount.join("fsx")]);
            println!("{sparse}: {}", said.out.lines().last().unwrap_or_default());
            assert_eq!(said.status, 0, "{}\n{}", said.out, said.err);
            assert_eq!(mount.number("denials"), 0);
            mount.unmount();
        }
    }
}
