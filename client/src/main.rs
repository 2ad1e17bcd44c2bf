//! memchargectl: asks memcharged over the system bus, and prints what it answers.

mod bus;
mod cli;
mod error;
mod event;
mod explanation;
mod happening;
mod json;
mod output;
mod properties;
mod settings;
mod time;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::{cli::Cli, error::ClientError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => return ExitCode::from(cli::print_refusal(&refusal)),
    };
    let result = match verbs::run(cli).await {
        Ok(report) => output::print(&report.text).map(|()| report.code),
        Err(error) => Err(error),
    };
    ExitCode::from(result.unwrap_or_else(|error: ClientError| {
        output::complain(&error.to_string());
        error.exit_code()
    }))
}
