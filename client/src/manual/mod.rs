//! The manual page memchargectl(1): verbs and options from the definition of the command line, the rest by hand. A
//! test holds `docs/man/memchargectl.1` against it; `BLESS=1` has the test write the file.

mod texts;

use std::{
    env, fs,
    io::{self, Write},
    process::{Command as Program, Stdio},
};

use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;

use self::texts::{HEAD, MORE, TAIL};
use crate::cli::Cli;

/// The checked-in page.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/man/memchargectl.1");

/// The whole page. The definition is not built here, which leaves the options for all verbs out of each of them.
fn page() -> io::Result<Vec<u8>> {
    let cli = Cli::command();
    let mut out = HEAD.as_bytes().to_vec();
    writeln!(out, ".SH OPTIONS\nThese may stand before or after the verb.")?;
    options(&mut out, &cli)?;
    writeln!(out, ".SH VERBS")?;
    for verb in verbs(&cli) {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(out, ".SS \"{}\"\n{}.", usage(verb), escaped(&about))?;
        if let Some((_, more)) = MORE.iter().find(|(name, _)| *name == verb.get_name()) {
            out.extend_from_slice(more.trim_start().as_bytes());
        }
        options(&mut out, &verb.clone().disable_help_flag(true))?;
    }
    out.extend_from_slice(TAIL.as_bytes());
    Ok(out)
}

fn verbs(cli: &Command) -> impl Iterator<Item = &Command> {
    cli.get_subcommands().filter(|verb| !verb.is_hide_set())
}

/// The options and arguments, without the heading that they would have on a page of their own.
fn options(out: &mut Vec<u8>, command: &Command) -> io::Result<()> {
    let mut section = Vec::new();
    Man::new(command.clone().disable_help_subcommand(true)).render_options_section(&mut section)?;
    let lines = String::from_utf8_lossy(&section).into_owned();
    lines.lines().filter(|line| !line.starts_with(".SH ")).try_for_each(|line| writeln!(out, "{line}"))
}

/// The verb with the arguments that it needs: `mount NAME --where DIR --target CG [OPTIONS]`.
fn usage(verb: &Command) -> String {
    let value = |arg: &Arg| match arg.get_value_names() {
        Some([name, ..]) => name.to_string(),
        _ => arg.get_id().as_str().to_uppercase(),
    };
    let mut words = vec![verb.get_name().to_owned()];
    words.extend(verb.get_positionals().map(|arg| {
        let many = if arg.get_num_args().is_some_and(|n| n.max_values() > 1) { "..." } else { "" };
        if arg.is_required_set() { value(arg) + many } else { format!("[{}]", value(arg)) }
    }));
    let named = verb.get_opts().filter(|arg| arg.is_required_set());
    words.extend(named.map(|arg| format!("--{} {}", arg.get_long().unwrap_or_default(), value(arg))));
    if verb.get_arguments().any(|arg| !arg.is_positional() && !arg.is_required_set()) {
        words.push("[OPTIONS]".to_owned());
    }
    escaped(&words.join(" "))
}

/// Text of the definition, as roff takes it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq")
}

#[test]
fn the_page_is_that_of_the_command_line() {
    let page = String::from_utf8(page().unwrap()).unwrap();
    if env::var("BLESS").is_ok_and(|value| value == "1") {
        fs::write(PAGE, &page).unwrap();
    }
    let found = fs::read_to_string(PAGE).unwrap_or_default();
    let changed = page.lines().zip(found.lines()).find(|(new, old)| new != old);
    assert!(
        page == found,
        "docs/man/memchargectl.1 is out of date: BLESS=1 cargo test -p memchargectl manual; {changed:?}"
    );
}

#[test]
fn every_verb_and_option_is_on_the_page_once() {
    let (cli, page) = (Cli::command(), String::from_utf8(page().unwrap()).unwrap());
    let sections: Vec<&str> = page.split("\n.SS ").skip(1).collect();
    for verb in verbs(&cli) {
        let begin = format!("\"{}", escaped(verb.get_name()));
        let own: Vec<&&str> = sections
            .iter()
            .filter(|text| text.strip_prefix(&begin).is_some_and(|rest| rest.starts_with([' ', '"'])))
            .collect();
        assert_eq!(own.len(), 1, "{}", verb.get_name());
        for option in verb.get_opts().filter_map(Arg::get_long) {
            assert!(own[0].contains(&escaped(&format!("--{option}"))), "{} {option}", verb.get_name());
        }
    }
    for (name, _) in MORE {
        assert!(verbs(&cli).any(|verb| verb.get_name() == *name), "there is no verb {name}");
    }
}

#[test]
fn roff_has_nothing_to_complain_about() {
    let mut command = Program::new("groff");
    command.args(["-man", "-Tutf8", "-ww", "-z"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut groff) = command.spawn() else {
        eprintln!("skipped: groff is not installed");
        return;
    };
    groff.stdin.take().unwrap().write_all(&page().unwrap()).unwrap();
    let output = groff.wait_with_output().unwrap();
    assert_eq!((String::from_utf8_lossy(&output.stderr).as_ref(), output.status.success()), ("", true));
}

#[test]
fn usage_has_what_is_needed() {
    let cli = Cli::command();
    for (name, shown) in [
        ("list", "list"),
        ("status", "status [NAME]"),
        ("set", "set NAME KEY=VALUE..."),
        ("cat-config", "cat\\-config [NAME]"),
        ("mount", "mount NAME \\-\\-where DIR \\-\\-target CG [OPTIONS]"),
    ] {
        assert_eq!(usage(cli.find_subcommand(name).unwrap()), shown);
    }
}
