//! A fragment as the text of a file.

use std::{fmt::Display, time::Duration};

use toml::Value;

use crate::fragment::{Fragment, KillFragment};

impl Fragment {
    /// The fragment as the text of a `mounts.d/NAME.toml`; users and groups are written as numbers. If
    /// [`crate::check()`] finds nothing wrong, [`Fragment::parse`] reads the text back as the same fragment.
    pub fn to_toml(&self) -> String {
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
        let mut out = Lines::default();
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
        if *kill != KillFragment::default() {
            out.text.push_str("\n[kill]\n");
        }
        out.quoted("victim", victim.as_ref());
        out.quoted("scope", scope.as_ref());
        out.list("protect", protect.as_deref());
        out.quoted("cooldown", cooldown.map(span).as_ref());
        out.text
    }
}

#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn plain(&mut self, key: &str, value: Option<&impl Display>) {
        if let Some(value) = value {
            self.text.push_str(&format!("{key} = {value}\n"));
        }
    }

    fn quoted(&mut self, key: &str, value: Option<&impl Display>) {
        self.plain(key, value.map(quote).as_ref());
    }

    fn list(&mut self, key: &str, values: Option<&[impl Display]>) {
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
