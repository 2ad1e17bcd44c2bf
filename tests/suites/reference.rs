//! What the kernel series did, row by row: memcharge does the good ones, and not the bad ones. The table of
//! docs/semantics.md names these tests, and those of other suites.

use std::{
    fs,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Report, Waiting, probe, report, report_while},
    history::{assert_recorded, events, limit, number, text},
    host::PLAIN,
    kernel_log::Mark,
    mount::Mount,
    service::{ctl, run, sh},
    vm_tests,
    wait::until,
};

const ENOSPC: Option<i32> = Some(28);

/// More than there is.
const ENDLESS: &str = "1099511627776";

struct Scene {
    target: Cg,
    own: Cg,
    client: Cg,
    mount: Mount,
}

/// A target with a limit and a mount, and a client outside; all warm.
fn scene(limit: u64, more: &[&str]) -> Scene {
    let target = Cg::make("/target").max(limit);
    let own = Cg::make("/target/own");
    let client = Cg::make("/client");
    let mount = Mount::make("m", "/target", more);
    warm(&mount);
    Scene { target, own, client, mount }
}

/// The first client brings the probe's own pages into the cache, the first file the mount's.
fn warm(mount: &Mount) {
    let _ = probe(&Cg::make("/warm"), &["write", &mount.join("warm"), "4096"]).ok();
    fs::remove_file(mount.join("warm")).unwrap();
}

impl Scene {
    /// Runs a probe as the client. How far it came, and by how much the target and the client have grown meanwhile.
    fn costs(&self, words: &[&str]) -> (Report, u64, u64) {
        let before = [&self.target, &self.client].map(Cg::current);
        let (report, after) =
            report_while(&self.client, words, || [&self.target, &self.client].map(Cg::current));
        let (target, client) = (after[0].saturating_sub(before[0]), after[1].saturating_sub(before[1]));
        println!("{}: target +{} KiB, client +{} KiB", words[0], target / 1024, client / 1024);
        (report, target, client)
    }

    fn assert_no_kill(&self) {
        assert_eq!((self.target.event("oom_kill"), self.client.event("oom_kill")), (0, 0));
        assert_eq!((self.target.event("oom"), self.mount.number("kills")), (0, 0));
        assert!(self.mount.store() > 0);
    }
}

/// Does something that must not wait for an arbitration.
fn at_once<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    println!("{what}: {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(1), "{what} took {:?}", start.elapsed());
    result
}

vm_tests! { PLAIN;
    /// 5 MiB cost the target 5 MiB, also where the client's own cgroup has no room for them.
    fn the_client_s_own_limit_does_not_matter() {
        let scene = scene(64 * MIB, &[]);
        let scene = Scene { client: scene.client.clone().max(4 * MIB), ..scene };
        let size = 5 * MIB;
        let (report, target, client) = scene.costs(&["write", &scene.mount.join("f"), &size.to_string()]);
        assert_eq!((report.done, report.errno), (size, None));
        assert!(target.abs_diff(size) < MIB / 4, "the target paid {target}");
        assert!(client < MIB / 2, "the client paid {client}");
        scene.assert_no_kill();
    }

    /// Inodes of files are the target's; what the kernel remembers for the client's side is the client's.
    fn a_thousand_empty_files() {
        let scene = scene(64 * MIB, &[]);
        let (report, target, client) = scene.costs(&["make", &scene.mount.place, "file", "1000"]);
        assert_eq!((report.done, report.errno), (1000, None));
        assert!((MIB / 2..3 * MIB).contains(&target), "the target paid {target}");
        assert!(client < 2 * MIB, "the client paid {client}");
        scene.assert_no_kill();
    }

    /// The index nodes above scattered pages are the target's, too.
    fn a_thousand_scattered_bytes() {
        let scene = scene(64 * MIB, &["--sparse", "sigbus"]);
        let (report, target, client) = scene.costs(&["scatter", &scene.mount.join("f"), "1000", &MIB.to_string()]);
        assert_eq!((report.done, report.errno), (1000, None));
        assert_eq!(scene.mount.number("used_bytes"), 1000 * 4096);
        assert!((4 * MIB..6 * MIB).contains(&target), "the target paid {target}");
        assert!(client < MIB / 2, "the client paid {client}");
        scene.assert_no_kill();
    }

    /// Nobody is killed for pages, whether the kill would have made the write succeed (8 MiB) or not (20 MiB).
    fn an_innocent_process_is_not_killed_for_a_write() {
        let scene = scene(16 * MIB, &[]);
        let mut innocent = Waiting::start(&scene.own, &["hog", &(8 * MIB).to_string()]);
        let log = Mark::now();
        for size in [20 * MIB, 8 * MIB] {
            let file = scene.mount.join("f");
            let written = report(&scene.client, &["write", &file, &size.to_string()]);
            println!("{} KiB of {} MiB went in", written.done / 1024, size / MIB);
            assert_eq!(written.errno, ENOSPC);
            assert_eq!(fs::metadata(&file).unwrap().len(), written.done);
            assert!(written.done < 8 * MIB, "{written:?}");
            fs::remove_file(&file).unwrap();
        }
        assert!(innocent.is_alive());
        scene.assert_no_kill();
        log.assert_silent();
    }

    /// R22: a task of the target grows by the reserve less 1 MiB while four clients write as fast as they can.
    fn r22_the_target_s_own_task_grows_while_clients_write() {
        let scene = scene(64 * MIB, &["--set", "reserve=16M"]);
        let other = Mount::make("other", "/target", &["--set", "deadline=5s", "--set", "reserve=16M"]);
        let log = Mark::now();
        let files = [scene.mount.join("a"), scene.mount.join("b"), other.join("c"), other.join("d")];
        let mut clients = files.each_ref().map(|file| Waiting::start(&scene.client, &["churn", file]));
        until("clients are refused", || (scene.mount.number("denials") > 0).then_some(()));
        for round in 0..6 {
            let mut own = Waiting::start(&scene.own, &["hog", &(15 * MIB).to_string()]);
            assert!(own.is_alive(), "round {round}");
            scene.assert_no_kill();
        }
        assert!(clients.iter_mut().all(Waiting::is_alive));
        log.assert_silent();
    }

    /// A limit on a common parent refuses the client, and kills it no more than anybody else.
    fn a_limit_on_a_common_parent_kills_nobody() {
        let parent = Cg::make("/parent").max(48 * MIB);
        Cg::make("/parent/target");
        let client = Cg::make("/parent/client");
        let mount = Mount::make("m", "/parent/target", &["--set", "deadline=5s"]);
        warm(&mount);
        let log = Mark::now();
        let mut bystander = Waiting::start(&client, &["hog", &(8 * MIB).to_string()]);
        let filled = report(&client, &["write", &mount.join("f"), ENDLESS]);
        assert_eq!(filled.errno, ENOSPC);
        assert!(filled.done > 16 * MIB, "{filled:?}");
        assert!(bystander.is_alive());
        assert_eq!((parent.event("oom_kill"), parent.event("oom")), (0, 0));
        let event = assert_recorded(&mount, 1).remove(0);
        assert_eq!((limit(&event), text(&event, "outcome")), (("ancestor", "/parent", "memory.max"), "enospc"));
        log.assert_silent();
    }

    /// A change of the target that is refused changes nothing.
    fn a_refused_change_of_target_does_not_switch() {
        let scene = scene(64 * MIB, &[]);
        let other = Cg::make("/other");
        let said = ctl(&["set", "m", "target=/other"]).failed(2);
        assert!(said.err.contains("retarget"), "{}", said.err);
        let object = "/org/memcharge/Memcharge1/mount/m";
        let call = ["busctl", "call", "org.memcharge.Memcharge1", object, "org.memcharge.Memcharge1.Mount"];
        let said = run(&[&call[..], &["SetPolicy", "a{sv}", "1", "Target", "s", "/other"]].concat()).failed(1);
        println!("{}", said.err.trim());
        let (report, target, _) = scene.costs(&["write", &scene.mount.join("f"), &(4 * MIB).to_string()]);
        assert_eq!((report.done, report.errno), (4 * MIB, None));
        // The kernel keeps up to 256 KiB charged in advance for each processor.
        assert!(target.abs_diff(4 * MIB) < MIB, "the target paid {target}");
        assert_eq!((scene.mount.properties()["target"].clone(), other.current()), ("/target".into(), 0));
    }

    /// R9: pages of a store are not swapped, so no access ever has to charge them again.
    fn r9_pages_are_not_swapped() {
        let scene = scene(64 * MIB, &[]);
        let _ = sh("fallocate -l 256M /swap && chmod 600 /swap && mkswap /swap && swapon /swap").ok();
        scene.target.write("memory.swap.max", "max");
        let file = scene.mount.join("f");
        assert_eq!(report(&scene.client, &["write", &file, &(16 * MIB).to_string()]).errno, None);
        let mut own = Waiting::start(&scene.own, &["hog", &(8 * MIB).to_string()]);
        let shmem = scene.target.stat("shmem");
        // What can be swapped is; a part of what is asked for cannot, and that is an error.
        let reclaim = sh("echo 40M swappiness=200 > /sys/fs/cgroup/target/memory.reclaim");
        let swapped: u64 = scene.target.read("memory.swap.current").trim().parse().unwrap();
        println!("{} KiB swapped: {}", swapped / 1024, reclaim.err.trim());
        assert!(swapped > 4 * MIB, "the target's own task is swapped: {swapped}");
        let of_the_leaf: u64 = scene.mount.leaf().read("memory.swap.current").trim().parse().unwrap();
        assert_eq!((of_the_leaf, scene.target.stat("shmem")), (0, shmem));
        // With the target full every page can still be read and written.
        assert_eq!(report(&scene.client, &["write", &scene.mount.join("g"), ENDLESS]).errno, ENOSPC);
        assert_eq!(report(&scene.client, &["verify", &file, &(16 * MIB).to_string()]).done, 16 * MIB);
        assert_eq!(report(&scene.client, &["map", &file, &(16 * MIB).to_string(), "--as-is"]).errno, None);
        assert!(own.is_alive());
        scene.assert_no_kill();
    }

    /// R31: the source in /proc/mounts and in mountinfo is the target, as it is accepted back.
    fn r31_the_source_of_the_mount_is_accepted_back() {
        let scene = scene(64 * MIB, &[]);
        for file in ["/proc/mounts", "/proc/self/mountinfo"] {
            let text = fs::read_to_string(file).unwrap();
            let line = text.lines().find(|line| line.contains(" /run/shared/m ")).unwrap();
            assert!(line.split(' ').any(|word| word == "/target"), "{file}: {line}");
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let line = mounts.lines().find(|line| line.contains(" /run/shared/m ")).unwrap();
        let again = Mount::make("again", line.split(' ').next().unwrap(), &[]);
        assert_eq!(again.number("target_id"), scene.mount.number("target_id"));
    }

    /// R22: pages that live on in pipes after their files are gone count against the cap.
    fn r22_the_cap_holds_against_pages_in_pipes() {
        let scene = scene(64 * MIB, &["--size", "8M"]);
        let leaf = scene.mount.leaf();
        let words = ["pipes", &scene.mount.place, &(48 * MIB).to_string()];
        let (held, charged) = report_while(&scene.client, &words, || {
            println!("used {} KiB", scene.mount.number("used_bytes") / 1024);
            leaf.current()
        });
        println!("the pipes hold {} KiB, the store's cgroup {} KiB", held.done / 1024, charged / 1024);
        assert_eq!(held.errno, ENOSPC);
        assert!(held.done > 4 * MIB, "{held:?}");
        assert!(charged <= 20 * MIB, "8 MiB and 12 MiB: {charged}");
        let event = until("the refusal is recorded", || events("m").pop());
        assert_eq!(limit(&event), ("mount", "", "size"));
        // With the pipes gone there is room again.
        until("the pages are given back", || {
            let again = report(&scene.client, &["write", &scene.mount.join("f"), &(7 * MIB).to_string()]);
            again.errno.is_none().then_some(())
        });
        scene.assert_no_kill();
    }

    /// One slow arbitration blocks neither reads, nor what exists, nor other files, nor other mounts.
    fn r13_while_one_arbitration_waits_all_others_go_on() {
        Cg::make("/other").max(64 * MIB);
        let scene = scene(64 * MIB, &["--on-full", "kill", "--set", "deadline=3s"]);
        let other = Mount::make("other", "/other", &[]);
        let [file, second, elsewhere] = [scene.mount.join("f"), scene.mount.join("g"), other.join("f")];
        for file in [&file, &second, &elsewhere] {
            fs::write(file, vec![1; 1 << 20]).unwrap();
        }
        let _ = run(&["systemctl", "kill", "--signal=STOP", "memcharged"]).ok();
        // Nobody answers: the request waits until its deadline. It holds only what it asks for, so there is room.
        let (client, large) = (scene.client.clone(), scene.mount.join("large"));
        let asked = Instant::now();
        let waiting = std::thread::spawn(move || report(&client, &["truncate", &large, &(96 * MIB).to_string()]));
        let started = until("the file that is to be large is there", || {
            fs::metadata(scene.mount.join("large")).ok().map(|_| Instant::now())
        });
        while started.elapsed() < Duration::from_secs(2) {
            assert_eq!(at_once("read", || fs::read(&file).unwrap().len()), 1 << 20);
            at_once("overwrite", || fs::OpenOptions::new().write(true).open(&file).unwrap().write_at(&[2; 1 << 16], 0)).unwrap();
            at_once("another file", || fs::write(&second, vec![3; 1 << 17])).unwrap();
            at_once("stat", || fs::metadata(&file)).unwrap();
            at_once("another mount", || fs::write(&elsewhere, vec![4; 1 << 17])).unwrap();
        }
        assert!(!waiting.is_finished(), "it was to wait all that time");
        let refused = waiting.join().unwrap();
        println!("refused after {:?}", asked.elapsed());
        assert_eq!((refused.done, refused.errno), (0, ENOSPC));
        let _ = run(&["systemctl", "kill", "--signal=CONT", "memcharged"]).ok();
        let event = assert_recorded(&scene.mount, 1).remove(0);
        assert_eq!((text(&event, "outcome"), text(&event, "reason")), ("enospc-timeout", "deadline"));
        let took = number(&event, "duration_usec");
        assert!((3_000_000..4_500_000).contains(&took), "{took}");
        scene.assert_no_kill();
    }
}
