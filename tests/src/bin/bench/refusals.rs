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

const ENOSPC: i32 = 28;

/// Measures, and prints the table.
pub(crate) fn print() {
    Cg::make("/refusing").max(32 * MIB);
    Cg::make("/refusing/own");
    let mount = Mount::make("refusing", "/refusing", &["--set", "deadline=5s"]);
    let (file, end) = fill(Path::new(&mount.join("f")));
    let overwrite = each(MANY, || file.write_all_at(&[1; PAGE as usize], 0).unwrap());
    let repeated = each(MANY, || refused(&file, end));
    // In between, overwrites keep everything warm.
    let arbitrated = (0..FEW).map(|_| {
        let start = Instant::now();
        while start.elapsed() < APART {
            file.write_all_at(&[1; PAGE as usize], 0).unwrap();
        }
        timed(|| refused(&file, end))
    });
    let arbitrated = sorted(arbitrated.collect());
    drop(file);
    fs::remove_file(mount.join("f")).unwrap();
    mount.unmount();

    fs::create_dir_all("/run/small").unwrap();
    let _ = run(&["mount", "-t", "tmpfs", "-o", "huge=never,size=4M", "tmpfs", "/run/small"]).ok();
    let (file, end) = fill(Path::new("/run/small/f"));
    let plain = each(MANY, || refused(&file, end));

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

fn refused(file: &File, end: u64) {
    // The kernel counts in batches, so now and then a page fits; it is given back.
    match file.write_at(&[1; PAGE as usize], end) {
        Err(error) => assert_eq!(error.raw_os_error(), Some(ENOSPC)),
        Ok(_) => file.set_len(end).unwrap(),
    }
}

fn timed(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

fn each(count: usize, act: impl Fn()) -> Vec<Duration> {
    sorted((0..count).map(|_| timed(&act)).collect())
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort();
    times
}

fn middle(times: &[Duration]) -> Duration {
    times[times.len() / 2]
}
