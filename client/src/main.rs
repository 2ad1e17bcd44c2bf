//! memchargectl: asks memcharged over the system bus, and prints what it answers.

mod activation;
mod bus;
mod cli;
mod completion;
mod error;
mod event;
mod explanation;
mod happening;
mod json;
mod layout;
#[cfg(test)]
mod manual;
mod output;
mod pager;
mod properties;
#[cfg(test)]
mod schema;
mod settings;
mod style;
mod table;
mod terminal;
mod time;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::{cli::Cli, error::ClientError, terminal::Screen};

fn main() -> ExitCode {
    match completion::answer() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => run(),
        Err(refusal) => ExitCode::from(cli::print_refusal(&refusal)),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run() -> ExitCode {
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => return ExitCode::from(cli::print_refusal(&refusal)),
    };
    cli.view.screen = Screen::of_stdout();
    let view = cli.view;
    let result = match verbs::run(cli).await {
        Ok(report) => pager::show(&report.text, view).map(|()| report.code),
        Err(error) => Err(error),
    };
    ExitCode::from(result.unwrap_or_else(|error: ClientError| {
        output::complain(&error.to_string());
        error.exit_code()
    }))
}
