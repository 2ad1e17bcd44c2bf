//! The verbs: each asks the daemon, then makes its output from the answers alone.

mod check;
mod explain;
mod history;
mod list;
mod monitor;
mod mount;
mod recover;
mod reload;
mod set;
mod show;
mod status;
mod unmount;

use crate::{
    cli::{Cli, Verb},
    error::ClientError,
    output::Report,
};

/// Does what the command line says.
pub(crate) async fn run(cli: Cli) -> Result<Report, ClientError> {
    let view = cli.view;
    match cli.verb {
        Verb::Status { name } => status::run(name.as_ref(), view).await,
        Verb::List => list::run(view).await,
        Verb::Show { name } => show::run(&name, view).await,
        Verb::Mount(args) => mount::run(&args, view).await,
        Verb::Unmount { name, lazy } => unmount::run(&name, lazy).await,
        Verb::Recover { name } => recover::run(&name).await,
        Verb::Check => check::run(view).await,
        Verb::Set { name, assignments } => set::run(&name, &assignments, view).await,
        Verb::Revert { name } => set::revert(&name).await,
        Verb::History(args) => history::run(&args, view).await,
        Verb::Explain { event } => explain::run(&event, view).await,
        Verb::Monitor => monitor::run(view).await,
        Verb::Reload => reload::run(view).await,
        planned => Err(ClientError::NotBuilt(name_of(&planned))),
    }
}

fn name_of(verb: &Verb) -> &'static str {
    match verb {
        Verb::Status { .. } => "status",
        Verb::List => "list",
        Verb::Show { .. } => "show",
        Verb::Mount(_) => "mount",
        Verb::Unmount { .. } => "unmount",
        Verb::Recover { .. } => "recover",
        Verb::Check => "check",
        Verb::Set { .. } => "set",
        Verb::Revert { .. } => "revert",
        Verb::Retarget(_) => "retarget",
        Verb::History(_) => "history",
        Verb::Explain { .. } => "explain",
        Verb::Monitor => "monitor",
        Verb::Reload => "reload",
        Verb::CatConfig(_) => "cat-config",
        Verb::Prune(_) => "prune",
        Verb::Top(_) => "top",
        Verb::Metrics(_) => "metrics",
    }
}
