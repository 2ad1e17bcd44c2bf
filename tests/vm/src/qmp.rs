//! QEMU's control socket, as far as saving a machine's state needs it.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    error::{Context, VmError},
    process::quoted,
};

const SAVE_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
/// QEMU's own limit is made for networks and would take most of the time.
const UNLIMITED: u64 = 1 << 40;

/// Saves the state of the machine behind this socket, packed with zstd. The machine is stopped afterwards.
pub(crate) fn save_state(socket: &Path, state: &Path) -> Result<(), VmError> {
    let stream = UnixStream::connect(socket).at("cannot connect to", socket)?;
    stream.set_read_timeout(Some(SAVE_LIMIT)).at("cannot use", socket)?;
    // QEMU tells the end before the packer has seen it; the file gets its name when it is whole.
    let part = state.with_extension("part");
    let [part, whole] = [&part, state].map(|path| quoted(&path.display().to_string()));
    let pack = format!("exec:zstd -1 -cq >{part} && mv {part} {whole}");
    let commands = [
        json!({"execute": "qmp_capabilities"}),
        json!({"execute": "migrate-set-capabilities", "arguments": {"capabilities": [{"capability": "events", "state": true}]}}),
        json!({"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": UNLIMITED}}),
        json!({"execute": "migrate", "arguments": {"uri": pack}}),
    ];
    for command in commands {
        writeln!(&stream, "{command}").at("cannot write to", socket)?;
    }
    let deadline = Instant::now() + SAVE_LIMIT;
    for line in BufReader::new(&stream).lines() {
        let line = line.at("cannot read from", socket)?;
        match parse_event(&line) {
            Progress::Done => return wait_for(state, deadline),
            Progress::Failed => return Err(VmError::failed("its state could not be saved", line)),
            Progress::Other if Instant::now() > deadline => break,
            Progress::Other => {}
        }
    }
    Err(VmError::failed("its state was not saved in time", ""))
}

fn wait_for(state: &Path, deadline: Instant) -> Result<(), VmError> {
    while !state.exists() {
        if Instant::now() > deadline {
            return Err(VmError::failed("its state was not packed in time", ""));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done,
    Failed,
    Other,
}

fn parse_event(line: &str) -> Progress {
    let Ok(value) = serde_json::from_str::<Value>(line) else { return Progress::Failed };
    if value.get("error").is_some() {
        return Progress::Failed;
    }
    match (value["event"].as_str(), value["data"]["status"].as_str()) {
        (Some("MIGRATION"), Some("completed")) => Progress::Done,
        (Some("MIGRATION"), Some("failed" | "cancelled")) | (Some("SHUTDOWN"), _) => Progress::Failed,
        _ => Progress::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_the_end_of_a_migration() {
        assert_eq!(parse_event(r#"{"event": "MIGRATION", "data": {"status": "completed"}}"#), Progress::Done);
        assert_eq!(parse_event(r#"{"event": "MIGRATION", "data": {"status": "failed"}}"#), Progress::Failed);
        assert_eq!(parse_event(r#"{"event": "MIGRATION", "data": {"status": "active"}}"#), Progress::Other);
        assert_eq!(parse_event(r#"{"error": {"class": "GenericError", "desc": "x"}}"#), Progress::Failed);
        assert_eq!(parse_event(r#"{"return": {}}"#), Progress::Other);
        assert_eq!(parse_event(r#"{"QMP": {"version": {}}}"#), Progress::Other);
        assert_eq!(parse_event("{"), Progress::Failed);
    }
}
