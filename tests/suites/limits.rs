//! At the limit (R12, R13, R15 to R19, R21, R22).

use std::time::{Duration, Instant};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, probe, report},
    host::PLAIN,
    kernel_log::Mark,
    mount::Mount,
    vm_tests,
    wait::until,
};

const ENOSPC: Option<i32> = Some(28);

struct Scene {
    target: Cg,
    client: Cg,
    innocent: Waiting,
    mount: Mount,
    log: Mark,
}

/// A target with a limit, a killable process in it, and a mount; all warm.
fn scene(limit: u64, innocent: u64, more: &[&str]) -> Scene {
    let target = Cg::make("/target").max(limit);
    let own = Cg::make("/target/own");
    let client = Cg::make("/client");
    let mount = Mount::make("m", "/target", more);
    let innocent = Waiting::start(&own, &["hog", &innocent.to_string()]);
    let _ = probe(&client, &["write", &mount.join("warm"), "4096"]).ok();
    std::fs::remove_file(mount.join("warm")).unwrap();
    Scene { target, client, innocent, mount, log: Mark::now() }
}

impl Scene {
    /// R15, R21: nobody was killed, and the kernel had nothing to say.
    fn assert_nobody_was_hurt(&mut self) {
        assert!(self.innocent.is_alive(), "the innocent process was killed");
        assert_eq!(self.target.event("oom_kill"), 0);
        assert_eq!(self.client.event("oom_kill"), 0);
        assert!(self.mount.store() > 0);
        self.log.assert_silent();
    }
}

fn fill(scene: &Scene, file: &str) -> u64 {
    let filled = report(&scene.client, &["write", &scene.mount.join(file), &(1u64 << 40).to_string()]);
    assert_eq!(filled.errno, ENOSPC, "{filled:?}");
    filled.done
}

vm_tests! { PLAIN;
    /// R12, R15, R21: an endless write ends in ENOSPC; every byte that was reported written is there.
    fn r12_an_endless_write_ends_in_enospc() {
        for sparse in ["reserve", "sigbus"] {
            let mut scene = scene(48 * MIB, 16 * MIB, &["--sparse", sparse]);
            let file = scene.mount.join("f");
            let filled = fill(&scene, "f");
            println!("{sparse}: {} MiB went in", filled / MIB);
            assert!(filled > 16 * MIB, "only {filled} bytes went in");
            assert_eq!(std::fs::metadata(&file).unwrap().len(), filled);
            report(&scene.client, &["verify", &file, &filled.to_string()]);
            // The kernel charges in batches, so a few more pages may fit by now.
            let again = report(&scene.client, &["write", &file, "16777216", "--append"]);
            assert_eq!(again.errno, ENOSPC);
            assert!(again.done < MIB, "{again:?}");
            let filled = filled + again.done;
            // What exists can be overwritten.
            let over = report(&scene.client, &["write", &file, &filled.to_string()]);
            assert_eq!((over.done, over.errno), (filled, None));
            assert!(scene.mount.number("denials") > 0);
            scene.assert_nobody_was_hurt();
            drop(scene.innocent);
            scene.mount.unmount();
        }
    }

    /// R15: data and metadata alike end in ENOSPC at the limit, and the innocent process lives.
    fn r15_metadata_at_the_limit() {
        let mut scene = scene(48 * MIB, 16 * MIB, &[]);
        std::fs::create_dir(scene.mount.join("d")).unwrap();
        fill(&scene, "f");
        // The target's own task takes what was left to it.
        let own = Cg::at("/target/own");
        let grown = Waiting::start(&own, &["hog", &(3 * MIB).to_string()]);
        for kind in ["file", "dir", "symlink", "xattr"] {
            let made = report(&scene.client, &["make", &scene.mount.join("d"), kind, "10000"]);
            println!("{kind}: {} made", made.done);
            assert_eq!(made.errno, ENOSPC, "{kind}: {made:?}");
        }
        scene.assert_nobody_was_hurt();
        // Reading, and giving memory back, still work.
        report(&scene.client, &["read", &scene.mount.join("f")]);
        std::fs::remove_file(scene.mount.join("f")).unwrap();
        drop(grown);
        let made = report(&scene.client, &["make", &scene.mount.join("d"), "file", "10"]);
        assert_eq!(made.errno, None, "R16: freed memory can be used again");
    }

    /// R15: 10,000 creates end in ENOSPC by themselves, by what the inodes cost.
    fn r15_inodes_fill_a_target() {
        let mut scene = scene(24 * MIB, 8 * MIB, &[]);
        let made = report(&scene.client, &["make", &scene.mount.place, "file", "100000"]);
        println!("{} files made", made.done);
        assert_eq!(made.errno, ENOSPC);
        assert!(made.done > 1000, "{made:?}");
        scene.assert_nobody_was_hurt();
    }

    /// R13: a refusal is quick, and R18: other files and other mounts go on.
    fn r13_r18_refusals_are_quick_and_stop_nobody_else() {
        let mut scene = scene(48 * MIB, 16 * MIB, &[]);
        let other_target = Cg::make("/target2").max(32 * MIB);
        let other = Mount::make("other", other_target.path(), &[]);
        fill(&scene, "f");
        // The kernel charges in batches, and its caches give way little by little: now and then a page fits, never a MiB.
        let append = || report(&scene.client, &["write", &scene.mount.join("f"), "1048576", "--append"]);
        let start = Instant::now();
        for _ in 0..30 {
            let appended = append();
            assert_eq!(appended.errno, ENOSPC, "{appended:?}");
        }
        // None of them waits for its deadline, which is 5 s here.
        assert!(start.elapsed() < Duration::from_secs(60), "30 tries took {:?}", start.elapsed());
        let written = report(&scene.client, &["write", &other.join("f"), &MIB.to_string()]);
        assert_eq!((written.done, written.errno), (MIB, None));
        let over = report(&scene.client, &["write", &scene.mount.join("f"), &MIB.to_string()]);
        assert_eq!(over.errno, None, "existing pages can be written");
        scene.assert_nobody_was_hurt();
    }

    /// R16: raising the limit, or freeing files, makes the next write succeed.
    fn r16_room_can_be_made() {
        let scene = scene(32 * MIB, 8 * MIB, &[]);
        fill(&scene, "f");
        let scene = Scene { target: scene.target.max(48 * MIB), ..scene };
        let more = report(&scene.client, &["write", &scene.mount.join("g"), &(8 * MIB).to_string()]);
        assert_eq!((more.done, more.errno), (8 * MIB, None));
        fill(&scene, "h");
        std::fs::remove_file(scene.mount.join("g")).unwrap();
        until("the freed memory can be used", || {
            let again = report(&scene.client, &["write", &scene.mount.join("i"), &(7 * MIB).to_string()]);
            (again.errno.is_none()).then_some(())
        });
    }

    /// R17: an ancestor's memory.max, and memory.high, count like the target's own limit.
    fn r17_ancestors_and_memory_high_count() {
        for (file, level) in [("memory.max", "/parent"), ("memory.high", "/parent"), ("memory.high", "/parent/target")] {
            let parent = Cg::make("/parent");
            let target = Cg::make("/parent/target").max(512 * MIB);
            let client = Cg::make("/client");
            let limited = Cg::at(level);
            limited.write(file, &(32 * MIB).to_string());
            let mount = Mount::make("m", target.path(), &[]);
            let start = Instant::now();
            let filled = report(&client, &["write", &mount.join("f"), &(1u64 << 40).to_string()]);
            println!("{file} of {level}: {} MiB in {:?}", filled.done / MIB, start.elapsed());
            assert_eq!(filled.errno, ENOSPC);
            assert!(filled.done > 16 * MIB && filled.done < 32 * MIB, "{filled:?}");
            assert_eq!(parent.event("oom_kill"), 0);
            assert_eq!(limited.event("high"), 0, "the store is never stalled by memory.high");
            limited.write(file, "max");
            mount.unmount();
        }
    }

    /// R17: a limit that is lowered to no less than what is in use gives ENOSPC, and kills nobody.
    fn r17_a_lowered_limit_gives_enospc() {
        let mut scene = scene(64 * MIB, 8 * MIB, &[]);
        report(&scene.client, &["write", &scene.mount.join("f"), &(16 * MIB).to_string()]);
        let scene_limit = scene.target.current() + 2 * MIB;
        scene.target.write("memory.max", &scene_limit.to_string());
        let refused = report(&scene.client, &["write", &scene.mount.join("f"), "4194304", "--append"]);
        assert_eq!(refused.errno, ENOSPC);
        scene.assert_nobody_was_hurt();
    }

    /// R18: a charger that catches SIGBUS can go on.
    fn r18_a_caught_sigbus_is_survived() {
        let mut scene = scene(32 * MIB, 8 * MIB, &["--sparse", "sigbus"]);
        let caught = probe(
            &scene.client,
            &["map-catch", &scene.mount.join("f"), &(64 * MIB).to_string(), "/tmp/other"],
        );
        assert_eq!(caught.ok().out.trim(), r#"{"caught":true,"went_on":true}"#);
        scene.assert_nobody_was_hurt();
    }

    /// R19: the mount's own cap holds, and is told apart from the target's limit by what is left.
    fn r19_the_cap_holds() {
        for sparse in ["reserve", "sigbus"] {
            let mut scene = scene(64 * MIB, 8 * MIB, &["--size", "10M", "--sparse", sparse]);
            let filled = fill(&scene, "f");
            assert_eq!(filled, 10 * MIB);
            assert_eq!(scene.mount.number("headroom_bytes"), 0);
            assert_eq!(scene.mount.number("used_bytes"), scene.mount.number("size_max"));
            assert!(scene.target.current() < 40 * MIB, "the target has room");
            scene.assert_nobody_was_hurt();
            drop(scene.innocent);
            scene.mount.unmount();
        }
    }

    /// What grows a file fails whole, and leaves nothing behind: ftruncate and fallocate under "reserve".
    fn failed_growth_is_rolled_back() {
        let mut scene = scene(48 * MIB, 16 * MIB, &[]);
        let file = scene.mount.join("f");
        report(&scene.client, &["write", &file, "10000"]);
        let used = scene.mount.number("used_bytes");
        for words in [["truncate", &file, "104857600"], ["fallocate", &file, "104857600"]] {
            assert_eq!(report(&scene.client, &words).errno, ENOSPC, "{words:?}");
            assert_eq!(std::fs::metadata(&file).unwrap().len(), 10000);
            assert_eq!(scene.mount.number("used_bytes"), used);
        }
        // A write far beyond the end fills the gap first, or fails whole.
        let far = report(&scene.client, &["write", &file, "4096", "--offset", "104857600"]);
        assert_eq!((far.done, far.errno), (0, ENOSPC));
        assert_eq!(scene.mount.number("used_bytes"), used);
        report(&scene.client, &["verify", &file, "10000"]);
        scene.assert_nobody_was_hurt();
    }

    /// R15: pages that a client frees behind the store's back are not a grant: writing them again passes the gate.
    fn r15_pages_removed_by_madvise_are_charged_anew() {
        for sparse in ["reserve", "sigbus"] {
            let mut scene = scene(48 * MIB, 8 * MIB, &["--sparse", sparse]);
            let (file, size) = (scene.mount.join("f"), (24 * MIB).to_string());
            assert_eq!(report(&scene.client, &["write", &file, &size]).errno, None);
            assert_eq!(report(&scene.client, &["remove-pages", &file]).errno, None);
            until("the pages are gone", || (scene.mount.number("used_bytes") < MIB).then_some(()));
            let own = Cg::at("/target/own");
            let mut grown = Waiting::start(&own, &["hog", &(24 * MIB).to_string()]);
            let again = report(&scene.client, &["write", &file, &size]);
            println!("{sparse}: {} KiB went in again", again.done / 1024);
            assert_eq!(again.errno, ENOSPC);
            let punch = ["fallocate", "--punch-hole", "--offset", "0", "--length", &size, &file];
            let _ = memcharge_tests::service::run(&punch);
            assert!(grown.is_alive());
            scene.assert_nobody_was_hurt();
            grown.end();
            assert_eq!(report(&scene.client, &["write", &file, &size]).errno, None);
            drop(scene.innocent);
            scene.mount.unmount();
        }
    }

    /// Under "sigbus" clients that touch holes race with a writer: the mount goes on growing afterwards.
    fn races_with_touches_of_holes_leave_a_working_mount() {
        let scene = scene(96 * MIB, 8 * MIB, &["--sparse", "sigbus"]);
        let (holes, file) = (scene.mount.join("holes"), scene.mount.join("f"));
        for _ in 0..3 {
            let _ = memcharge_tests::service::run(&["fallocate", "--length", "8M", &holes]).ok();
            let _ = memcharge_tests::service::run(&["fallocate", "--punch-hole", "--length", "8M", &holes]).ok();
            let writer = {
                let (client, file) = (scene.client.clone(), file.clone());
                std::thread::spawn(move || report(&client, &["write", &file, &(16 * MIB).to_string(), "--block", "4096"]))
            };
            for _ in 0..8 {
                let _ = probe(&scene.client, &["map", &holes, &(8 * MIB).to_string(), "--as-is"]);
            }
            let written = writer.join().unwrap();
            assert_eq!((written.done, written.errno), (16 * MIB, None));
            std::fs::remove_file(&file).unwrap();
        }
        let written = report(&scene.client, &["write", &file, &(32 * MIB).to_string()]);
        assert_eq!((written.done, written.errno), (32 * MIB, None));
    }

    /// R22: the target's own tasks can grow by the reserve although clients have filled the rest.
    fn r22_the_reserve_is_the_target_s_own() {
        let mut scene = scene(64 * MIB, 8 * MIB, &["--set", "reserve=16M"]);
        fill(&scene, "f");
        let own = Cg::at("/target/own");
        let mut grown = Waiting::start(&own, &["hog", &(15 * MIB).to_string()]);
        assert!(grown.is_alive());
        scene.assert_nobody_was_hurt();
    }

    /// R14: cache in the target gives way to a charge through the mount.
    fn r14_cache_is_reclaimed_first() {
        let target = Cg::make("/target").max(64 * MIB);
        let client = Cg::make("/client");
        let own = Cg::make("/target/own");
        let mount = Mount::make("m", "/target", &[]);
        let _ = memcharge_tests::service::sh("head -c 100M /dev/urandom > /var/tmp/cache; sync").ok();
        let _ = memcharge_tests::service::sh("echo 1 > /proc/sys/vm/drop_caches").ok();
        report(&own, &["read", "/var/tmp/cache"]);
        assert!(target.stat("file") - target.stat("shmem") > 32 * MIB, "the target is full of cache");
        let written = report(&client, &["write", &mount.join("f"), &(40 * MIB).to_string()]);
        assert_eq!((written.done, written.errno), (40 * MIB, None));
        assert_eq!(target.event("oom_kill"), 0);
    }
}
