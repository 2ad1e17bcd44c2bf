//! Proxies and a manual page from the XML contract, so that they cannot drift apart.

use std::{
    error::Error,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use zbus_xml::{Interface, Node};
use zbus_xmlgen::CodeGenerator;

use crate::manual;

/// Whatever goes wrong: it is only shown.
pub(crate) type Failure = Box<dyn Error>;

/// Where the contract is, below the root.
pub(crate) const XML_DIR: &str = "dbus-interfaces/xml";

/// The annotation that says whether a property tells about its changes.
pub(crate) const EMITS_CHANGED: &str = "org.freedesktop.DBus.Property.EmitsChangedSignal";

const GENERATED_DIR: &str = "dbus-interfaces/src/generated";
const BUS_NAME: &str = "org.memcharge.Memcharge1";

/// Writes the generated files below `root`, the workspace. With `check` it writes nothing, and fails where a file
/// is not what would be written.
pub(crate) fn run(root: &Path, check: bool) -> Result<(), Failure> {
    let page = (PathBuf::from(manual::PAGE), manual::page(root)?);
    for (file, content) in proxies(root)?.into_iter().chain([page]) {
        let path = root.join(&file);
        if fs::read_to_string(&path).is_ok_and(|found| found == content) {
            continue;
        }
        if check {
            let shown = file.display();
            return Err(format!("{shown} does not match {XML_DIR}; run: cargo xtask codegen").into());
        }
        fs::write(&path, content).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// The XML files below `root`, ordered by name.
pub(crate) fn contract(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let xml_dir = root.join(XML_DIR);
    let mut paths = fs::read_dir(&xml_dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
        .map_err(|e| format!("{}: {e}", xml_dir.display()))?;
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "xml"));
    paths.sort();
    Ok(paths)
}

/// The proxies: their places below `root`, and contents as rustfmt leaves them.
/// Methods that change something: whoever calls them may be asked for a password.
const CHANGING: [&str; 6] = ["mount", "unmount", "reload", "set_policy", "revert_policy", "recover"];

fn proxies(root: &Path) -> Result<Vec<(PathBuf, String)>, Failure> {
    let placed = |(file, content)| (Path::new(GENERATED_DIR).join::<PathBuf>(file), content);
    contract(root)?.iter().map(|path| proxy_file(path).map(placed)).collect()
}

fn proxy_file(path: &Path) -> Result<(PathBuf, String), Failure> {
    let in_file = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let xml = fs::read_to_string(path).map_err(|e| in_file(&e))?;
    let documented = comments_as_docs(&xml);
    let node = Node::try_from(documented.as_str()).map_err(|e| in_file(&e))?;
    let [interface] = node.interfaces() else { return Err(in_file(&"not exactly one interface").into()) };
    let last = interface.name().as_str().rsplit('.').next().unwrap_or_default().to_lowercase();

    let service = BUS_NAME.try_into()?;
    let object = node.name().map(TryInto::try_into).transpose()?;
    let code = CodeGenerator::new()
        .with_service(Some(&service))
        .with_path(object.as_ref())
        .interface_code(interface)?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name = interface.name();
    let source = format!(
        "//! Proxy of `{name}`: generated from `xml/{file}` by `cargo xtask codegen`, not to be edited.\n\n\
         use zbus::proxy;\n\n{}\n\
         /// Calls `{name}`.\n{}",
        property_names(interface),
        with_change_signals(&code, interface)
    );
    Ok((PathBuf::from(last).with_extension("rs"), rustfmt(&source, path)?))
}

/// A constant with the names of the properties: a reader must ask for each by name where one of them can fail.
fn property_names(interface: &Interface<'_>) -> String {
    let names: Vec<String> =
        interface.properties().iter().map(|p| format!("{:?}", p.name().as_str())).collect();
    format!(
        "/// The properties of `{}`, in the order of the contract.\npub const PROPERTIES: [&str; {}] = [{}];\n",
        interface.name(),
        names.len(),
        names.join(", ")
    )
}

/// Turns each comment `Name: text` in front of a member of that name into a doc string inside of it, where the
/// generator looks for one.
pub(crate) fn comments_as_docs(xml: &str) -> String {
    let mut out = String::with_capacity(xml.len());
    let mut rest = xml;
    while let Some((before, comment, after)) = next_comment(rest) {
        out.push_str(before);
        rest = after;
        let Some((name, text)) = comment.split_once(':') else { continue };
        let marker = format!("name=\"{}\"", name.trim());
        let Some(end) = rest.find('>') else { continue };
        let tag = &rest[..end];
        if tag.contains(&marker) {
            let doc = format!("<docstring>{}</docstring>", text.trim());
            match tag.strip_suffix('/') {
                // An empty element has no inside yet.
                Some(tag) => {
                    let kind = tag.trim_start_matches([' ', '\n', '<']).split(' ').next().unwrap_or_default();
                    out.push_str(&format!("{tag}>{doc}</{kind}>"));
                }
                None => out.push_str(&format!("{tag}>{doc}")),
            }
            rest = &rest[end + 1..];
        }
    }
    out + rest
}

/// What is before the next comment, in it and after it.
pub(crate) fn next_comment(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("<!--")?;
    let (comment, after) = rest.split_once("-->")?;
    Some((before, comment, after))
}

/// Adds what the generator leaves out: which properties tell about their changes. Without it a proxy would cache
/// a figure for ever.
fn with_change_signals(code: &str, interface: &Interface<'_>) -> String {
    let mut mode = None;
    let mut out = String::with_capacity(code.len());
    for line in code.lines() {
        if let Some(name) = line.trim().strip_prefix("/// ").and_then(|doc| doc.strip_suffix(" property")) {
            mode = interface.properties().iter().find(|p| p.name() == name).and_then(|property| {
                property.annotations().iter().find(|a| a.name() == EMITS_CHANGED).map(|a| a.value())
            });
        }
        if CHANGING.iter().any(|method| line.trim().starts_with(&format!("fn {method}("))) {
            out.push_str("#[zbus(allow_interactive_auth)]\n");
        }
        match mode.filter(|mode| *mode != "true" && line.trim().starts_with("#[zbus(property")) {
            Some(mode) => {
                let attribute = format!("#[zbus(property(emits_changed_signal = \"{mode}\")");
                out.push_str(&line.replacen("#[zbus(property", &attribute, 1));
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// The source as `cargo fmt` leaves it; `near` is a file below the workspace, from where rustfmt looks for its
/// settings.
fn rustfmt(source: &str, near: &Path) -> Result<String, Failure> {
    let folder = near.parent().unwrap_or(near);
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("rustfmt: {e}"))?;
    // The source is larger than a pipe: it must be written while the output is read.
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(source.as_bytes())));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        return Err(format!("rustfmt failed on the code generated from {}", near.display()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_of_a_member_becomes_its_doc() {
        let xml = r#"<!-- File: all --><a><!-- X: does x. --> <method name="X"></method><method name="Y"/>
            <!-- Z: does z. --><method name="Z"/></a>"#;
        assert_eq!(
            comments_as_docs(xml),
            r#"<a> <method name="X"><docstring>does x.</docstring></method><method name="Y"/>
            <method name="Z"><docstring>does z.</docstring></method></a>"#
        );
    }

    #[test]
    fn what_is_checked_in_is_what_is_generated() -> Result<(), Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no workspace")?;
        run(root, true)
    }
}
