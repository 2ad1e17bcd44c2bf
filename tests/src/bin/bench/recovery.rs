//! How long clients wait for a store that was killed: until a file's attributes are answered by the next one.

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    killer::kill_and_wait,
    mount::Mount,
    table::lay_out,
    wait::until,
};
use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::median;

/// Files that clients know; every second one is open.
const FILES: usize = 1000;

const ROUNDS: usize = 5;

/// Measures, and prints the row.
pub(crate) fn print() {
    Cg::make("/recovering").max(64 * MIB);
    Cg::make("/recovering/own");
    let mount = Mount::make("recovering", "/recovering", &[]);
    let open: Vec<_> = (0..FILES)
        .filter_map(|i| {
            let file = File::create(mount.join(&format!("f{i}"))).unwrap();
            (i % 2 == 0).then_some(file)
        })
        .collect();
    let times: Vec<_> = (0..ROUNDS).map(|_| recovery(&mount)).collect();
    drop(open);
    mount.unmount();
    let ms = |time: Duration| format!("{:.0}", time.as_secs_f64() * 1e3);
    let row = vec![
        format!("a store killed with {FILES} files comes back"),
        ms(median(times.clone())),
        ms(times.into_iter().max().unwrap_or_default()),
    ];
    println!("\nFrom the kill to the first answer, {ROUNDS} times\n");
    println!("{}", lay_out(&["", "median, ms", "longest, ms"], &[row]));
}

fn recovery(mount: &Mount) -> Duration {
    let (old, path) = (mount.store(), mount.join("f0"));
    let start = Instant::now();
    kill_and_wait(old);
    ask(Path::new(&path));
    let took = start.elapsed();
    // The next round begins with a store that is known to be whole.
    until("the mount is active", || {
        let properties = mount.properties();
        (properties["state"] == "active" && properties["store_pid"] != old).then_some(())
    });
    took
}

/// A stat that the kernel may not answer by itself.
fn ask(path: &Path) {
    let _ = rustix::fs::statx(CWD, path, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS).unwrap();
}
