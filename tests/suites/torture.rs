//! The torture itself: it passes on plain tmpfs, and finds what somebody else does to its files.

use std::{fs, time::Duration};

use memcharge_tests::{
    cgroup::Cg,
    host::{Needs, PLAIN},
    service::{run, sh},
    torture::{Torture, sum},
    vm_tests,
};

const PLACE: &str = "/srv/plain";

/// What is done to the files again and again (a line of shell, in the torture's directory), and what the message names.
const TAMPERING: [(&str, &str); 10] = [
    ("printf x | dd of=files/data-0 bs=1 seek=5000 conv=notrunc status=none", "files/data-0"),
    ("printf x >> files/data-1", "files/data-1"),
    ("rm -rf names/tree-0/a", "names/tree-0"),
    ("mkdir names/tree-1/foreign", "names/tree-1"),
    ("rm locks/lock", "locks/"),
    ("head -c 8 /dev/zero | dd of=locks/by-flock conv=notrunc status=none", "locks/by-flock"),
    ("tail -c 144 log/log >> log/log", "log/log"),
    ("truncate -s -1 log/log", "log/log"),
    ("printf x | dd of=opens/same-3 bs=1 seek=100 conv=notrunc status=none", "opens/same-3"),
    ("head -c 8 /dev/zero | dd of=opens/board conv=notrunc status=none", "opens/board"),
];

/// A dozen runs, one after another.
const RUNS: Needs = Needs { timeout: Duration::from_secs(600), ..PLAIN };

vm_tests! { RUNS;
    /// On plain tmpfs nothing is wrong; whatever is lost, doubled or changed there is found.
    fn the_torture_finds_what_is_wrong() {
        let client = Cg::make("/client");
        fs::create_dir_all(PLACE).unwrap();
        let _ = run(&["mount", "-t", "tmpfs", "tmpfs", PLACE]).ok();
        for more in [[].as_slice(), &["--sigbus"]] {
            let said = Torture::start(&client, PLACE, 10, 7, more).end().ok();
            println!("{}", said.out.trim());
            assert!(sum(&said)["operations"].as_u64().unwrap() > 1000);
            fs::remove_dir_all(format!("{PLACE}/torture")).unwrap();
        }
        for (line, names) in TAMPERING {
            let mut torture = Torture::start(&client, PLACE, 10, 7, &[]);
            while torture.is_alive() {
                std::thread::sleep(Duration::from_millis(100));
                let _ = sh(&format!("cd {PLACE}/torture && {line}"));
            }
            let said = torture.end().failed(1);
            println!("{line}: {}", said.err.trim());
            assert!(said.err.contains(names), "{line}: {}", said.err);
            fs::remove_dir_all(format!("{PLACE}/torture")).unwrap();
        }
    }
}
