//! The selftest of the kernel series that never came ("deterministic charging of shared memory"), retold.

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{probe, report},
    host::PLAIN,
    mount::{Mount, leftovers},
    vm_tests,
    wait::until,
};

fn selftest(sparse: &str) {
    let target = Cg::make("/T").max(10 * MIB);
    let client = Cg::make("/client");
    let before_mount = target.current();
    assert!(before_mount < 4096 * 8, "an empty cgroup: {before_mount}");
    let mount = Mount::make("s", "/T", &["--sparse", sparse]);
    let _ = probe(&Cg::make("/warm"), &["read", "/etc/hostname"]).ok();
    let base = target.current();

    let shmem = target.stat("shmem");
    let small = report(&client, &["write", &mount.join("small"), "6"]);
    assert_eq!(small.done, 6);
    // The kernel brings these figures up to date every two seconds.
    until("a 6-byte file costs a page", || (target.stat("shmem") >= shmem + 4096).then_some(()));
    assert_eq!(mount.number("used_bytes"), 4096);

    let before = target.current();
    assert_eq!(report(&client, &["map", &mount.join("one"), &MIB.to_string()]).errno, None);
    assert!(target.current() >= before + MIB, "a mapped MiB is on the target's bill");
    std::fs::remove_file(mount.join("one")).unwrap();

    // An 11 MiB mapped write on a 10 MiB target.
    let big = probe(&client, &["map", &mount.join("big"), &(11 * MIB).to_string()]);
    match sparse {
        "reserve" => {
            assert_eq!(big.ok().out.trim(), r#"{"done":0,"errno":28}"#, "R12: ENOSPC at the ftruncate")
        }
        _ => {
            assert_eq!(big.status, 128 + 7, "R12: SIGBUS");
            assert_eq!(std::fs::metadata(mount.join("big")).unwrap().len(), 11 * MIB);
        }
    }
    std::fs::remove_file(mount.join("big")).unwrap();
    until("the pages are gone", || (target.current() < base + MIB).then_some(()));

    let endless = report(&client, &["write", &mount.join("endless"), &(1u64 << 40).to_string()]);
    assert_eq!(endless.errno, Some(28), "an endless write ends in ENOSPC");
    report(&client, &["verify", &mount.join("endless"), &endless.done.to_string()]);
    std::fs::remove_file(mount.join("endless")).unwrap();
    assert_eq!(target.event("oom_kill") + client.event("oom_kill"), 0);

    let place = mount.place.clone();
    mount.unmount();
    assert_eq!(leftovers("s", &place), Vec::<String>::new());
    target.remove().expect("R26: the target can be removed at once");
}

vm_tests! { PLAIN;
    /// R12 and R26 with `sparse = "reserve"`.
    fn r12_the_reference_s_selftest_reserve() {
        selftest("reserve");
    }

    /// R12 and R26 with `sparse = "sigbus"`.
    fn r12_the_reference_s_selftest_sigbus() {
        selftest("sigbus");
    }
}
