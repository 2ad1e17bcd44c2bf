//! The story: who pays for shared memory, and who dies for it. Plain tmpfs first, then memcharge.
//!
//! Every figure is read from the kernel at that moment.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A story that cannot be told ends with a panic.

use clap::Parser;
use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, probe, report},
    mount::Mount,
    service::run,
    table::lay_out,
};

#[derive(Parser)]
struct Sizes {
    /// Limit of the cgroup that shall pay, and of the writer's, in MiB.
    #[arg(long)]
    limit: u64,
    /// What the writer writes first, in MiB.
    #[arg(long)]
    write: u64,
    /// Size of the innocent process, in MiB.
    #[arg(long)]
    innocent: u64,
}

struct Cast {
    target: Cg,
    /// Has the limit; the writer's process is in a child, since a cgroup with children holds no processes itself.
    writer: Cg,
    inside: Cg,
    innocent: Waiting,
}

/// A writer, a target, and an innocent process beside whoever pays.
fn cast(act: &str, sizes: &Sizes, innocent_beside: fn(&Cg, &Cg) -> String) -> Cast {
    let target = Cg::make(&format!("/{act}-target")).max(sizes.limit * MIB);
    let writer = Cg::make(&format!("/{act}-writer")).max(sizes.limit * MIB);
    let beside = Cg::make(&innocent_beside(&target, &writer));
    let innocent = Waiting::start(&beside, &["hog", &(sizes.innocent * MIB).to_string()]);
    let inside = Cg::make(&format!("{}/process", writer.path()));
    Cast { target, writer, inside, innocent }
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB as f64)
}

/// The writer writes; a table of who paid.
fn write_and_show(cast: &Cast, file: &str, sizes: &Sizes) {
    let bytes = sizes.write * MIB;
    let cgroups = [("target", &cast.target), ("writer", &cast.writer)];
    let before = cgroups.map(|(_, cg)| cg.current());
    let written = report(&cast.inside, &["write", file, &bytes.to_string()]);
    assert_eq!(written.done, bytes, "{written:?}");
    let rows: Vec<_> = cgroups
        .iter()
        .zip(before)
        .map(|((name, cg), before)| {
            let after = cg.current();
            let change = (after as f64 - before as f64) / MIB as f64;
            vec![(*name).to_owned(), mib(before), mib(after), format!("{change:+.1}")]
        })
        .collect();
    println!("{}", lay_out(&["memory.current, MiB", "before", "after", "change"], &rows));
}

/// The writer goes on until something stops it.
fn write_on(cast: &mut Cast, file: &str) {
    let said = probe(&cast.inside, &["write", file, &(1u64 << 40).to_string()]);
    let kills = cast.target.event("oom_kill") + cast.writer.event("oom_kill");
    let pid = cast.innocent.pid();
    match said.status {
        137 => println!("  The writer writes on:        it was killed by the kernel, too."),
        0 => {
            let ended: serde_json::Value = serde_json::from_str(&said.out).unwrap();
            let error = std::io::Error::from_raw_os_error(
                i32::try_from(ended["errno"].as_i64().unwrap_or(0)).unwrap(),
            );
            let written = ended["done"].as_u64().unwrap();
            println!("  The writer writes on:        {} MiB in all fit, then: {error}.", mib(written));
        }
        status => println!("  The writer writes on:        it ended with status {status}."),
    }
    match cast.innocent.is_alive() {
        true => println!("  The innocent process:        {pid} is alive."),
        false => println!("  The innocent process:        {pid} was killed by the kernel."),
    }
    println!("  Kills that the kernel counts: {kills}.\n");
}

fn main() {
    let sizes = Sizes::parse();
    // The programs' own pages are charged to whoever reads them first: nobody in this story.
    let _ = probe(&Cg::make("/warm"), &["read", "/etc/hostname"]).ok();
    println!();
    println!(
        "A writer shares {} MiB with others. \"target\" is the cgroup that ought to pay for it.",
        sizes.write
    );
    println!(
        "Both have a limit of {} MiB. Beside whoever pays lives an innocent process of {} MiB.\n",
        sizes.limit, sizes.innocent
    );

    println!("Plain tmpfs: the first to touch a page pays");
    let mut plain = cast("plain", &sizes, |_, writer| format!("{}/innocent", writer.path()));
    std::fs::create_dir_all("/run/plain").unwrap();
    let _ = run(&["mount", "-t", "tmpfs", "tmpfs", "/run/plain"]).ok();
    write_and_show(&plain, "/run/plain/f", &sizes);
    write_on(&mut plain, "/run/plain/f");
    let _ = run(&["umount", "/run/plain"]).ok();
    drop(plain);

    println!("memcharge: the target pays, whoever writes");
    let mut shared = cast("shared", &sizes, |target, _| format!("{}/innocent", target.path()));
    let mount = Mount::make("demo", shared.target.path(), &[]);
    write_and_show(&shared, &mount.join("f"), &sizes);
    write_on(&mut shared, &mount.join("f"));
    println!("{}", run(&["memchargectl", "status", "demo"]).ok().out);
    mount.unmount();
}
