//! What memcharge does not change (R35), although the client has a mount in place of its /dev/shm.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    host::{Needs, PLAIN},
    mount::Mount,
    vm_tests,
};

const STRESS: Needs = Needs { packages: &["stress-ng"], ..PLAIN };

const SIZE: u64 = 32 * MIB;

/// mmap(MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE).
const ANONYMOUS: &str = "syscall(9, 0, $size, 3, 0x8021, -1, 0) != -1 or die $!;";

const MEMFD: &str = r#"
    my $name = "memory";
    open(my $file, "+<&=", syscall(319, $name, 0)) or die $!;
    syswrite($file, "x" x $size) == $size or die $!;
"#;

/// Like `ANONYMOUS`, and MAP_HUGETLB.
const HUGETLB: &str = "syscall(9, 0, $size, 3, 0x48021, -1, 0) != -1 or die $!;";

struct Scene {
    target: Cg,
    mount: Mount,
}

fn scene() -> Scene {
    let target = Cg::make("/target").max(256 * MIB);
    let mount = Mount::make("m", target.path(), &[]);
    Scene { target, mount }
}

/// Figures in bytes, or by how much they grew.
#[derive(Debug, Default, Clone, Copy)]
struct Growth {
    target: u64,
    client: u64,
    /// Of the client.
    shmem: u64,
}

impl Growth {
    fn since(self, before: Self) -> Self {
        Self {
            target: self.target.saturating_sub(before.target),
            client: self.client.saturating_sub(before.client),
            shmem: self.shmem.saturating_sub(before.shmem),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            target: self.target.max(other.target),
            client: self.client.max(other.client),
            shmem: self.shmem.max(other.shmem),
        }
    }
}

/// Within what the kernel's per-processor counters and a few index nodes come to.
fn is_near(bytes: u64, expected: u64) -> bool {
    bytes.abs_diff(expected) < MIB
}

impl Scene {
    /// Starts a program in `client`, with the mount in place of its /dev/shm.
    fn start(&self, client: &Cg, words: &[&str]) -> Child {
        let script =
            r#"echo 0 > "/sys/fs/cgroup$0/cgroup.procs" && mount --bind "$1" /dev/shm && shift && exec "$@""#;
        let shell = ["--mount", "bash", "-c", script, client.path(), &self.mount.place];
        let mut command = Command::new("unshare");
        command.args(shell).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn now(&self, client: &Cg) -> Growth {
        Growth { target: self.target.current(), client: client.current(), shmem: client.stat("shmem") }
    }

    /// What grows while a Perl program holds memory, in a cgroup of its own.
    fn hold(&self, name: &str, program: &str) -> Growth {
        let client = Cg::make(name);
        let before = self.now(&client);
        let program = format!(r#"my $size = {SIZE}; {program} $| = 1; print "ready\n"; <STDIN>;"#);
        let mut child = self.start(&client, &["perl", "-e", &program]);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{name}");
        let growth = self.now(&client).since(before);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "{name}");
        println!("{name}: {growth:?}");
        growth
    }

    /// What grows at most while stress-ng runs, in a cgroup of its own.
    fn stress(&self, name: &str, words: &[&str]) -> Growth {
        let client = Cg::make(name);
        let before = self.now(&client);
        let mut child = self.start(&client, &[&["stress-ng", "--timeout", "6"], words].concat());
        let mut peak = Growth::default();
        let status = loop {
            peak = peak.max(self.now(&client).since(before));
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            thread::sleep(Duration::from_millis(20));
        };
        println!("{name}: {status}, {peak:?}");
        assert!(status.success(), "{words:?}: {status}");
        peak
    }

    /// What a stressor makes grow, without the anonymous shared memory that any stress-ng has.
    fn stressor(&self, name: &str, words: &[&str]) -> Growth {
        let idle = self.stress("/idle", &["--sleep", "1"]);
        self.stress(name, words).since(idle)
    }
}

vm_tests! { STRESS;
    /// R35: System V shared memory, anonymous shared memory and memfds are the bill of whoever touches them.
    fn r35_shared_memory_without_a_mount_is_the_client_s_bill() {
        let scene = scene();
        let words = ["--shm-sysv", "1", "--shm-sysv-segs", "1", "--shm-sysv-bytes", &SIZE.to_string()];
        let sysv = scene.stressor("/sysv", &words);
        for growth in [sysv, scene.hold("/anonymous", ANONYMOUS), scene.hold("/memfd", MEMFD)] {
            assert!(is_near(growth.target, 0), "the target pays nothing: {growth:?}");
            assert!(is_near(growth.shmem, SIZE), "the client pays: {growth:?}");
        }
    }

    /// R35: huge pages of hugetlbfs are in nobody's memory.current, as the kernel has it by default.
    fn r35_huge_pages_are_nobody_s_bill() {
        let scene = scene();
        std::fs::write("/proc/sys/vm/nr_hugepages", "16").unwrap();
        let growth = scene.hold("/hugetlb", HUGETLB);
        assert!(is_near(growth.target, 0) && is_near(growth.shmem, 0), "{growth:?}");
        assert!(growth.client < SIZE / 4, "no more than Perl itself: {growth:?}");
    }

    /// The other side: POSIX shared memory is in /dev/shm, so the target pays.
    fn posix_shared_memory_is_the_target_s_bill() {
        let scene = scene();
        let words = ["--shm", "1", "--shm-objs", "1", "--shm-bytes", &SIZE.to_string()];
        let growth = scene.stressor("/posix", &words);
        assert!(is_near(growth.target, SIZE), "the target pays: {growth:?}");
        assert!(is_near(growth.shmem, 0), "the client pays nothing: {growth:?}");
    }
}
