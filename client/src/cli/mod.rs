//! The command line.

mod arguments;

use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};
use clap_complete::ArgValueCandidates;
use memcharge_policy::MountName;

#[cfg(test)]
pub(crate) use self::arguments::RetargetMode;
use self::arguments::parse_event_id;
pub(crate) use self::arguments::{HistoryArgs, MountArgs, RetargetArgs, Unbuilt};
use crate::{completion::mounts, error::USAGE, output, terminal::Screen};

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

/// Options that every verb takes, and where they take effect.
#[derive(Debug, Clone, Copy, Default, Args)]
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
    /// Do not shorten what is too long for the terminal
    #[arg(short = 'l', long, global = true)]
    pub(crate) full: bool,
    /// Do not pipe output into a pager
    #[arg(long, global = true)]
    pub(crate) no_pager: bool,
    /// Leave out the head of tables
    #[arg(long, global = true)]
    pub(crate) no_legend: bool,
    /// Print errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// What standard output can show; plain text without bounds until it is looked at.
    #[arg(skip)]
    pub(crate) screen: Screen,
}

impl View {
    /// How long a line may be; `None`: as long as it gets.
    pub(crate) fn width(&self) -> Option<usize> {
        self.screen.size.filter(|_| !self.full).map(|size| size.columns)
    }
}

/// Whether to print JSON, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum JsonMode {
    /// On one line.
    Short,
    /// With line breaks.
    Pretty,
    /// Text instead of JSON.
    #[default]
    Off,
}

/// The verbs, in the order of the help text.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the daemon and its mounts, for people
    Status {
        /// Show this mount only
        #[arg(add = ArgValueCandidates::new(mounts))]
        name: Option<MountName>,
    },
    /// Show one line for each mount
    List,
    /// Show every property of a mount
    Show {
        /// The mount's name
        #[arg(add = ArgValueCandidates::new(mounts))]
        name: MountName,
    },
    /// Make a mount now
    Mount(MountArgs),
    /// End a mount and delete its data; refused while processes use it
    Unmount {
        /// The mount's name
        #[arg(add = ArgValueCandidates::new(mounts))]
        name: MountName,
        /// Detach it even while processes use it
        #[arg(long)]
        lazy: bool,
    },
    /// Mount the data of a failed mount again
    Recover {
        /// The mount's name
        #[arg(add = ArgValueCandidates::new(mounts))]
        name: MountName,
    },
    /// Show what the configuration on disk says, and in which file
    CatConfig {
        /// Show it of this mount, merged from all its files and the defaults; without, the main configuration
        #[arg(add = ArgValueCandidates::new(mounts))]
        name: Option<MountName>,
    },
    /// Check the configuration on disk
    Check,
    /// Put the configuration on disk in force: make new mounts, end those whose file is gone, change policies
    Reload,
    /// Change the policy of a mount at run time
    Set {
        /// The mount's name
        #[arg(add = ArgValueCandidates::new(mounts))]
        name: MountName,
        /// What to change, with the keys of the mount's file: reserve=64M, kill.victim=newest
        #[arg(value_name = "KEY=VALUE", required = true)]
        assignments: Vec<String>,
    },
    /// Go back to the policy of the mount's file, or to the one it was made with
    Revert {
        /// The mount's name
        #[arg(add = ArgValueCandidates::new(mounts))]
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
    /// Have another cgroup pay for a mount from now on
    Retarget(RetargetArgs),

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
    use crate::{terminal::Size, time::Since};

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
    fn r29_who_pays_is_changed_in_one_of_three_ways() {
        for (line, mode) in [
            ("retarget m b.slice", None),
            ("retarget m b.slice --mode refuse", Some("refuse")),
            ("retarget --mode=future-only m b.slice", Some("future-only")),
            ("retarget m b.slice --mode migrate", Some("migrate")),
        ] {
            let Verb::Retarget(args) = parse(line).unwrap().verb else { panic!("{line}") };
            assert_eq!((args.name.as_str(), args.target.as_str()), ("m", "b.slice"), "{line}");
            assert_eq!(args.mode.map(RetargetMode::as_str), mode, "{line}");
        }
    }

    #[test]
    fn the_configuration_is_that_of_a_mount_or_the_main_one() {
        for (line, wanted) in [("cat-config", None), ("cat-config m", Some("m"))] {
            let Verb::CatConfig { name } = parse(line).unwrap().verb else { panic!("{line}") };
            assert_eq!(name.as_ref().map(MountName::as_str), wanted, "{line}");
        }
    }

    #[test]
    fn lines_are_as_long_as_the_terminal_is_wide_unless_they_shall_be_full() {
        let size = Some(Size { columns: 40, lines: 5 });
        let view = View { screen: Screen { size, ..Screen::default() }, ..View::default() };
        assert_eq!(view.width(), Some(40));
        for line in ["-l list", "list --full"] {
            let full = View { full: parse(line).unwrap().view.full, ..view };
            assert_eq!(full.width(), None, "{line}");
        }
        assert_eq!(View::default().width(), None);
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
            "retarget m",
            "retarget m b.slice --mode half",
            "cat-config m n",
            "reload m",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn planned_verbs_are_known_but_not_shown() {
        let help = Cli::command().render_help().to_string();
        for line in ["metrics --all", "top", "prune m --dry-run"] {
            assert!(parse(line).is_ok(), "{line}");
            let verb = line.split(' ').next().unwrap();
            assert!(!help.lines().any(|line| line.trim_start().starts_with(verb)), "{help}");
        }
    }
}
