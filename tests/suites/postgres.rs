//! PostgreSQL with a mount in place of its /dev/shm: the shared memory of its parallel queries is the target's bill.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::report,
    host::{Needs, PLAIN},
    mount::Mount,
    service::{Said, run, start_daemon, unit_property},
    vm_tests,
    wait::until,
};

const POSTGRES: Needs = Needs { packages: &["postgresql"], timeout: Duration::from_secs(600), ..PLAIN };

const ENOSPC: Option<i32> = Some(28);

/// What one hash join has to take from the mount.
const JOIN: u64 = 16 * MIB;

/// What it may take from Postgres' own cgroup.
const OWN: u64 = 512 << 10;

const SETTINGS: &str = "
dynamic_shared_memory_type = posix
min_dynamic_shared_memory = 0
shared_buffers = '1MB'
work_mem = '64MB'
max_parallel_workers_per_gather = 2
parallel_setup_cost = 0
parallel_tuple_cost = 0
min_parallel_table_scan_size = 0
enable_mergejoin = off
enable_nestloop = off
fsync = off
";

const TABLES: &str = "
create unlogged table wide as select i, repeat('x', 200) as pad from generate_series(1, 100000) i;
create unlogged table long as select i % 100000 + 1 as i from generate_series(1, 300000) i;
analyze wide;
analyze long;
";

/// Its hash table holds the column `pad`.
const QUERY: &str = "select count(wide.pad) from long join wide using (i)";

const PSQL: [&str; 10] =
    ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "VERBOSITY=verbose", "-v", "ON_ERROR_STOP=1"];

/// Lines of SQL in a session of their own.
fn sql(text: &str) -> Said {
    run(&[&PSQL[..], &["-c", text]].concat())
}

/// A session that stays open.
struct Session {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Session {
    fn open() -> Self {
        let mut command = Command::new(PSQL[0]);
        let mut child =
            command.args(&PSQL[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    /// The first line of the answer.
    fn ask(&mut self, text: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{text};").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

/// Starts Postgres with the mount bound over its /dev/shm, and fills its tables; the unit and its cgroup.
fn start(mount: &Mount) -> (String, Cg) {
    let version = fs::read_dir("/etc/postgresql").unwrap().next().unwrap().unwrap().file_name();
    let version = version.to_string_lossy();
    let unit = format!("postgresql@{version}-main.service");
    fs::write(format!("/etc/postgresql/{version}/main/conf.d/shm.conf"), SETTINGS).unwrap();
    let dropin = format!("/run/systemd/system/{unit}.d");
    fs::create_dir_all(&dropin).unwrap();
    fs::write(format!("{dropin}/shm.conf"), format!("[Service]\nBindPaths={}:/dev/shm\n", mount.place))
        .unwrap();
    let _ = run(&["systemctl", "daemon-reload"]).ok();
    let _ = run(&["systemctl", "start", &unit]).ok();
    let _ = sql(TABLES).ok();
    let cg = Cg::at(&unit_property(&unit, "ControlGroup"));
    (unit, cg)
}

/// The highest figures while something ran.
#[derive(Debug, Default)]
struct Peak {
    used: u64,
    shmem: u64,
}

/// The join, and the highest use of the mount and of Postgres' own shared memory meanwhile.
fn join(mount: &Mount, own: &Cg) -> (Said, Peak) {
    let query = thread::spawn(|| sql(QUERY));
    let mut peak = Peak::default();
    while !query.is_finished() {
        peak.used = peak.used.max(mount.number("used_bytes"));
        peak.shmem = peak.shmem.max(own.stat("shmem"));
    }
    (query.join().unwrap(), peak)
}

vm_tests! { POSTGRES;
    /// A parallel hash join takes its memory from the mount, so the target pays. If the target is full the session
    /// gets SQLSTATE 53100 (disk_full); the server and its other sessions live.
    ///
    /// Postgres' main segment is anonymous shared memory, which is no mount's business: it counts as `shmem` of
    /// Postgres' own cgroup. So that is compared with what it was before the join.
    fn a_parallel_hash_join_is_on_the_target_s_bill() {
        start_daemon();
        let _ = run(&["systemctl", "set-property", "--runtime", "shm.slice", "MemoryMax=96M"]).ok();
        let mount = Mount::make("pg", "shm.slice", &["--set", "deadline=5s"]);
        let target = Cg::at("/shm.slice");
        let (unit, own) = start(&mount);
        println!("{}", own.path());
        let plan = sql(&format!("explain (costs off) {QUERY}")).ok().out;
        assert!(plan.contains("Parallel Hash"), "{plan}");
        let mut bystander = Session::open();
        assert_eq!(bystander.ask("select 1"), "1");

        let idle = mount.number("used_bytes");
        let before = own.stat("shmem");
        let (answer, peak) = join(&mount, &own);
        println!("idle {idle}, shmem before {before}, {peak:?}");
        assert_eq!(answer.ok().out.trim(), "300000");
        assert!(peak.used >= JOIN, "{peak:?}");
        assert!(peak.shmem < before + OWN, "{before} -> {peak:?}");
        until("the join's memory is given back", || (mount.number("used_bytes") < idle + MIB).then_some(()));

        // Too little room for the hash table; then none at all.
        let filler = Cg::make("/filler");
        let fill = |bytes: u64| report(&filler, &["write", &mount.join("fill"), &bytes.to_string(), "--append"]);
        for (bytes, errno) in [(mount.number("headroom_bytes") - JOIN / 2, None), (1 << 40, ENOSPC)] {
            assert_eq!(fill(bytes).errno, errno);
            let (refused, peak) = join(&mount, &own);
            println!("{peak:?} {}", refused.err.trim());
            assert!(refused.failed(1).err.contains("ERROR:  53100:"));
            assert!(peak.shmem < before + OWN, "{before} -> {peak:?}");
            assert_eq!(bystander.ask("select 1"), "1");
            assert_eq!(sql("select 1").ok().out.trim(), "1");
        }
        assert_eq!(target.event("oom_kill") + own.event("oom_kill"), 0);

        fs::remove_file(mount.join("fill")).unwrap();
        let (answer, peak) = join(&mount, &own);
        assert_eq!(answer.ok().out.trim(), "300000");
        assert!(peak.used >= JOIN, "{peak:?}");
        assert_eq!(bystander.ask("select 1"), "1");
        until("nothing is left of the refused joins", || {
            (mount.number("used_bytes") < idle + MIB).then_some(())
        });
        drop(bystander);
        let _ = run(&["systemctl", "stop", &unit]).ok();
        mount.unmount();
    }
}
