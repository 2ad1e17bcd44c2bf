//! memcharge-store: serves one mount from inside its target's cgroup, so that the target pays for every page.
//!
//! One process per mount, started by memcharged through systemd. It owns almost no state: the files are in a private
//! tmpfs that no path leads to, and this program translates FUSE requests into system calls on it.

use std::process::ExitCode;

mod backing;
mod buffers;
mod case;
mod control;
mod end;
mod error;
mod fs;
mod fuse;
mod gate;
mod handle;
mod handover;
mod home;
mod inodes;
mod keep;
mod liveness;
mod memory;
mod passthrough;
mod reclaim;
mod reports;
mod serve;
mod who;

use error::StoreError;
use memcharge_policy::link::GIVEN_UP;

#[global_allocator]
static ALLOCATOR: memory::Prefaulting = memory::Prefaulting;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memcharge-store: {error}");
            match error {
                // Another try would not help.
                StoreError::NothingToServe
                | StoreError::Kept(_)
                | StoreError::State(_)
                | StoreError::Aborted
                | StoreError::CannotServe(_) => ExitCode::from(GIVEN_UP),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run() -> Result<(), StoreError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", name] => serve::serve(&name.parse()?),
        ["stop", name] => end::note_stop(&name.parse()?),
        ["end", name] => end::end(&name.parse()?),
        ["--version"] => {
            println!("memcharge-store {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        _ => Err(StoreError::Usage),
    }
}
