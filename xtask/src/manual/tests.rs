//! The pages say what the code has, and nothing else.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::*;

const PAGES: [&str; 3] =
    ["docs/man/memcharge.toml.5", "docs/man/memcharged.8", "docs/man/org.memcharge.Memcharge1.5"];

fn root() -> PathBuf {
    crate::run::root()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The text of a line of roff: without the macro, fonts and escapes.
fn plain(line: &str) -> String {
    let words = line.split_once(' ').filter(|_| line.starts_with('.')).map_or(line, |(_, words)| words);
    let fonts =
        ["\\fI", "\\fB", "\\fP"].into_iter().fold(words.to_owned(), |text, font| text.replace(font, ""));
    fonts.replace("\\-", "-").replace("\\(dq", "\"")
}

/// The first word of each item in the sections whose headings begin so.
fn items(page: &str, section: &str) -> Vec<String> {
    let (mut found, mut is_in, mut is_tag) = (Vec::new(), false, false);
    let mut depth = 0;
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix(".SH ") {
            is_in = heading.trim_matches('"').starts_with(section);
        }
        depth += usize::from(line == ".RS");
        depth -= usize::from(line == ".RE");
        if is_in && is_tag && depth == 0 {
            found.extend(plain(line).split_whitespace().next().map(str::to_owned));
        }
        is_tag = matches!(line, ".TP" | ".TQ");
    }
    found
}

#[test]
fn every_key_of_the_configuration_is_in_the_manual() {
    let page = read("docs/man/memcharge.toml.5");
    let mut said = items(&page, "KEYS");
    said.extend(items(&page, "RESERVED KEYS"));
    let known: BTreeSet<_> = memcharge_config::keys().map(|(_, key)| key.to_owned()).collect();
    assert_eq!(BTreeSet::from_iter(said.clone()), known);
    assert_eq!(said.len(), known.len(), "each of them once: {said:?}");
}

/// The long options of a source with clap's attributes, without those that are hidden.
fn long_options(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (_, rest) in source.match_indices("#[arg(").map(|(at, _)| source.split_at(at)) {
        let Some((attribute, rest)) = rest.split_once(")]") else { continue };
        let field = rest.trim_start().trim_start_matches("pub(crate) ").split(':').next().unwrap_or_default();
        if attribute.contains("long") && !attribute.contains("hide = true") {
            found.push(format!("--{}", field.replace('_', "-")));
        }
    }
    found
}

#[test]
fn every_option_of_the_daemon_is_in_the_manual() {
    let page = read("docs/man/memcharged.8");
    let options = long_options(&read("daemon/src/cli.rs"));
    assert!(options.len() >= 3, "{options:?}");
    let known: Vec<_> = options.iter().map(String::as_str).chain(["-h", "-V"]).collect();
    let said = items(&page, "OPTIONS");
    assert_eq!(said, known, "in the order of the source");
}

#[test]
fn what_the_log_says_is_in_the_manual() {
    let page = plain(&read("docs/man/memcharged.8"));
    let source = read("daemon/src/history/entry.rs");
    let quoted: Vec<_> = source.split('"').skip(1).step_by(2).collect();
    let ids = quoted.iter().filter(|text| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(ids.clone().count(), 4);
    let fields = quoted.iter().filter_map(|text| text.strip_prefix("MEMCHARGE_"));
    for word in ids.copied().chain(fields) {
        assert!(
            page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|found| found == word),
            "{word}"
        );
    }
}

#[test]
fn every_member_and_error_is_on_the_page() {
    let page = page(&root()).unwrap();
    for path in contract(&root()).unwrap() {
        let xml = fs::read_to_string(&path).unwrap();
        for interface in Node::try_from(xml.as_str()).unwrap().interfaces() {
            let heading = format!(".SH \"INTERFACE {}\"\n", interface.name());
            let (_, chapter) = page.split_once(&heading).unwrap();
            let methods = interface.methods().iter().map(|method| format!("\"{}(", method.name()));
            let signals = interface.signals().iter().map(|signal| format!("\"{}(", signal.name()));
            let properties = interface.properties().iter().map(|property| format!(".B {} ", property.name()));
            for member in methods.chain(signals).chain(properties) {
                assert!(chapter.contains(&member), "{member}");
            }
        }
    }
    for error in ["NotPermitted", "NoSuchMount", "Failed"] {
        assert!(page.contains(&format!("\n.B {error}\n")), "{error}");
    }
    for key in ["Id s", "Repeats t", "VictimPid u, VictimComm s, VictimCgroup s"] {
        assert!(page.contains(&format!(".TP\n.B {key}\n")), "{key}");
    }
}

#[test]
fn a_contract_becomes_a_chapter() {
    let xml = r#"<!--
  A thing, at /x. Sizes are bytes.

  An event has these keys:
    Id s     its identity
    Why s    why: room,
             policy
-->
<node>
  <interface name="org.x.Y">
    <!-- Make: Makes one; see 'x'.
         .hidden -->
    <method name="Make"><arg name="name" type="s" direction="in"/><arg name="o" type="a{sv}" direction="in"/>
      <arg name="made" type="o" direction="out"/></method>
    <method name="End"/>
    <property name="SizeMax" type="t" access="read">
      <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="const"/>
    </property>
    <signal name="New"><arg name="name" type="s"/></signal>
  </interface>
</node>"#;
    let mut out = String::new();
    chapter(&mut out, xml).unwrap();
    assert_eq!(
        out,
        r#".SH "INTERFACE org.x.Y"
A thing, at /x.
Sizes are bytes.
.PP
An event has these keys:
.TP
.B Id s
its identity
.TP
.B Why s
why: room, policy
.SS Methods
.TP
.BI "Make(s " name ", a{sv} " o ") \-> o " made
Makes one; see 'x'.
\&.hidden
.TP
.BI "End()"
.SS Properties
.TP
.B SizeMax t
(never changes)
.SS Signals
.TP
.BI "New(s " name ")"
"#
    );
}

/// Without groff there is nothing to ask.
#[test]
fn roff_has_no_complaint() {
    for page in PAGES {
        let mut groff = Command::new("groff");
        groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(root().join(page)).stdin(Stdio::null());
        let Ok(output) = groff.output() else {
            eprintln!("groff is not installed: the manual pages are not checked");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{page}: {said}");
    }
}
