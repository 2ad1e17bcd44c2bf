//! What a mount is like while its target is not as it should be (R25, R33).

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, probe, report},
    host::PLAIN,
    mount::Mount,
    service::{ctl, run, sh},
    vm_tests,
    wait::until,
};
use serde_json::Value;

const ENOSPC: Option<i32> = Some(28);

const BUS: &str = "org.memcharge.Memcharge1";

/// What existed before the trouble.
const DATA: u64 = 8 * MIB;

struct Scene {
    target: Cg,
    own: Cg,
    client: Cg,
    mount: Mount,
    data: File,
    small: File,
}

/// A target below /parent, and a mount with a file of 8 MiB and a small one that is growing.
fn scene() -> Scene {
    Cg::make("/parent");
    let target = Cg::make("/parent/target").max(64 * MIB);
    let own = Cg::make("/parent/target/own");
    let client = Cg::make("/client");
    let mount = Mount::make("m", target.path(), &["--set", "deadline=5s"]);
    assert_eq!(report(&client, &["write", &mount.join("data"), &DATA.to_string()]).errno, None);
    // Nobody holds it open.
    assert_eq!(report(&client, &["write", &mount.join("closed"), &MIB.to_string()]).errno, None);
    // The rest of its grant is what a store may allocate without a look at the target.
    assert_eq!(report(&client, &["write", &mount.join("small"), "4096"]).errno, None);
    let open = |name| OpenOptions::new().read(true).write(true).open(mount.join(name)).unwrap();
    let (data, small) = (open("data"), open("small"));
    Scene { target, own, client, mount, data, small }
}

impl Scene {
    fn wait_for(&self, state: &str, part: &str) {
        let mut seen = String::new();
        let found = || {
            let properties = self.mount.properties();
            seen = format!("{} {}", properties["state"], properties["state_reason"]);
            let reason = properties["state_reason"].as_str().unwrap_or_default();
            (properties["state"] == state && reason.contains(part)).then_some(())
        };
        until(&format!("the mount is {state} ({part})"), found);
        println!("{seen}");
    }

    /// Nothing grows, neither by a page nor by a name; what is open can be read and written.
    fn assert_nothing_grows(&self) {
        let refused = |what: &str, result: std::io::Result<()>| {
            assert_eq!(result.map_err(|e| e.raw_os_error()), Err(ENOSPC), "{what}");
        };
        refused("a page", self.small.write_at(&[1; 4096], 4096).map(drop));
        refused("a MiB", self.data.write_at(&vec![1; MIB as usize], DATA).map(drop));
        refused("ftruncate", self.data.set_len(2 * DATA));
        refused("mkdir", fs::create_dir(self.mount.join("made")));
        assert_eq!((self.data.metadata().unwrap().len(), self.small.metadata().unwrap().len()), (DATA, 4096));
        self.assert_open_data();
    }

    fn assert_open_data(&self) {
        let mut data = vec![0; DATA as usize];
        self.data.read_exact_at(&mut data, 0).unwrap();
        assert!(data.iter().all(|byte| *byte != 0), "the pattern has no zeros");
        self.data.write_all_at(&data, 0).unwrap();
    }

    /// What exists can be opened, read and written.
    fn assert_what_exists_can_be_used(&self) {
        let file = self.mount.join("closed");
        assert_eq!(report(&self.client, &["verify", &file, &MIB.to_string()]).done, MIB);
        let over = report(&self.client, &["write", &file, &MIB.to_string()]);
        assert_eq!((over.done, over.errno), (MIB, None));
    }

    fn assert_grows(&self) {
        let grown = report(&self.client, &["write", &self.mount.join("more"), &(4 * MIB).to_string()]);
        assert_eq!((grown.done, grown.errno), (4 * MIB, None));
    }
}

/// What `memchargectl monitor` has said.
struct Monitor(Child);

impl Monitor {
    fn start() -> Self {
        let file = File::create("/tmp/monitor").unwrap();
        let mut command = Command::new("memchargectl");
        let child = command.args(["--json", "monitor"]).stdout(file).stdin(Stdio::null()).spawn().unwrap();
        // It listens once its match is known to the bus.
        until("the monitor listens", || {
            sh("busctl list --unique --no-legend | grep -c memchargectl")
                .out
                .trim()
                .parse::<u32>()
                .ok()
                .filter(|n| *n > 0)
        });
        Self(child)
    }

    fn text() -> String {
        fs::read_to_string("/tmp/monitor").unwrap()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The object of the target with this cgroup id.
fn object(id: u64) -> String {
    let id = id.to_string();
    format!("/org/memcharge/Memcharge1/target/_3{}{}", &id[..1], &id[1..])
}

/// A property of a target as busctl shows it in JSON.
fn target_property(id: u64, property: &str) -> Value {
    let words = [
        "busctl",
        "--json=short",
        "get-property",
        BUS,
        &object(id),
        "org.memcharge.Memcharge1.Target",
        property,
    ];
    let said: Value = serde_json::from_str(&run(&words).ok().out).unwrap();
    said["data"].clone()
}

/// Has the kernel kill a process of the target by a limit of that process' own cgroup.
fn oom_kill(own: &Cg) {
    own.write("memory.max", &(4 * MIB).to_string());
    own.write("memory.swap.max", "0");
    let killed = probe(own, &["hog", &(16 * MIB).to_string()]);
    assert_eq!(killed.status, 128 + 9, "{killed:?}");
}

vm_tests! { PLAIN;
    /// R25: a frozen target is shown as that, nobody who asks hangs, and it goes on where it was.
    fn r25_a_frozen_target() {
        let scene = scene();
        scene.target.write("cgroup.freeze", "1");
        let frozen = Instant::now();
        let waiting = {
            let (client, file) = (scene.client.clone(), scene.mount.join("waits"));
            std::thread::spawn(move || report(&client, &["write", &file, &MIB.to_string()]))
        };
        let state = || run(&["busctl", "--json=short", "get-property", BUS, "/org/memcharge/Memcharge1/mount/m", "org.memcharge.Memcharge1.Mount", "State"]).ok().out;
        until("the state is frozen", || state().contains("frozen").then_some(()));
        println!("frozen after {:?}", frozen.elapsed());
        for words in [&["status"][..], &["show", "m"], &["list"], &["--json", "history", "m"]] {
            let start = Instant::now();
            let said = ctl(words);
            println!("{words:?}: {} in {:?}\n{}{}", said.status, start.elapsed(), said.out, said.err);
            assert!(start.elapsed() < Duration::from_secs(4), "{words:?} took {:?}", start.elapsed());
            assert_eq!(said.status, 0, "{words:?}: {}", said.err);
        }
        assert!(ctl(&["status"]).ok().out.contains("frozen"));
        assert!(!waiting.is_finished(), "whoever uses the mount waits");
        scene.target.write("cgroup.freeze", "0");
        scene.wait_for("active", "");
        let written = waiting.join().unwrap();
        assert_eq!((written.done, written.errno), (MIB, None));
        scene.assert_grows();
        assert_eq!(scene.mount.number("denials"), 0);
    }

    /// A limit below what is in use: the kernel ends the target's own tasks, the mount keeps its data.
    fn r25_a_limit_below_use() {
        let scene = scene();
        let mut own = Waiting::start(&scene.own, &["hog", &(8 * MIB).to_string()]);
        let _monitor = Monitor::start();
        let id = scene.mount.number("target_id");
        assert_eq!(target_property(id, "Events")["oom_kill"], 0);
        scene.target.write("memory.max", &(8 * MIB).to_string());
        until("the kernel kills the target's own task", || (!own.is_alive()).then_some(()));
        assert_eq!(scene.target.event("oom_kill"), 1);
        scene.assert_nothing_grows();
        // Who asks for figures gets them, or an error: an answer of the store would be charged, too.
        let _ = ctl(&["status"]).ok();
        let state = scene.mount.properties()["state"].clone();
        assert!(state == "active" || state == "degraded", "{state}");
        assert_eq!(target_property(id, "Events")["oom_kill"], 1);
        until("MemoryEvent tells of the kill", || {
            let text = Monitor::text();
            text.lines().any(|line| line.contains(r#""oom_kill":1"#)).then_some(())
        });
        scene.target.write("memory.max", &(64 * MIB).to_string());
        scene.wait_for("active", "");
        scene.assert_what_exists_can_be_used();
        scene.assert_grows();
        assert_eq!((scene.mount.number("kills"), scene.target.event("oom_kill")), (0, 1));
        assert_eq!(scene.mount.number("denials"), 4, "as many as were refused above");
    }

    /// `memory.high` below what is in use: throttled, growth is refused instead of being stalled.
    fn r25_memory_high_below_use() {
        let scene = scene();
        scene.target.write("memory.high", &(6 * MIB).to_string());
        scene.wait_for("throttled", "/parent/target exceeds its memory.high");
        scene.assert_nothing_grows();
        scene.assert_what_exists_can_be_used();
        scene.target.write("memory.high", "max");
        scene.wait_for("active", "");
        scene.assert_grows();
    }

    /// The controller is taken away: nothing grows, and nobody else is charged; given back, all goes on.
    fn r25_the_memory_controller_is_taken_away() {
        let scene = scene();
        let parent = Cg::at("/parent");
        scene.target.write("cgroup.subtree_control", "-memory");
        parent.write("cgroup.subtree_control", "-memory");
        scene.wait_for("degraded", "memory controller");
        let before = parent.current();
        scene.assert_nothing_grows();
        scene.assert_what_exists_can_be_used();
        // The kernel charges in batches of 256 KiB a processor; the MiB above is not among it.
        assert!(parent.current() < before + 3 * MIB / 4, "the parent paid {} -> {}", before, parent.current());
        parent.write("cgroup.subtree_control", "+memory");
        scene.target.write("memory.max", &(64 * MIB).to_string());
        scene.wait_for("active", "");
        scene.assert_grows();
        assert!(scene.target.current() >= 4 * MIB, "growth is on the target's bill again");
        assert_eq!(scene.target.event("oom_kill"), 0);
    }

    /// The store is moved out of its cgroup: nothing grows on another's bill; moved back, all goes on.
    fn r25_the_store_is_moved_away() {
        let scene = scene();
        let other = Cg::make("/other");
        let (store, leaf) = (scene.mount.store(), scene.mount.leaf());
        other.add(store);
        scene.wait_for("degraded", "moved out of its cgroup /parent/target/memcharge-m");
        scene.assert_nothing_grows();
        scene.assert_what_exists_can_be_used();
        assert_eq!(other.stat("shmem"), 0);
        println!("the other cgroup is charged {} KiB", other.current() / 1024);
        leaf.add(store);
        scene.wait_for("active", "");
        scene.assert_grows();
        assert_eq!(other.stat("shmem"), 0);
    }

    /// The target is removed and made again: that is another cgroup, and it never pays.
    fn r25_the_target_is_removed_and_made_again() {
        let scene = scene();
        let other = Cg::make("/other");
        let (store, leaf) = (scene.mount.store(), scene.mount.leaf());
        assert_eq!(scene.own.remove().err().map(|e| e.to_string()), None);
        assert_eq!(leaf.remove().unwrap_err().raw_os_error(), Some(16), "the store is in it");
        other.add(store);
        leaf.remove().unwrap();
        scene.target.remove().unwrap();
        scene.wait_for("degraded", "was removed; nothing can grow");
        scene.assert_nothing_grows();
        scene.assert_what_exists_can_be_used();
        let again = Cg::make("/parent/target").max(64 * MIB);
        scene.wait_for("degraded", "what is at its path is another cgroup");
        scene.assert_nothing_grows();
        scene.assert_what_exists_can_be_used();
        assert_eq!((other.stat("shmem"), again.current()), (0, 0));
        let said = run(&["busctl", "get-property", BUS, &object(scene.mount.number("target_id")), "org.memcharge.Memcharge1.Target", "MemoryCurrent"]);
        let _ = said.failed(1);
        // Unless it is asked to.
        let said = ctl(&["retarget", &scene.mount.name, scene.target.path()]).failed(1);
        assert!(said.err.contains("future-only"), "{}", said.err);
        let _ = ctl(&["retarget", &scene.mount.name, scene.target.path(), "--mode", "future-only"]).ok();
        scene.wait_for("active", "");
        fs::write(scene.mount.join("new"), vec![1; 4 * MIB as usize]).unwrap();
        assert!(again.stat("shmem").abs_diff(4 * MIB) < MIB / 2, "{}", again.stat("shmem"));
        scene.assert_what_exists_can_be_used();
        drop((scene.data, scene.small));
        scene.mount.unmount();
        assert_eq!(again.children(), Vec::<String>::new());
        again.remove().unwrap();
    }

    /// R11: from a target to its mounts; the figures are the kernel's.
    fn r11_targets_on_the_bus() {
        let scene = scene();
        let second = Mount::make("second", scene.target.path(), &[]);
        let id = scene.mount.number("target_id");
        assert_eq!(second.number("target_id"), id);
        assert_eq!(target_property(id, "Path"), "/parent/target");
        assert_eq!(target_property(id, "Id"), id);
        assert_eq!(target_property(id, "MemoryMax"), 64 * MIB);
        let number = |property: &str| target_property(id, property).as_u64().unwrap();
        let current = scene.target.current();
        assert!(number("MemoryCurrent").abs_diff(current) < MIB, "{current}");
        assert!(number("Headroom").abs_diff(64 * MIB - current) < MIB);
        let names = ["high", "low", "max", "oom", "oom_group_kill", "oom_kill"];
        let events = target_property(id, "Events");
        assert_eq!(names.map(|name| events[name].as_u64()), [Some(0); 6]);
        let mounts = || target_property(id, "Mounts");
        let path = |name: &str| format!("/org/memcharge/Memcharge1/mount/{name}");
        assert_eq!(mounts(), Value::from(vec![path("m"), path("second")]));
        drop((scene.data, scene.small));
        scene.mount.unmount();
        assert_eq!(mounts(), Value::from(vec![path("second")]));
        second.unmount();
        until("the object is gone with the last mount", || {
            let tree = run(&["busctl", "tree", "--list", BUS]).ok().out;
            (!tree.contains(&object(id))).then_some(())
        });
    }

    /// R33: what happens while no daemon is there shows in the counters; what is told are the deltas since.
    fn r33_counters_after_a_restart() {
        let scene = scene();
        let id = scene.mount.number("target_id");
        let _ = run(&["systemctl", "kill", "-s", "KILL", "memcharged"]).ok();
        let _ = run(&["systemctl", "stop", "memcharged"]).ok();
        oom_kill(&scene.own);
        let _ = run(&["systemctl", "start", "memcharged"]).ok();
        until("the mount is found again", || (scene.mount.properties()["state"] == "active").then_some(()));
        assert_eq!(target_property(id, "Events")["oom_kill"], 1);
        let _monitor = Monitor::start();
        oom_kill(&scene.own);
        let told = until("the second kill is told", || {
            let text = Monitor::text();
            text.lines().find(|line| line.contains("oom_kill")).map(str::to_owned)
        });
        assert!(told.contains(r#""oom_kill":1"#), "one, and not two: {told}");
        assert_eq!(target_property(id, "Events")["oom_kill"], 2);
    }
}
