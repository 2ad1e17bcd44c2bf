//! Throughput and latency of a mount as ratios to plain tmpfs: both in the same run, in turn (R34).
#![allow(clippy::unwrap_used, clippy::expect_used)] // A benchmark that cannot measure ends with a panic.

use std::{
    fs::{self, File, OpenOptions},
    hint::black_box,
    os::{fd::AsFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    ptr,
    time::{Duration, Instant},
};

use clap::Parser;
use memcharge_tests::{
    cgroup::{Cg, MIB},
    mount::Mount,
    service::run,
    table::lay_out,
};
use rustix::{
    fs::FallocateFlags,
    mm::{MapFlags, ProtFlags},
};

mod recovery;
mod refusals;

/// A page, in bytes.
pub(crate) const PAGE: u64 = 4096;

#[derive(Parser)]
struct Cli {
    /// Rounds; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Size of the files in MiB.
    #[arg(long, default_value_t = 32)]
    size: u64,
    /// Measure refusals alone.
    #[arg(long)]
    refusals: bool,
    /// Measure how long a killed store takes to come back, alone.
    #[arg(long)]
    recovery: bool,
}

/// One measurement: its name, how many operations it makes, and what it does in a directory, where `f` is a file of
/// the full size.
struct Case {
    name: String,
    operations: u64,
    act: Box<dyn Fn(&Path)>,
}

fn case(name: impl Into<String>, operations: u64, act: impl Fn(&Path) + 'static) -> Case {
    Case { name: name.into(), operations, act: Box::new(act) }
}

/// Opens a file for reading and writing; makes it if it is missing.
pub(crate) fn open(path: PathBuf) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn blocks(size: u64, block: u64, each: impl Fn(u64)) {
    (0..size / block).for_each(|i| each(i * block));
}

fn touch(file: &File, size: u64) {
    let length = size as usize;
    // SAFETY: a new mapping at an address of the kernel's choice, unmapped below.
    let start = unsafe {
        rustix::mm::mmap(
            ptr::null_mut(),
            length,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            file.as_fd(),
            0,
        )
    };
    let start = start.unwrap();
    blocks(size, PAGE, |at| {
        // SAFETY: within the mapping.
        unsafe { start.cast::<u8>().add(at as usize).write_volatile(1) }
    });
    // SAFETY: the mapping made above; nothing refers to it any more.
    unsafe { rustix::mm::munmap(start, length).unwrap() };
}

fn cases(size: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    for (label, block) in [("4 KiB", PAGE), ("64 KiB", 16 * PAGE), ("1 MiB", MIB)] {
        let data = vec![1; block as usize];
        cases.push(case(format!("write new file, {label}"), size / block, move |dir| {
            let file = open(dir.join("new"));
            blocks(size, block, |at| file.write_all_at(&data, at).unwrap());
            fs::remove_file(dir.join("new")).unwrap();
        }));
        let data = vec![2; block as usize];
        cases.push(case(format!("overwrite, {label}"), size / block, move |dir| {
            let file = open(dir.join("f"));
            blocks(size, block, |at| file.write_all_at(&data, at).unwrap());
        }));
        for (how, writable) in [("read-write", true), ("read-only", false)] {
            cases.push(case(format!("read ({how} descriptor), {label}"), size / block, move |dir| {
                let file = if writable { open(dir.join("f")) } else { File::open(dir.join("f")).unwrap() };
                let mut data = vec![0; block as usize];
                (0..size / block).for_each(|i| file.read_exact_at(&mut data, i * block).unwrap());
                black_box(data);
            }));
        }
    }
    cases.push(case("touch pages through a mapping", size / PAGE, move |dir| {
        touch(&open(dir.join("f")), size)
    }));
    cases.push(case("fallocate, then touch", size / PAGE, move |dir| {
        let file = open(dir.join("new"));
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size).unwrap();
        touch(&file, size);
        fs::remove_file(dir.join("new")).unwrap();
    }));
    cases.push(case("open and close", 500, |dir| (0..500).for_each(|_| drop(open(dir.join("f"))))));
    cases.push(case("stat", 500, |dir| {
        (0..500).for_each(|_| {
            black_box(fs::metadata(dir.join("f")).unwrap());
        })
    }));
    cases.push(case("create and remove", 200, |dir| {
        (0..200).for_each(|i| drop(File::create(dir.join(format!("c{i}"))).unwrap()));
        (0..200).for_each(|i| fs::remove_file(dir.join(format!("c{i}"))).unwrap());
    }));
    cases
}

fn time(case: &Case, dir: &Path) -> Duration {
    let start = Instant::now();
    (case.act)(dir);
    start.elapsed()
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn measure(rounds: usize, size: u64, plain: &Path, mount: &Path) -> Vec<Vec<String>> {
    for dir in [plain, mount] {
        fs::write(dir.join("f"), vec![0; size as usize]).unwrap();
    }
    cases(size)
        .iter()
        .map(|case| {
            let (mut on_plain, mut on_mount) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                on_plain.push(time(case, plain));
                on_mount.push(time(case, mount));
            }
            let each = |time: Duration| time.as_secs_f64() * 1e6 / case.operations as f64;
            let (plain, mount) = (each(median(on_plain)), each(median(on_mount)));
            vec![
                case.name.clone(),
                format!("{plain:.1}"),
                format!("{mount:.1}"),
                format!("{:.2}", plain / mount),
            ]
        })
        .collect()
}

fn main() {
    let cli = Cli::parse();
    if cli.refusals {
        return refusals::print();
    }
    if cli.recovery {
        return recovery::print();
    }
    let size = cli.size * MIB;
    Cg::make("/bench").max(8 * size);
    // Gives the memory controller to its children, so that each store has figures of its own.
    Cg::make("/bench/own");
    fs::create_dir_all("/run/plain").unwrap();
    let _ = run(&["mount", "-t", "tmpfs", "-o", "huge=never", "tmpfs", "/run/plain"]).ok();
    let reserve = Mount::make("reserve", "/bench", &[]);
    let idle = reserve.leaf().current();
    let sigbus = Mount::make("sigbus", "/bench", &["--sparse", "sigbus"]);
    for mount in [reserve, sigbus] {
        println!(
            "\nsparse = \"{}\", files of {} MiB, medians of {} rounds\n",
            mount.name, cli.size, cli.rounds
        );
        let rows = measure(cli.rounds, size, Path::new("/run/plain"), Path::new(&mount.place));
        println!("{}", lay_out(&["", "tmpfs, us", "mount, us", "ratio"], &rows));
        fs::remove_file(mount.join("f")).unwrap();
        mount.unmount();
    }
    refusals::print();
    recovery::print();
    println!("An idle mount's store takes {} KiB of its target.", idle / 1024);
    println!("Each operation's time is its share of the whole; ratio: speed of the mount / speed of tmpfs.");
}
