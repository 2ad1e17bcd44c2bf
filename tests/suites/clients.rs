//! Clients that nobody here wrote.

use std::time::Duration;

use memcharge_tests::{
    cgroup::{Cg, MIB},
    host::{Needs, PLAIN},
    mount::Mount,
    service::{run, sh},
    vm_tests,
    wait::until,
};

/// With Python, whose `multiprocessing.shared_memory` works on /dev/shm.
const PYTHON: Needs = Needs { packages: &["python3"], timeout: Duration::from_secs(300), ..PLAIN };

const OWNER: &str = r#"
from multiprocessing import shared_memory
import time
shm = shared_memory.SharedMemory(name="block", create=True, size=32 << 20)
for i in range(0, shm.size, 4096):
    shm.buf[i] = 7
open("/var/tmp/owner-ready", "w").close()
time.sleep(600)
"#;

const USER: &str = r#"
from multiprocessing import shared_memory
import time
shm = shared_memory.SharedMemory(name="block", track=False)
total = sum(shm.buf[i] for i in range(0, shm.size, 4096))
for i in range(0, shm.size, 4096):
    shm.buf[i + 1] = 1
open("/var/tmp/user-ready", "w").write(str(total))
time.sleep(600)
"#;

/// A service in its own slice with the mount in place of /dev/shm.
fn start(name: &str, mount: &Mount, program: &str) {
    let script = format!("/run/{name}.py");
    std::fs::write(&script, program).unwrap();
    let bind = format!("BindPaths={}:/dev/shm", mount.place);
    let slice = format!("--slice={name}.slice");
    let unit = format!("--unit={name}");
    let _ =
        run(&["systemd-run", &unit, &slice, "-p", &bind, "-p", "MemoryAccounting=yes", "python3", &script])
            .ok();
}

vm_tests! { PYTHON;
    /// Two Python processes in two slices share memory on a mount bound over /dev/shm: the target pays.
    fn python_shared_memory_is_on_the_target_s_bill() {
        let _ = run(&["systemctl", "set-property", "--runtime", "shm.slice", "MemoryMax=128M"]);
        let mount = Mount::make("shm", "shm.slice", &[]);
        let target = Cg::at("/shm.slice");
        let before = target.current();
        start("first", &mount, OWNER);
        until("the owner has filled its block", || std::fs::exists("/var/tmp/owner-ready").unwrap().then_some(()));
        start("second", &mount, USER);
        let total = until("the user has read and written it", || {
            std::fs::read_to_string("/var/tmp/user-ready").ok().filter(|text| !text.is_empty())
        });
        assert_eq!(total.parse::<u64>().unwrap(), 7 * 32 * MIB / 4096);
        let grown = target.current() - before;
        assert!(grown.abs_diff(32 * MIB) < MIB / 2, "the target pays: {grown}");
        for slice in ["/first.slice", "/second.slice"] {
            let shmem = Cg::at(slice).stat("shmem");
            assert_eq!(shmem, 0, "{slice} pays nothing");
        }
        let refused = memcharge_tests::service::ctl(&["unmount", "shm"]).failed(1);
        println!("{}", refused.err.trim());
        assert!(refused.err.contains("python3"), "{}", refused.err);
        let _ = run(&["systemctl", "stop", "first", "second"]).ok();
        let _ = sh("rm -f /run/shared/shm/block").ok();
        until("all of it is given back", || (target.current() < before + MIB).then_some(()));
        mount.unmount();
    }
}
