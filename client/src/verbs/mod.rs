//! The verbs: each asks the daemon, then makes its output from the answers alone.

mod check;
mod list;
mod mount;
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
        Verb::Check => check::run(view).await,
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
        Verb::Check => "check",
        Verb::Set(_) => "set",
        Verb::Revert(_) => "revert",
        Verb::Retarget(_) => "retarget",
        Verb::History(_) => "history",
        Verb::Explain(_) => "explain",
        Verb::Monitor(_) => "monitor",
        Verb::Reload(_) => "reload",
        Verb::CatConfig(_) => "cat-config",
        Verb::Prune(_) => "prune",
        Verb::Top(_) => "top",
        Verb::Metrics(_) => "metrics",
    }
}
