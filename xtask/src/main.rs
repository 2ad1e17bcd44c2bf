//! The project's own commands: `cargo xtask demo`, `test`, `check`, `fuzz`, `bench`, `vm`, `deb`, `codegen`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod codegen;
mod deb;
mod fuzz;
mod manual;
mod run;
mod tools;
mod vm;

/// Builds, tests and shows memcharge. Everything that a command needs it makes or installs itself.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows in a VM who pays for shared memory: plain tmpfs first, then memcharge.
    Demo(vm::DemoArgs),
    /// Runs all tests; those that need a kernel run in VMs.
    Test(check::TestArgs),
    /// Runs all that CI runs: format, lints, docs, licences, generated files, all tests, and half a minute of
    /// fuzzing.
    Check,
    /// Feeds input of any kind to what reads files and messages of others, and looks for panics.
    Fuzz(fuzz::FuzzArgs),
    /// Measures against plain tmpfs in the same VM and prints ratios.
    Bench(vm::BenchArgs),
    /// Runs a command, or a shell, in a VM that has the package installed.
    Vm(vm::VmArgs),
    /// Builds the Debian package; prints its path.
    Deb,
    /// Writes the D-Bus proxies and their manual page anew from the XML.
    Codegen {
        /// Only compare.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(arguments) => vm::demo(&arguments),
        Command::Test(arguments) => check::test(&arguments),
        Command::Check => check::check(),
        Command::Fuzz(arguments) => fuzz::fuzz(&arguments),
        Command::Bench(arguments) => vm::bench(&arguments),
        Command::Vm(arguments) => vm::vm(&arguments),
        Command::Deb => deb::build().map(|path| {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }),
        Command::Codegen { check } => {
            codegen::run(&run::root(), check).map(|()| ExitCode::SUCCESS).map_err(|e| anyhow::anyhow!("{e}"))
        }
    };
    result.unwrap_or_else(|e| {
        eprintln!("xtask: {e:#}");
        ExitCode::FAILURE
    })
}
