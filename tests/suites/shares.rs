//! What a request may cost others: several mounts below one limit (R15), pages that are there already and one question
//! for each request (R20).

use std::time::{Duration, Instant};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, report},
    host::PLAIN,
    mount::Mount,
    people::{Place, history},
    service::{ctl, run},
    vm_tests,
};

const ENOSPC: Option<i32> = Some(28);

/// Mounts that each have some of a grant left: together more than the margin that nobody may touch.
const MANY: usize = 24;

/// What is left of a grant after one page was written.
const LEFT: u64 = 56 << 10;

vm_tests! { PLAIN;
    /// R15: mounts of one target do not take the same bytes: what others were granted and have not used counts as taken,
    /// so that all of them can use it without touching the limit.
    fn r15_mounts_of_one_target_do_not_take_the_same_bytes() {
        let target = Cg::make("/target").max(192 * MIB);
        let own = Cg::make("/target/own");
        let client = Cg::make("/client");
        let make = |name: &str| Mount::make(name, "/target", &["--set", "reserve=4096"]);
        let mounts: Vec<_> = (0..MANY).map(|i| make(&format!("m{i}"))).collect();
        let last = make("last");
        let mut innocent = Waiting::start(&own, &["hog", &(8 * MIB).to_string()]);
        let write = |mount: &Mount, bytes: u64| {
            report(&client, &["write", &mount.join("f"), &bytes.to_string(), "--append", "--block", "4096"])
        };
        for mount in &mounts {
            assert_eq!(write(mount, 4096).errno, None);
        }
        assert_eq!(write(&last, 1 << 30).errno, ENOSPC);
        let used_before = last.number("used_bytes");
        for mount in &mounts {
            assert_eq!(write(mount, LEFT).errno, None, "{} has it already", mount.name);
        }
        assert!(used_before > 64 * MIB, "the last one has filled the target: {used_before}");
        assert_eq!((target.event("max"), target.event("oom")), (0, 0), "the limit was touched");
        assert!(innocent.is_alive());
    }

    /// R20: what fallocate has made beyond a file's end is there: writing it in a full target kills nobody.
    fn r20_nobody_is_killed_for_pages_that_are_there() {
        let mut place = Place::make("/target", 64 * MIB, &[("own", 12)], &[]);
        let file = place.mount.join("prepared");
        std::fs::write(&file, "").unwrap();
        let _ = run(&["fallocate", "--keep-size", "--length", "24M", &file]).ok();
        let grown = Waiting::start(&Cg::at("/target/own"), &["hog", &(21 * MIB).to_string()]);
        let written = report(&Cg::at("/client"), &["write", &file, &(24 * MIB).to_string()]);
        assert_eq!((written.done, written.errno), (24 * MIB, None));
        drop(grown);
        place.assert_dead(&[]);
        assert_eq!((place.mount.number("kills"), history("m").len()), (0, 0));
    }

    /// R13, R20: one request asks once. One that went on after a kill, and then meets the limit again, is not kept waiting
    /// for an answer that never comes.
    fn r13_one_request_asks_once() {
        let mut place = Place::make("/target", 64 * MIB, &[("own", 3)], &["--set", "deadline=20s"]);
        let (client, mount) = (Cg::at("/client"), &place.mount);
        let [source, sink, filler] = ["source", "sink", "filler"].map(|name| mount.join(name));
        assert_eq!(report(&client, &["write", &source, &(8 * MIB).to_string()]).errno, None);
        assert_eq!(report(&client, &["write", &sink, "4096"]).errno, None);
        let _ = ctl(&["set", "m", "on-full=enospc"]).ok();
        assert_eq!(report(&client, &["write", &filler, &(1u64 << 30).to_string()]).errno, ENOSPC);
        let _ = ctl(&["set", "m", "on-full=kill"]).ok();
        let start = Instant::now();
        // The kernel hands over as much as the store takes at once: its 8 MiB are one request.
        let copied = report(&client, &["copy", &source, &sink]);
        let took = start.elapsed();
        println!("{} KiB in {took:?}", copied.done / 1024);
        assert_eq!(copied.errno, ENOSPC);
        assert!((512 << 10..8 * MIB).contains(&copied.done), "it went on after the kill, and met the limit again: {copied:?}");
        assert!(took < Duration::from_secs(18), "somebody waited for the deadline");
        place.assert_dead(&[0]);
        assert_eq!(place.mount.number("kills"), 1);
    }
}
