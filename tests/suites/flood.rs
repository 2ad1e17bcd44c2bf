//! Clients that send memcharged more than it can want, and never read what it answers.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    history::{assert_recorded, full_mount, refuse_each},
    host::{Needs, PLAIN},
    mount::Mount,
    service::{ctl, run, unit_property},
    vm_tests,
};

/// With Python; the image is that of the contract's suite.
const PYTHON: Needs = Needs { packages: &["python3-gi"], timeout: Duration::from_secs(600), ..PLAIN };

const FLOOD: &str = include_str!("flood/flood.py");
const FLOOD_PATH: &str = "/run/flood.py";

/// What the daemon may have had at most.
const MAX_MEMORY: u64 = 64 * MIB;

/// What another client waits at most: its calls stand behind those of the flood in the bus, which is emulated, as is all
/// else, on a machine that is busy. Some 30 s were seen there.
const ANSWER: Duration = Duration::from_secs(120);

/// A client that stays connected, with all that it has not read, until it is dropped.
struct Client {
    child: Child,
}

impl Client {
    /// Floods, as this user. Returns when all is sent, with what the client says; until then others are answered.
    fn flood(uid: u32, words: &[&str]) -> (Self, String) {
        let (reuid, regid) = (format!("--reuid={uid}"), format!("--regid={uid}"));
        let mut command = Command::new("setpriv");
        command.args([&reuid, &regid, "--clear-groups", "python3", "-B", FLOOD_PATH]).args(words);
        let started = Instant::now();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let told = thread::spawn(move || {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).map(|_| line)
        });
        let (mut count, mut longest) = (0, Duration::ZERO);
        while !told.is_finished() {
            longest = longest.max(others_are_answered());
            count += 1;
        }
        let said = told.join().unwrap().unwrap().trim().to_owned();
        println!(
            "uid {uid} {words:?}: {said} in {:?}; {count} other calls took {longest:?} at most",
            started.elapsed()
        );
        (Self { child }, said)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Another client is answered, and in time.
fn others_are_answered() -> Duration {
    let started = Instant::now();
    assert!(ctl(&["--json", "list"]).ok().out.contains("\"m\""));
    let took = started.elapsed();
    assert!(took < ANSWER, "another client waits {took:?}");
    took
}

/// The daemon and its mount before the flood.
struct Scene {
    mount: Mount,
    pid: String,
}

impl Scene {
    fn make() -> Self {
        fs::write(FLOOD_PATH, FLOOD).unwrap();
        let _ = run(&["useradd", "--uid", "1000", "somebody"]).ok();
        Cg::make("/t").max(64 * MIB);
        let mount = Mount::make("m", "/t", &[]);
        let pid = unit_property("memcharged", "MainPID");
        Self { mount, pid }
    }

    /// The daemon is the same, was never large, and its mount works.
    fn assert_unharmed(&self) {
        others_are_answered();
        assert_eq!(unit_property("memcharged", "MainPID"), self.pid, "memcharged was restarted");
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let resident = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
        let charged =
            Cg::at("/system.slice/memcharged.service").read("memory.peak").trim().parse::<u64>().unwrap();
        println!("memcharged had {resident} bytes at most, its cgroup {charged}");
        assert!(resident <= MAX_MEMORY, "memcharged had {resident} bytes");
        assert!(charged <= MAX_MEMORY, "its cgroup had {charged} bytes");
        fs::write(self.mount.join("f"), "works").unwrap();
        assert_eq!(fs::read_to_string(self.mount.join("f")).unwrap(), "works");
    }
}

vm_tests! { PYTHON;
    /// 50,000 calls of a user, none of whose replies is read, are no harm to anybody else; nor are those of root.
    fn calls_whose_replies_nobody_reads() {
        let scene = Scene::make();
        let mut connected = Vec::new();
        for (uid, mode, count, member) in [
            (1000, "quiet", "10000", "ListMounts"),
            (1000, "deaf", "30000", "GetManagedObjects"),
            (0, "deaf", "10000", "GetHistory"),
        ] {
            let (client, said) = Client::flood(uid, &[mode, count, member]);
            assert!(said.starts_with(&format!("sent {count} ")), "{said}");
            connected.push(client);
            scene.assert_unharmed();
        }
        drop(connected);
        scene.assert_unharmed();
    }

    /// Large replies that nobody reads do not take the room in the bus that others' replies need (the bus keeps 127 MiB of
    /// memcharged's), and who reads at last is answered again.
    fn large_replies_that_nobody_reads() {
        let scene = Scene::make();
        let client = Cg::make("/client");
        let full = full_mount("full", &client);
        refuse_each(&full, 2..=101);
        assert_recorded(&full, 100);
        for count in ["200", "3000"] {
            let (_client, said) = Client::flood(1000, &["paced", count, "GetHistory"]);
            let words: Vec<_> = said.split(' ').map(|word| word.parse().unwrap_or(0u64)).collect();
            assert!(said.starts_with("kept "), "{said}");
            assert!((4 * MIB..9 * MIB).contains(&words[1]), "the bus kept so many bytes: {said}");
            assert!(words[3] > 20 && words[5] > 0, "{said}");
            scene.assert_unharmed();
        }
    }

    /// Those who read their replies get one for each call, and the bus alone refuses some.
    fn calls_whose_replies_are_read() {
        let scene = Scene::make();
        for (uid, member) in [(1000, "Get"), (0, "GetHistory")] {
            let (_client, said) = Client::flood(uid, &["read", "3000", member]);
            assert!(said.starts_with("sent 3000 answered "), "{said}");
            let words: Vec<_> = said.split(' ').map(|word| word.parse().unwrap_or(0u32)).collect();
            assert!(words[3] > 0 && words[3] + words[5] == 3000, "{said}");
            scene.assert_unharmed();
        }
    }

    /// Options of 64 MiB do not get past the bus, whose largest message has 32; those do not get into the daemon.
    fn options_without_end() {
        let scene = Scene::make();
        let (_, said) = Client::flood(1000, &["read", "1", "options=67108864"]);
        assert_eq!(said, "disconnected");
        scene.assert_unharmed();
        for (uid, count, size) in [
            // The bus itself takes seconds to look at one of these.
            (1000, "1", "33553000"),
            (0, "50", "131072"),
            (1000, "50", "100000"),
        ] {
            let (_client, said) = Client::flood(uid, &["read", count, &format!("options={size}")]);
            assert_eq!(said, format!("sent {count} answered 0 refused {count}"));
            scene.assert_unharmed();
        }
    }
}
