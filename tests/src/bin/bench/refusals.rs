//! What a refused write costs, beside an accepted one on the same mount and beside plain tmpfs' own ENOSPC.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    mount::Mount,
    service::run,
    table::lay_out,
};

use crate::{PAGE, open};

/// Calls that follow each other at once.
const MANY: usize = 500;

/// Refusals that are arbitrated: each waits until the one before it does not stand for it any more.
const FEW: usize = 15;

/// Longer than a refusal stands for others like it.
const APART: Duration = Duration::from_millis(1100);

/// Longer than the target is believed to have no cache that could give way: the next refusal looks for it.
const LONG_APART: Duration = Duration::from_millis(3100);

/// How many writes are tried for each refusal that is wanted, at most.
const TRIES: usize = 8;

const ENOSPC: i32 = 28;

/// Measures, and prints the table.
pub(crate) fn print() {
    Cg::make("/refusing").max(32 * MIB);
    Cg::make("/refusing/own");
    let mount = Mount::make("refusing", "/refusing", &["--set", "deadline=5s"]);
    let (file, mut end) = fill(Path::new(&mount.join("f")));
    let repeated = each_refused(MANY, &file, &mut end, || ());
    // In between, overwrites keep everything warm. They are measured all the while, since the machine is not equally fast
    // all the time.
    let mut overwrite = Vec::new();
    let mut keep_warm = |apart| {
        let start = Instant::now();
        while start.elapsed() < apart {
            overwrite.push(timed(|| file.write_all_at(&[1; PAGE as usize], 0).unwrap()).0);
        }
    };
    let arbitrated = each_refused(FEW, &file, &mut end, || keep_warm(APART));
    let looking = each_refused(FEW, &file, &mut end, || keep_warm(LONG_APART));
    let overwrite = sorted(overwrite);
    drop(file);
    fs::remove_file(mount.join("f")).unwrap();
    mount.unmount();

    fs::create_dir_all("/run/small").unwrap();
    let _ = run(&["mount", "-t", "tmpfs", "-o", "huge=never,size=4M", "tmpfs", "/run/small"]).ok();
    let (file, mut end) = fill(Path::new("/run/small/f"));
    let plain = each_refused(MANY, &file, &mut end, || ());

    let base = middle(&overwrite);
    let row = |name: &str, times: &[Duration]| {
        let us = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6);
        let p99 = times[(times.len() - 1) * 99 / 100];
        let ratio = middle(times).as_secs_f64() / base.as_secs_f64();
        vec![name.to_owned(), us(middle(times)), us(p99), format!("{ratio:.2}")]
    };
    println!("\nRefused writes of 4 KiB\n");
    let rows = [
        row("overwrite that is accepted", &overwrite),
        row("refused, arbitrated", &arbitrated),
        row("the same, and looked for cache", &looking),
        row("refused, repeated", &repeated),
        row("plain tmpfs at its size=", &plain),
    ];
    println!("{}", lay_out(&["", "median, us", "p99, us", "ratio to the overwrite"], &rows));
}

/// Fills a file until nothing more goes in. Returns it, and where it ends.
fn fill(path: &Path) -> (File, u64) {
    let file = open(path.to_owned());
    for block in [MIB, 16 * PAGE, PAGE] {
        let data = vec![1; block as usize];
        let end = || file.metadata().unwrap().len();
        while file.write_all_at(&data, end()).is_ok() {}
    }
    let end = file.metadata().unwrap().len();
    (file, end)
}

/// What `count` refusals take, each after `before`. The kernel counts in batches, so now and then a page fits. That is no
/// refusal; the next write is behind it, at once.
fn each_refused(count: usize, file: &File, end: &mut u64, mut before: impl FnMut()) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    let mut tries = 0;
    while times.len() < count {
        before();
        times.push(loop {
            tries += 1;
            assert!(tries <= TRIES * count, "of {tries} writes only {} were refused", times.len());
            let (time, result) = timed(|| file.write_at(&[1; PAGE as usize], *end));
            match result {
                Ok(written) => *end += written as u64,
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(ENOSPC));
                    break time;
                }
            }
        });
    }
    sorted(times)
}

fn timed<T>(act: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = act();
    (start.elapsed(), result)
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort();
    times
}

fn middle(times: &[Duration]) -> Duration {
    times[times.len() / 2]
}
