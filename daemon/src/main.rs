//! memcharged makes mounts, places the process that serves each one in the cgroup that pays, and tells how they are.

mod attach;
mod bus;
mod cli;
mod container;
mod error;
mod history;
mod keeper;
mod kill;
mod logging;
mod mounts;
mod notify;
mod placement;
mod record;
mod reload;
mod run;
mod settings;
mod store_link;
mod targets;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use memcharge_config::Roots;

use crate::{cli::Cli, error::DaemonError};

/// Of `sysexits.h`. The unit is not started again after it: what is wrong does not mend itself.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.check_config {
        return check_config(&cli.roots());
    }
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::start(memcharge_config::LogLevel::Info);
            tracing::error!("{error}");
            match error {
                DaemonError::Configuration(_) | DaemonError::Container { .. } => ExitCode::from(EX_CONFIG),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn start(cli: Cli) -> error::Result<()> {
    container::check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(DaemonError::io("start", "the runtime"))?;
    let ended = runtime.block_on(run::run(cli.roots(), cli.store, cli.dry_run));
    // A system call that hangs (a network file system) must not keep the daemon from exiting.
    runtime.shutdown_background();
    ended
}

fn check_config(roots: &Roots) -> ExitCode {
    match settings::load(roots) {
        Ok(loaded) => {
            println!("configuration is valid: {} mounts", loaded.mounts.len());
            ExitCode::SUCCESS
        }
        Err(errors) => {
            errors.iter().for_each(|error| eprintln!("{error}"));
            ExitCode::FAILURE
        }
    }
}
