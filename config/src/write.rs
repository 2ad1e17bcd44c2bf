//! Fragments as text: what a file would say, key by key.

use std::{fmt::Display, time::Duration};

use toml::Value;

use crate::{
    fragment::{Fragment, KillFragment},
    main_file::{HistoryFragment, MainFragment},
};

/// One key with its value, as a file says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// The table that the key is in; empty: none.
    pub(crate) table: &'static str,
    /// The key.
    pub(crate) key: &'static str,
    /// The value, in TOML.
    pub(crate) value: String,
}

impl Fragment {
    /// The fragment as the text of a `mounts.d/NAME.toml`; users and groups are written as numbers. If
    /// [`crate::check()`] finds nothing wrong, [`Fragment::parse`] reads the text back as the same fragment.
    pub fn to_toml(&self) -> String {
        in_tables(self.said(["", "kill"]), |said| format!("{} = {}", said.key, said.value))
    }

    /// All keys that are there, in the order of the manual; `tables` are those that they are in: of a mount, and of
    /// `[kill]`.
    pub(crate) fn said(&self, [top, kill_table]: [&'static str; 2]) -> Vec<Said> {
        let Self {
            place,
            target,
            options,
            size,
            inodes,
            mode,
            uid,
            gid,
            on_full,
            reserve,
            reclaim,
            sparse,
            deadline,
            kill,
        } = self;
        let mut out = Sayer { table: top, said: Vec::new() };
        out.quoted("where", place.as_ref());
        out.quoted("target", target.as_ref());
        out.list("options", options.as_deref());
        out.quoted("size", size.as_ref());
        out.plain("inodes", inodes.as_ref());
        out.quoted("mode", mode.map(|mode| format!("{mode:04o}")).as_ref());
        out.plain("uid", uid.as_ref());
        out.plain("gid", gid.as_ref());
        out.quoted("on-full", on_full.as_ref());
        out.quoted("reserve", reserve.as_ref());
        out.plain("reclaim", reclaim.as_ref());
        out.quoted("sparse", sparse.as_ref());
        out.quoted("deadline", deadline.map(span).as_ref());
        let KillFragment { victim, scope, protect, cooldown } = kill;
        out.table = kill_table;
        out.quoted("victim", victim.as_ref());
        out.quoted("scope", scope.as_ref());
        out.list("protect", protect.as_deref());
        out.quoted("cooldown", cooldown.map(span).as_ref());
        out.said
    }
}

impl MainFragment {
    /// All keys that are there, in the order of the manual.
    pub(crate) fn said(&self) -> Vec<Said> {
        let Self { log_level, history: HistoryFragment { max_entries, max_size }, defaults } = self;
        let mut out = Sayer { table: "", said: Vec::new() };
        out.quoted("log-level", log_level.as_ref());
        out.table = "history";
        out.plain("max-entries", max_entries.as_ref());
        out.quoted("max-size", max_size.as_ref());
        out.said.extend(defaults.said(["defaults", "defaults.kill"]));
        out.said
    }
}

/// Lines under the heads of their tables, which have to stand together.
pub(crate) fn in_tables<'a, S: std::borrow::Borrow<Said> + 'a>(
    said: impl IntoIterator<Item = S>,
    line: impl Fn(&S) -> String,
) -> String {
    let (mut text, mut table) = (String::new(), "");
    for said in said {
        let here = said.borrow().table;
        if here != table {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{here}]\n"));
            table = here;
        }
        text.push_str(&line(&said));
        text.push('\n');
    }
    text
}

struct Sayer {
    table: &'static str,
    said: Vec<Said>,
}

impl Sayer {
    fn plain(&mut self, key: &'static str, value: Option<&impl Display>) {
        let table = self.table;
        self.said.extend(value.map(|value| Said { table, key, value: value.to_string() }));
    }

    fn quoted(&mut self, key: &'static str, value: Option<&impl Display>) {
        self.plain(key, value.map(quote).as_ref());
    }

    fn list(&mut self, key: &'static str, values: Option<&[impl Display]>) {
        let list = values.map(|values| {
            let parts: Vec<String> = values.iter().map(|value| quote(value).to_string()).collect();
            format!("[{}]", parts.join(", "))
        });
        self.plain(key, list.as_ref());
    }
}

fn quote(value: &impl Display) -> Value {
    Value::String(value.to_string())
}

/// A time span in the largest unit that keeps it whole.
fn span(span: Duration) -> String {
    match span.as_micros() {
        usec if usec % 1_000_000 == 0 => format!("{}s", usec / 1_000_000),
        usec if usec % 1_000 == 0 => format!("{}ms", usec / 1_000),
        usec => format!("{usec}us"),
    }
}

#[cfg(test)]
mod tests {
    use memcharge_policy::{Bytes, KillVictim, MountOption, SizeCap, Target};

    use super::*;

    #[test]
    fn a_file_in_the_order_of_the_manual() {
        let fragment = Fragment {
            place: Some("/srv/a \"b\"".into()),
            target: Some(Target::Path("/a\\b".into())),
            options: Some(vec![MountOption::Nosuid, MountOption::Ro]),
            size: Some(SizeCap::Bytes(Bytes::mib(2))),
            inodes: Some(5),
            mode: Some(0o755),
            deadline: Some(Duration::from_millis(1500)),
            kill: KillFragment { victim: Some(KillVictim::OomScore), ..KillFragment::default() },
            ..Fragment::default()
        };
        let text = "where = '/srv/a \"b\"'\ntarget = '/a\\b'\noptions = [\"nosuid\", \"ro\"]\nsize = \"2M\"\n\
                    inodes = 5\nmode = \"0755\"\ndeadline = \"1500ms\"\n\n[kill]\nvictim = \"oom-score\"\n";
        assert_eq!(fragment.to_toml(), text);
        assert_eq!(Fragment::default().to_toml(), "");
    }
}
