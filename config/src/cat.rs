//! The configuration as it comes out of all its files, each value with the file that it comes from.

use std::collections::BTreeMap;

use memcharge_policy::{MountName, MountPolicy, Target};

use crate::{
    fragment::{Fragment, KillFragment},
    main_file::{HistoryFragment, MainFragment, MainSettings},
    vocabulary::{MAIN_FILE, MOUNT_FILE, Section},
    write::{Said, in_tables},
};

/// Where a value comes from that no file gives.
const BUILT_IN: &str = "built-in default";

/// One file's part, or what is built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer<T> {
    /// Where it comes from.
    pub(crate) origin: String,
    /// What it says.
    pub(crate) says: T,
}

/// A mount's merged file: its layers, the one that counts most last, over the built-in defaults.
pub(crate) fn cat_mount(layers: &[Layer<Fragment>]) -> String {
    let built_in = Layer { origin: BUILT_IN.to_owned(), says: built_in_mount() };
    let said = |layer: &Layer<Fragment>| layer.says.said(["", "kill"]);
    let layers = [&built_in].into_iter().chain(layers);
    text(&MOUNT_FILE, layers.map(|layer| (layer.origin.as_str(), said(layer))))
}

/// The merged main file: its layers, the one that counts most last, over the built-in defaults.
pub(crate) fn cat_main(layers: &[Layer<MainFragment>]) -> String {
    let MainSettings { log_level, history, defaults: _ } = MainSettings::default();
    let says = MainFragment {
        log_level: Some(log_level),
        history: HistoryFragment { max_entries: Some(history.max_entries), max_size: Some(history.max_size) },
        defaults: built_in_mount(),
    };
    let built_in = Layer { origin: BUILT_IN.to_owned(), says };
    let layers = [&built_in].into_iter().chain(layers);
    text(&MAIN_FILE, layers.map(|layer| (layer.origin.as_str(), layer.says.said())))
}

/// What a mount has of which nothing is said but where it is and who pays, without those two. Keys without a default
/// (size, inodes, reserve) are not there.
fn built_in_mount() -> Fragment {
    let nobody: Result<MountName, _> = "x".parse();
    let Ok(name) = nobody else { return Fragment::default() };
    let MountPolicy { options, mode, uid, gid, on_full, reclaim, sparse, deadline, kill, .. } =
        MountPolicy::new(name, String::new(), Target::Path("/".to_owned()));
    Fragment {
        options: Some(options),
        mode: Some(mode),
        uid: Some(uid),
        gid: Some(gid),
        on_full: Some(on_full),
        reclaim: Some(reclaim),
        sparse: Some(sparse),
        deadline: Some(deadline),
        kill: KillFragment {
            victim: Some(kill.victim),
            scope: Some(kill.scope),
            protect: Some(kill.protect),
            cooldown: Some(kill.cooldown),
        },
        ..Fragment::default()
    }
}

/// Each key once, in the order of the file, with the value and the origin that count.
fn text<'a>(file: &[Section], layers: impl Iterator<Item = (&'a str, Vec<Said>)>) -> String {
    let mut merged: BTreeMap<_, Sourced<'_>> = BTreeMap::new();
    for (origin, said) in layers {
        for said in said {
            let table = file.iter().position(|section| section.name == said.table);
            let key = table.and_then(|at| file[at].keys.iter().position(|key| *key == said.key));
            merged.insert((table, key), Sourced(said, origin));
        }
    }
    in_tables(merged.into_values(), |Sourced(said, origin)| {
        format!("{} = {}  # {}", said.key, said.value, origin.escape_debug())
    })
}

struct Sourced<'a>(Said, &'a str);

impl std::borrow::Borrow<Said> for Sourced<'_> {
    fn borrow(&self) -> &Said {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use memcharge_policy::{Bytes, KillScope, KillVictim, SizeCap};

    use super::*;
    use crate::{fragment::Accounts, merge};

    fn layer(origin: &str, says: Fragment) -> Layer<Fragment> {
        Layer { origin: origin.to_owned(), says }
    }

    fn layers() -> Vec<Layer<Fragment>> {
        vec![
            layer(
                "/etc/memcharge/memcharged.toml",
                Fragment {
                    mode: Some(0o750),
                    size: Some(SizeCap::Bytes(Bytes::mib(2))),
                    kill: KillFragment { victim: Some(KillVictim::Newest), ..KillFragment::default() },
                    ..Fragment::default()
                },
            ),
            layer(
                "/etc/memcharge/mounts.d/m.toml",
                Fragment {
                    place: Some("/srv/a # b".into()),
                    target: Some("m.slice".parse().unwrap()),
                    ..Fragment::default()
                },
            ),
            layer(
                "/run/a\nb",
                Fragment {
                    size: Some(SizeCap::Percent(50)),
                    kill: KillFragment { scope: Some(KillScope::Cgroup), ..KillFragment::default() },
                    ..Fragment::default()
                },
            ),
        ]
    }

    #[test]
    fn each_value_names_the_file_that_counts() {
        let expected = "where = \"/srv/a # b\"  # /etc/memcharge/mounts.d/m.toml\n\
            target = \"m.slice\"  # /etc/memcharge/mounts.d/m.toml\n\
            options = [\"nosuid\", \"nodev\"]  # built-in default\n\
            size = \"50%\"  # /run/a\\nb\n\
            mode = \"0750\"  # /etc/memcharge/memcharged.toml\n\
            uid = 0  # built-in default\n\
            gid = 0  # built-in default\n\
            on-full = \"enospc\"  # built-in default\n\
            reclaim = true  # built-in default\n\
            sparse = \"reserve\"  # built-in default\n\
            deadline = \"200ms\"  # built-in default\n\n\
            [kill]\n\
            victim = \"newest\"  # /etc/memcharge/memcharged.toml\n\
            scope = \"cgroup\"  # /run/a\\nb\n\
            protect = []  # built-in default\n\
            cooldown = \"15s\"  # built-in default\n";
        assert_eq!(cat_mount(&layers()), expected);
    }

    #[test]
    fn the_text_is_read_back_as_what_was_merged() {
        let merged = layers().into_iter().fold(built_in_mount(), |merged, layer| merge(merged, layer.says));
        let accounts = Accounts { user: &|_| None, group: &|_| None };
        assert_eq!(Fragment::parse(&cat_mount(&layers()), accounts).unwrap(), merged);
    }

    #[test]
    fn the_main_file_has_its_tables() {
        let says = MainFragment {
            history: HistoryFragment { max_entries: Some(7), ..HistoryFragment::default() },
            defaults: Fragment { inodes: Some(9), ..Fragment::default() },
            ..MainFragment::default()
        };
        let text = cat_main(&[Layer { origin: "/f".to_owned(), says }]);
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
        assert_eq!(heads, ["[history]", "[defaults]", "[defaults.kill]"]);
        assert!(
            text.starts_with(
                "log-level = \"info\"  # built-in default\n\n[history]\nmax-entries = 7  # /f\n"
            )
        );
        assert!(text.contains("inodes = 9  # /f\n"), "{text}");
    }
}
