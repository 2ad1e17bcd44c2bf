//! Many processes that use one directory in every way and know what each call must say: a byte that is lost, an
//! operation that is lost or done twice, an error that nobody should see ends it with a message.
//!
//! It is a client of a mount whose store is killed meanwhile. On plain tmpfs it passes as well.
#![allow(clippy::print_stdout)]

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

mod board;
mod calls;
mod files;
mod locks;
mod log;
mod mapping;
mod names;
mod opens;
mod run;
mod tree;
mod worker;

#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(flatten)]
    torture: Torture,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Args)]
struct Torture {
    /// Where: a directory `torture` is made there, and left.
    #[arg(required = true)]
    dir: Option<PathBuf>,
    /// How long, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// What is done follows from this number alone, but for the order among processes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Processes of each kind; there are five kinds.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=16))]
    writers: u64,
    /// How much all files together hold at most, in MiB.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..=1024))]
    mib: u64,
    /// The mount has holes: what is touched through a mapping is allocated first.
    #[arg(long)]
    sigbus: bool,
}

#[derive(Subcommand)]
enum Part {
    /// One of the processes; the program starts them itself.
    #[command(hide = true)]
    Worker {
        kind: worker::Kind,
        index: u64,
        #[command(flatten)]
        torture: Torture,
    },
    /// Says which locks another process would get on a file: one line of JSON.
    Locked { path: PathBuf },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.part {
        None => run::run(&cli.torture),
        Some(Part::Worker { kind, index, torture }) => worker::run(*kind, *index, torture),
        Some(Part::Locked { path }) => locks::tell(path),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}
