//! The manual page of the bus contract, from the XML; and what holds the other pages against the code.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use zbus_xml::{Arg, ArgDirection, Interface, Node, Property, PropertyAccess};

use crate::codegen::{EMITS_CHANGED, Failure, contract, next_comment};

/// Where the page is, below the root.
pub(crate) const PAGE: &str = "docs/man/org.memcharge.Memcharge1.5";

/// Where the errors stand with what they mean, below the root.
const ERRORS: &str = "dbus-interfaces/src/error.rs";

/// Longer lines of text are broken; how the page looks does not depend on it.
const LINE: usize = 110;

/// Begins the page. What follows are the interfaces.
const HEAD: &str = r#".\" Generated from dbus-interfaces/xml by `cargo xtask codegen`, not to be edited.
.TH ORG.MEMCHARGE.MEMCHARGE1 5 "" memcharge "File formats"
.SH NAME
org.memcharge.Memcharge1 \- the D\-Bus interface of memcharged
.SH SYNOPSIS
.nf
.B busctl tree org.memcharge.Memcharge1
.B busctl introspect org.memcharge.Memcharge1 /org/memcharge/Memcharge1
.B busctl monitor org.memcharge.Memcharge1
.fi
.SH DESCRIPTION
.BR memcharged (8)
owns the name
.B org.memcharge.Memcharge1
on the system bus.
A call starts it where it is enabled.
Its objects:
.TP
.I /org/memcharge/Memcharge1
The manager.
It has
.B org.freedesktop.DBus.ObjectManager
as well, which tells of mounts and targets that come and go.
.TP
.I /org/memcharge/Memcharge1/mount/NAME
A mount.
In its name each byte but letters and digits, and a digit at the beginning, is written as
.B _
and two hex digits, as systemd does it for units.
.TP
.I /org/memcharge/Memcharge1/target/ID
A cgroup that pays for mounts, by its id in decimal, escaped likewise.
.TP
.I /org/freedesktop/LogControl1
The log level, for
.BR "systemctl service\-log\-level" .
.PP
Sizes are bytes
.RB ( t );
"no limit" is 2^64\-1.
Times are microseconds
.RB ( t )
and have the suffix
.BR USec .
The keys of options
.RB ( a{sv} )
are the names of properties, with their types; unknown keys and wrong types are refused.
.PP
Everybody may read properties and call the methods that change nothing.
The others need root or polkit; see
.BR memcharged (8).
"#;

/// Begins what follows the interfaces; each error comes behind it.
const BEFORE_ERRORS: &str = r#".SH ERRORS
Each has a message that says what was found and what to do.
Their names begin with
.BR org.memcharge.Memcharge1.Error. :
"#;

/// Ends the page.
const TAIL: &str = r#".PP
A caller that the bus or polkit refuses gets
.B org.freedesktop.DBus.Error.AccessDenied
or
.BR org.freedesktop.DBus.Error.InteractiveAuthorizationRequired .
A property that cannot be read is
.BR org.freedesktop.DBus.Error.Failed ,
with the message.
.SH FILES
.I /usr/share/dbus\-1/interfaces/org.memcharge.Memcharge1.*.xml
.SH "SEE ALSO"
.BR memcharged (8),
.BR memchargectl (1),
.BR memcharge.toml (5),
.BR busctl (1)
"#;

/// The page that belongs to the XML files below `root`.
pub(crate) fn page(root: &Path) -> Result<String, Failure> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let mut out = HEAD.to_owned();
    for path in contract(root)? {
        chapter(&mut out, &read(&path)?).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    out.push_str(BEFORE_ERRORS);
    let errors = errors(&read(&root.join(ERRORS))?);
    if errors.is_empty() {
        return Err(format!("{ERRORS}: no errors found").into());
    }
    for (name, meaning) in errors {
        item(&mut out, &format!(".B {}", escaped(&name)), &meaning)?;
    }
    out.push_str(TAIL);
    Ok(out)
}

/// What one XML file says.
fn chapter(out: &mut String, xml: &str) -> Result<(), Failure> {
    let node = Node::try_from(xml)?;
    let comments = Comments::of(xml);
    for interface in node.interfaces() {
        writeln!(out, ".SH \"INTERFACE {}\"", escaped(interface.name().as_str()))?;
        if let Some((_, about, _)) = next_comment(xml) {
            introduction(out, about)?;
        }
        members(out, interface, &comments)?;
    }
    Ok(())
}

fn members(out: &mut String, interface: &Interface<'_>, comments: &Comments) -> std::fmt::Result {
    let mut heading = Some(".SS Methods\n");
    for method in interface.methods() {
        out.push_str(heading.take().unwrap_or_default());
        let name = method.name();
        item(out, &signature(name.as_str(), method.args()), comments.on(name.as_str()))?;
    }
    let mut heading = Some(".SS Properties\n");
    for property in interface.properties() {
        out.push_str(heading.take().unwrap_or_default());
        let name = property.name();
        let tag = format!(".B {} {}", escaped(name.as_str()), escaped(&property.ty().inner().to_string()));
        item(out, &tag, &format!("{} {}", comments.on(name.as_str()), use_of(property)))?;
    }
    let mut heading = Some(".SS Signals\n");
    for signal in interface.signals() {
        out.push_str(heading.take().unwrap_or_default());
        let name = signal.name();
        item(out, &signature(name.as_str(), signal.args()), comments.on(name.as_str()))?;
    }
    Ok(())
}

/// As in `.BI "Mount(s " name ") \-> o " mount`: names in italics.
fn signature(name: &str, args: &[Arg]) -> String {
    let list = |wanted: bool| {
        let of_it = args.iter().filter(|arg| (arg.direction() == Some(ArgDirection::Out)) == wanted);
        let shown = of_it.map(|arg| format!("{} \" {}", arg.ty().inner(), arg.name().unwrap_or_default()));
        shown.collect::<Vec<_>>().join(" \", ")
    };
    let mut text = format!(".BI \"{name}(");
    let (given, returned) = (list(false), list(true));
    text.push_str(&if given.is_empty() { ")".to_owned() } else { format!("{given} \")") });
    match returned.as_str() {
        "" => text.push('"'),
        returned => write!(text, " -> {returned}").unwrap_or_default(),
    }
    escaped(&text)
}

fn use_of(property: &Property<'_>) -> String {
    let mode = property.annotations().iter().find(|a| a.name() == EMITS_CHANGED).map(|a| a.value());
    let changes = match mode {
        Some("const") => "never changes",
        Some("false") => "no signal of changes",
        Some("invalidates") => "a signal of changes, without the value",
        _ => "a signal of changes",
    };
    match property.access() {
        PropertyAccess::Read => format!("({changes})"),
        PropertyAccess::Write => format!("(write only; {changes})"),
        PropertyAccess::ReadWrite => format!("(can be written; {changes})"),
    }
}

/// Text before the first member: paragraphs. Lines that are indented more than the paragraph's first line are items:
/// what they are about, two spaces, and what they say.
fn introduction(out: &mut String, comment: &str) -> std::fmt::Result {
    for (number, paragraph) in comment.split("\n\n").enumerate() {
        let mut lines = paragraph.lines().filter(|line| !line.trim().is_empty()).peekable();
        let Some(left) = lines.peek().map(|line| indent(line)) else { continue };
        if number > 0 {
            out.push_str(".PP\n");
        }
        let mut text = String::new();
        while let Some(line) = lines.next_if(|line| indent(line) <= left) {
            text.push_str(line);
            text.push(' ');
        }
        fill(out, &text)?;
        let inner = lines.peek().map(|line| indent(line)).unwrap_or_default();
        while let Some(line) = lines.next() {
            let (tag, text) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
            let mut text = text.to_owned();
            while let Some(more) = lines.next_if(|line| indent(line) > inner) {
                text.push(' ');
                text.push_str(more);
            }
            item(out, &format!(".B {}", escaped(tag)), &text)?;
        }
    }
    Ok(())
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn item(out: &mut String, tag: &str, text: &str) -> std::fmt::Result {
    writeln!(out, ".TP\n{tag}")?;
    fill(out, text)
}

/// Text in lines, without any that roff would take for a request.
fn fill(out: &mut String, text: &str) -> std::fmt::Result {
    let mut line = String::new();
    for word in text.split_whitespace().map(escaped) {
        // After the end of a sentence roff wants a new line.
        let ends = line.ends_with(['.', '?']) || line.ends_with(".)");
        if !line.is_empty() && (ends || line.len() + word.len() >= LINE) {
            writeln!(out, "{line}")?;
            line.clear();
        }
        match line.is_empty() {
            true if word.starts_with(['.', '\'']) => line.push_str("\\&"),
            true => {}
            false => line.push(' '),
        }
        line.push_str(&word);
    }
    if line.is_empty() { Ok(()) } else { writeln!(out, "{line}") }
}

/// Text that roff writes as it stands, for people to copy.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '`' => out.push_str("\\(ga"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            c => out.push(c),
        }
        out
    })
}

/// The comments `Name: text` of a file, by name.
struct Comments(BTreeMap<String, String>);

impl Comments {
    fn of(xml: &str) -> Self {
        let mut found = BTreeMap::new();
        let mut rest = xml;
        while let Some((_, comment, after)) = next_comment(rest) {
            rest = after;
            if let Some((name, text)) = comment.split_once(':') {
                found.insert(name.trim().to_owned(), text.trim().to_owned());
            }
        }
        Self(found)
    }

    /// What is said of a member; empty: nothing.
    fn on(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// The names in the macro call `errors!(...)` of a Rust source, each with its doc comment.
fn errors(source: &str) -> Vec<(String, String)> {
    let body = source.split_once("\nerrors!(").and_then(|(_, rest)| rest.split_once("\n);"));
    let (mut found, mut doc) = (Vec::new(), String::new());
    for line in body.map_or("", |(body, _)| body).lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
        } else if let Some(name) = line.strip_suffix(',') {
            found.push((name.to_owned(), std::mem::take(&mut doc)));
        }
    }
    found
}

#[cfg(test)]
mod tests;
