//! Commands that run in a VM: the story, the benchmark, anything.

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, ValueEnum};
use memcharge_vm::{FileIn, Guest, Image, Job, Kernel, Layer, Suite};

use crate::{
    deb,
    run::{cargo, run, say, target},
};

/// A VM's userland.
#[derive(Clone, Copy, ValueEnum)]
enum Userland {
    /// Debian 13, systemd 257.
    Trixie,
    /// Debian 12, systemd 252.
    Bookworm,
}

/// What to run, and where.
#[derive(Args)]
pub(crate) struct VmArgs {
    /// What bash runs as root; without it a shell is opened.
    command: Vec<String>,
    /// The programs in the VM.
    #[arg(long, value_enum, default_value = "trixie")]
    userland: Userland,
    /// The kernel 6.1 of Debian 12, which is too old for mounts.
    #[arg(long)]
    old_kernel: bool,
    /// More Debian packages, separated by commas; each set of them is an image of its own.
    #[arg(long, value_delimiter = ',')]
    packages: Vec<String>,
    /// A file or directory for /mnt/files, which is where the command starts.
    #[arg(long)]
    file: Vec<PathBuf>,
    /// Memory in MiB.
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Seconds that the command may take.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Without the package.
    #[arg(long)]
    bare: bool,
}

/// The sizes of the story.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Limit of the cgroup that shall pay, in MiB.
    #[arg(long, default_value_t = 64)]
    limit: u64,
    /// What the writer writes, in MiB.
    #[arg(long, default_value_t = 24)]
    write: u64,
    /// Size of the innocent process, in MiB.
    #[arg(long, default_value_t = 16)]
    innocent: u64,
}

/// What to measure.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Rounds; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Size of the files, in MiB.
    #[arg(long, default_value_t = 32)]
    size: u64,
    /// Measure refused writes alone.
    #[arg(long)]
    refusals: bool,
    /// Measure how long a killed store takes to come back, alone.
    #[arg(long, conflicts_with = "refusals")]
    recovery: bool,
}

/// Runs a command or a shell.
pub(crate) fn vm(arguments: &VmArgs) -> Result<ExitCode> {
    let image = Image {
        suite: match arguments.userland {
            _ if arguments.old_kernel => Suite::Bookworm,
            Userland::Trixie => Suite::Trixie,
            Userland::Bookworm => Suite::Bookworm,
        },
        kernel: if arguments.old_kernel { Kernel::V6_1 } else { Kernel::V6_12 },
        packages: arguments.packages.clone(),
    };
    let layer = if arguments.bare { None } else { Some(Layer { deb: deb::build()? }) };
    let guest = Guest { image, layer, mem_mb: arguments.memory, ..Guest::default() };
    let name = |host: &PathBuf| {
        host.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    let files: Vec<_> =
        arguments.file.iter().map(|host| FileIn { host: host.clone(), name: name(host) }).collect();
    if arguments.command.is_empty() {
        return Ok(exit(memcharge_vm::shell(&guest, &files, &say)?));
    }
    let job = Job {
        files,
        timeout: Duration::from_secs(arguments.timeout),
        ..Job::new(guest, arguments.command.join(" "))
    };
    Ok(exit(memcharge_vm::run(&job, &mut io::stdout(), &say)?.status))
}

/// Tells the story.
pub(crate) fn demo(arguments: &DemoArgs) -> Result<ExitCode> {
    let DemoArgs { limit, write, innocent } = arguments;
    in_vm("memcharge-demo", &format!("--limit {limit} --write {write} --innocent {innocent}"), 300)
}

/// Measures.
pub(crate) fn bench(arguments: &BenchArgs) -> Result<ExitCode> {
    let BenchArgs { rounds, size, refusals, recovery } = arguments;
    let alone = [(*refusals, " --refusals"), (*recovery, " --recovery")];
    let alone = alone.iter().find_map(|(wanted, option)| wanted.then_some(*option)).unwrap_or_default();
    in_vm("memcharge-bench", &format!("--rounds {rounds} --size {size}{alone}"), 1800)
}

/// Runs one of the test crate's programs in a VM with the package.
fn in_vm(program: &str, arguments: &str, seconds: u64) -> Result<ExitCode> {
    let layer = Layer { deb: deb::build()? };
    run(&mut cargo(["build", "--quiet", "--release", "--package", "memcharge-tests", "--bins"]))?;
    let file = |name: &str| FileIn { host: target().join("release").join(name), name: name.to_owned() };
    let guest = Guest { layer: Some(layer), ..Guest::default() };
    say("starting the VM");
    let job = Job {
        files: vec![file(program), file("memcharge-probe")],
        timeout: Duration::from_secs(seconds),
        alone: true,
        on_failure: Some("journalctl -b --no-pager -u memcharged -u 'memcharge-store-*'".to_owned()),
        ..Job::new(guest, format!("./{program} {arguments}"))
    };
    Ok(exit(memcharge_vm::run(&job, &mut io::stdout(), &say)?.status))
}

fn exit(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}
