//! The verbs: each asks the daemon, then makes its output from the answers alone.

mod cat_config;
mod check;
mod explain;
mod history;
mod list;
mod monitor;
mod mount;
mod recover;
mod reload;
mod retarget;
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
        Verb::CatConfig { name } => cat_config::run(name.as_ref(), view).await,
        Verb::Check => check::run(view).await,
        Verb::Set { name, assignments } => set::run(&name, &assignments, view).await,
        Verb::Revert { name } => set::revert(&name).await,
        Verb::History(args) => history::run(&args, view).await,
        Verb::Explain { event } => explain::run(&event, view).await,
        Verb::Monitor => monitor::run(view).await,
        Verb::Reload => reload::run(view).await,
        Verb::Retarget(args) => retarget::run(&args).await,
        Verb::Prune(_) => Err(ClientError::NotBuilt("prune")),
        Verb::Top(_) => Err(ClientError::NotBuilt("top")),
        Verb::Metrics(_) => Err(ClientError::NotBuilt("metrics")),
    }
}
