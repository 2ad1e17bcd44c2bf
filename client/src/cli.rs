//! The command line.

use std::ffi::OsString;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, error::ErrorKind};
use memcharge_policy::MountName;

use crate::{
    error::USAGE,
    output,
    time::{Since, parse_since},
};

/// Shows and changes the mounts of memcharged.
#[derive(Debug, Parser)]
#[command(name = "memchargectl", version, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
pub(crate) struct Cli {
    /// How to print.
    #[command(flatten)]
    pub(crate) view: View,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options that every verb takes.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct View {
    /// Print JSON: "short" on one line, "pretty" for people; short when no MODE is given
    #[arg(
        long,
        global = true,
        value_name = "MODE",
        num_args = 0..=1,
        require_equals = true,
        default_value = "off",
        default_missing_value = "short"
    )]
    pub(crate) json: JsonMode,
    /// Accepted for habit: nothing is ever paged
    #[arg(long, global = true)]
    pub(crate) no_pager: bool,
    /// Leave out the head of tables
    #[arg(long, global = true)]
    pub(crate) no_legend: bool,
    /// Print errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// Whether to print JSON, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JsonMode {
    /// On one line.
    Short,
    /// With line breaks.
    Pretty,
    /// Text instead of JSON.
    Off,
}

/// The verbs, in the order of the help text.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the daemon and its mounts, for people
    Status {
        /// Show this mount only
        name: Option<MountName>,
    },
    /// Show one line for each mount
    List,
    /// Show every property of a mount
    Show {
        /// The mount's name
        name: MountName,
    },
    /// Make a mount now
    Mount(MountArgs),
    /// End a mount and delete its data; refused while processes use it
    Unmount {
        /// The mount's name
        name: MountName,
        /// Detach it even while processes use it
        #[arg(long)]
        lazy: bool,
    },
    /// Mount the data of a failed mount again
    Recover {
        /// The mount's name
        name: MountName,
    },
    /// Check the configuration on disk
    Check,
    /// Put the configuration on disk in force: make new mounts, end those whose file is gone, change policies
    Reload,
    /// Change the policy of a mount at run time
    Set {
        /// The mount's name
        name: MountName,
        /// What to change, with the keys of the mount's file: reserve=64M, kill.victim=newest
        #[arg(value_name = "KEY=VALUE", required = true)]
        assignments: Vec<String>,
    },
    /// Go back to the policy of the mount's file, or to the one it was made with
    Revert {
        /// The mount's name
        name: MountName,
    },
    /// Show recorded arbitrations: what chargers got when there was no memory
    History(HistoryArgs),
    /// Show one arbitration in full, in words
    Explain {
        /// The event: its id as `history` shows it, or the first digits of it, at least 4
        #[arg(value_parser = parse_event_id)]
        event: String,
    },
    /// Follow what happens, one line each, until it is interrupted
    Monitor,

    /// Change who pays
    #[command(hide = true)]
    Retarget(Unbuilt),
    /// Show the configuration files
    #[command(hide = true)]
    CatConfig(Unbuilt),
    /// Delete files
    #[command(hide = true)]
    Prune(Unbuilt),
    /// Show the busiest mounts
    #[command(hide = true)]
    Top(Unbuilt),
    /// Show figures for a collector
    #[command(hide = true)]
    Metrics(Unbuilt),
}

/// The arguments of `mount`.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// The mount's name
    pub(crate) name: MountName,
    /// The mount point; made if it is missing
    #[arg(long = "where", value_name = "DIR", value_parser = parse_place)]
    pub(crate) place: String,
    /// Who pays: a slice, service or scope, or a path below /sys/fs/cgroup
    #[arg(long, value_name = "CG")]
    pub(crate) target: String,
    /// The cap: bytes, with K, M, G or T, or a share of the target's limit as in "50%"
    #[arg(long)]
    pub(crate) size: Option<String>,
    /// What a remote charger gets when the target is full: enospc or kill
    #[arg(long, value_name = "POLICY")]
    pub(crate) on_full: Option<String>,
    /// What happens to holes in files: reserve or sigbus
    #[arg(long, value_name = "POLICY")]
    pub(crate) sparse: Option<String>,
    /// Set another key, as in the mount's file: reserve=64M, kill.victim=newest
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub(crate) set: Vec<String>,
    /// Write the mount's file, so that it is there after a reboot
    #[arg(long)]
    pub(crate) persist: bool,
    /// Accept a target that is not there yet
    #[arg(long)]
    pub(crate) wait: bool,
}

/// The arguments of `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Show those of this mount only; it need not be there any more
    pub(crate) name: Option<MountName>,
    /// Show those since then: "10min" ago, "@SECONDS" since 1970, or a UTC time `YYYY-MM-DD[ HH:MM[:SS]]`
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) since: Option<Since>,
    /// Show this many at most, the newest; 1 to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: Option<u32>,
}

/// Whatever follows a verb that is not built yet.
#[derive(Debug, Args)]
pub(crate) struct Unbuilt {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

fn parse_place(text: &str) -> Result<String, String> {
    match text.strip_prefix('/') {
        Some(_) => Ok(text.to_owned()),
        None => Err("a mount point is an absolute path".to_owned()),
    }
}

/// The id of an event, or its first digits. Whether there is one is for the daemon to say.
fn parse_event_id(text: &str) -> Result<String, String> {
    if (4..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("an event is named by 4 to 32 hex digits".to_owned())
    }
}

/// Prints what clap has to say instead of a command line: help, the version or an error. Returns the exit code.
pub(crate) fn print_refusal(refusal: &clap::Error) -> u8 {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    if matches!(refusal.kind(), DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand | DisplayVersion) {
        // A reader that has gone away needs no help.
        let _ = refusal.print();
        return if refusal.use_stderr() { USAGE } else { 0 };
    }
    let text = refusal.render().to_string();
    output::complain(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    USAGE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("memchargectl").chain(line.split(' ').filter(|w| !w.is_empty())))
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_verb() {
        for (line, json, legend, quiet) in [
            ("list", JsonMode::Off, true, false),
            ("--json list", JsonMode::Short, true, false),
            ("list --json", JsonMode::Short, true, false),
            ("--json=pretty list", JsonMode::Pretty, true, false),
            ("list --json=pretty --no-pager", JsonMode::Pretty, true, false),
            ("--json=off list --no-legend", JsonMode::Off, false, false),
            ("--no-legend -q list", JsonMode::Off, false, true),
            ("list --quiet", JsonMode::Off, true, true),
            ("-q list --json=short", JsonMode::Short, true, true),
        ] {
            let cli = parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(matches!(cli.verb, Verb::List), "{line}");
            assert_eq!((cli.view.json, !cli.view.no_legend, cli.view.quiet), (json, legend, quiet), "{line}");
        }
    }

    #[test]
    fn json_never_swallows_the_next_word() {
        let cli = parse("show --json models").unwrap();
        assert!(matches!(cli.verb, Verb::Show { name } if name.as_str() == "models"));
        assert_eq!(cli.view.json, JsonMode::Short);
    }

    #[test]
    fn a_mount_has_all_its_options() {
        let line = "mount m --where /run/m --target a.slice --size 50% --on-full kill --sparse sigbus \
                    --set reserve=1M --set mode=0700 --persist --wait";
        let Verb::Mount(args) = parse(line).unwrap().verb else { panic!("not mount") };
        assert_eq!(
            (args.name.as_str(), args.place.as_str(), args.target.as_str()),
            ("m", "/run/m", "a.slice")
        );
        assert_eq!(args.set, ["reserve=1M", "mode=0700"]);
        assert!(args.persist && args.wait);
    }

    #[test]
    fn the_verbs_of_arbitration_take_their_arguments() {
        let Verb::History(args) = parse("history m --since 10min --limit 5").unwrap().verb else { panic!() };
        assert_eq!((args.name.unwrap().as_str(), args.limit), ("m", Some(5)));
        assert_eq!(args.since, Some(Since::Ago(std::time::Duration::from_secs(600))));
        let Verb::Explain { event } = parse("explain 00AB").unwrap().verb else { panic!() };
        assert_eq!(event, "00ab");
        let Verb::Set { assignments, .. } = parse("set m size=1G on-full=kill --json").unwrap().verb else {
            panic!()
        };
        assert_eq!(assignments, ["size=1G", "on-full=kill"]);
    }

    #[test]
    fn wrong_usage_is_code_2() {
        for line in [
            "",
            "lst",
            "show",
            "show a/b",
            "list x",
            "--json=loud list",
            "mount m --where /m",
            "mount m --target a.slice",
            "mount m --where m --target a.slice",
            "unmount m --force",
            "set m",
            "revert",
            "history --limit 0",
            "history --limit 1001",
            "history --since yesterday",
            "explain",
            "explain 123",
            "explain xyzw",
            "explain 000000000000000000000000000000000",
            "monitor m",
            "reload m",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn planned_verbs_are_known_but_not_shown() {
        for line in ["retarget m b.slice --mode migrate", "cat-config", "top", "prune m --dry-run"] {
            assert!(parse(line).is_ok(), "{line}");
        }
        assert!(!Cli::command().render_help().to_string().contains("retarget"));
    }
}
