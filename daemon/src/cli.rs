//! The command line of memcharged.

use std::path::PathBuf;

use clap::Parser;
use memcharge_config::Roots;

/// Where the store's program is installed.
const STORE: &str = "/usr/libexec/memcharge/memcharge-store";

/// Keeps shared-memory mounts whose pages are charged to the cgroup of your choice.
#[derive(Debug, Parser)]
#[command(name = "memcharged", version, about)]
pub(crate) struct Cli {
    /// Read the configuration in DIR alone, instead of /etc/memcharge, /run/memcharge and /usr/lib/memcharge
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Check the configuration and exit: 0 if it is valid, 1 if not
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Decide and record what would be done at the limit, but kill nobody and reclaim nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The store's program
    #[arg(long, value_name = "PATH", default_value = STORE, hide = true)]
    pub(crate) store: String,
}

impl Cli {
    /// Where configuration is read.
    pub(crate) fn roots(&self) -> Roots {
        self.config_dir.as_ref().map_or_else(Roots::system, Roots::single)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["memcharged", "--config-dir", "/x"]);
        assert_eq!(cli.roots(), Roots::single("/x"));
        assert_eq!(Cli::parse_from(["memcharged"]).roots(), Roots::system());
    }
}
