//! `check`: what is wrong with the configuration on disk, asked of the daemon or, where none runs, of its program.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use serde_json::{Value as Json, json};
use zbus::{
    proxy::MethodFlags,
    zvariant::{OwnedValue, Value},
};

use crate::{
    bus::Bus,
    cli::{JsonMode, View},
    error::{ClientError, FAILED},
    json::escape_controls,
    output::{Report, json_text},
};

const DAEMON: &str = "memcharged";
const DAEMON_FOLDER: &str = "/usr/sbin";

/// One error in the configuration.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    file: String,
    /// 0: the whole file.
    line: u64,
    message: String,
}

/// Checks the configuration. Exit code 1 if there is something to find.
pub(crate) async fn run(view: View) -> Result<Report, ClientError> {
    match ask_daemon().await {
        Ok(findings) => Ok(render(&findings, view)),
        Err(ClientError::NoBus(_) | ClientError::NotRunning(_)) => run_program(view),
        Err(error) => Err(error),
    }
}

async fn ask_daemon() -> Result<Vec<Finding>, ClientError> {
    let bus = Bus::connect_as_it_is().await?;
    let proxy = bus.manager.inner();
    // A check must not start the daemon, and with it mounts from a configuration that is in doubt.
    let flags = MethodFlags::NoAutoStart.into();
    let answer: Option<Vec<HashMap<String, OwnedValue>>> =
        proxy.call_with_flags("CheckConfig", flags, &()).await?;
    let entries = answer.unwrap_or_default();
    Ok(entries.iter().map(finding).collect())
}

fn finding(entry: &HashMap<String, OwnedValue>) -> Finding {
    let text = |key: &str| match entry.get(key).map(|value| &**value) {
        Some(Value::Str(text)) => text.to_string(),
        _ => String::new(),
    };
    let line = match entry.get("Line").map(|value| &**value) {
        Some(Value::U32(line)) => u64::from(*line),
        _ => 0,
    };
    Finding { file: text("File"), line, message: text("Message") }
}

fn render(findings: &[Finding], view: View) -> Report {
    let text = json_text(view, || findings.iter().map(finding_json).collect())
        .unwrap_or_else(|| findings.iter().map(finding_line).collect());
    Report { text, code: if findings.is_empty() { 0 } else { FAILED } }
}

fn finding_json(finding: &Finding) -> Json {
    json!({"file": finding.file, "line": finding.line, "message": finding.message})
}

fn finding_line(Finding { file, line, message }: &Finding) -> String {
    let (file, message) = (escape_controls(file), escape_controls(message));
    match line {
        0 => format!("{file}: {message}\n"),
        line => format!("{file}:{line}: {message}\n"),
    }
}

/// Runs `memcharged --check-config`. Its output and its exit code are passed on.
fn run_program(view: View) -> Result<Report, ClientError> {
    let program = find_program(env::var_os("PATH").as_deref()).ok_or(ClientError::NoChecker)?;
    let not_started = |error| ClientError::Start(program.display().to_string(), error);
    let mut command = Command::new(&program);
    command.arg("--check-config");
    if view.json == JsonMode::Off {
        if view.quiet {
            command.stdout(Stdio::null());
        }
        let status = command.status().map_err(not_started)?;
        return Ok(Report { text: String::new(), code: code_of(status) });
    }
    let output = command.output().map_err(not_started)?;
    // Standard output says only that all is well.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = said.lines().filter(|line| !line.trim().is_empty());
    let findings: Vec<Finding> = lines.map(parse_line).collect();
    Ok(Report { code: code_of(output.status), ..render(&findings, view) })
}

/// A program that was killed has failed.
fn code_of(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

/// Takes `FILE:LINE: MESSAGE` apart; a line of another form is a message without a file.
fn parse_line(text: &str) -> Finding {
    let whole = || Finding { file: String::new(), line: 0, message: text.to_owned() };
    let Some((place, message)) = text.split_once(": ").filter(|(place, _)| place.starts_with('/')) else {
        return whole();
    };
    let numbered = place.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse().ok()?)));
    let (file, line) = numbered.unwrap_or((place, 0));
    Finding { file: file.to_owned(), line, message: message.to_owned() }
}

fn find_program(path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let listed = path.into_iter().flat_map(env::split_paths);
    let folders =
        std::iter::once(PathBuf::from(DAEMON_FOLDER)).chain(listed.filter(|folder| folder.is_absolute()));
    folders.map(|folder| folder.join(DAEMON)).find(|program| is_file(program))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::assert_valid;

    fn view(json: JsonMode) -> View {
        View { json, ..View::default() }
    }

    fn sample() -> [Finding; 2] {
        let finding =
            |line, message: &str| Finding { file: "/etc/m.toml".into(), line, message: message.into() };
        [finding(3, "unknown key `sise`"), finding(0, "no `where`")]
    }

    #[test]
    fn findings_name_file_and_line_and_fail() {
        let report = render(&sample(), view(JsonMode::Off));
        assert_eq!(report.text, "/etc/m.toml:3: unknown key `sise`\n/etc/m.toml: no `where`\n");
        assert_eq!(report.code, 1);
        assert_eq!(render(&[], view(JsonMode::Off)), Report::default());
        assert_eq!(render(&[], view(JsonMode::Short)).text, "[]\n");
        assert_valid("check", &render(&sample(), view(JsonMode::Short)).text);
    }

    #[test]
    fn entries_of_the_bus() {
        let value = |v: Value<'static>| OwnedValue::try_from(v).unwrap();
        let entry = HashMap::from([
            ("File".to_owned(), value("/etc/m.toml".into())),
            ("Line".to_owned(), value(3u32.into())),
            ("Message".to_owned(), value("unknown key `sise`".into())),
        ]);
        assert_eq!(finding(&entry), sample()[0]);
    }

    #[test]
    fn lines_of_the_program_are_taken_apart_for_json() {
        for found in sample() {
            assert_eq!(parse_line(finding_line(&found).trim_end()), found);
        }
        assert_eq!(parse_line("memcharged: odd").message, "memcharged: odd");
    }
}
