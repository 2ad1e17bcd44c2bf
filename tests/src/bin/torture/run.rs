//! The whole: what all workers share is made, they are started, and what they say they did is held against what is there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    Torture, board,
    calls::Calls,
    locks::{self, COUNTERS},
    log,
    mapping::Mapping,
    opens,
    worker::Kind,
};

/// How often it looks whether a worker has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A worker's process; it is killed when this is dropped.
struct Process {
    kind: Kind,
    index: u64,
    child: Child,
    said: Option<Value>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs all workers to their end; prints one line of JSON if all is right.
pub(crate) fn run(torture: &Torture) -> Result<()> {
    let dir = torture.dir.as_ref().context("no directory")?.join("torture");
    prepare(&dir, torture.writers)?;
    let torture = Torture { dir: Some(dir.clone()), ..torture.clone() };
    let mut processes = Vec::new();
    for kind in Kind::ALL {
        for index in 0..torture.writers {
            processes.push(start(kind, index, &torture)?);
        }
    }
    while processes.iter().any(|process| process.said.is_none()) {
        for process in processes.iter_mut().filter(|process| process.said.is_none()) {
            process.said = said(process)?;
        }
        std::thread::sleep(LOOK);
    }
    let own = |kind| -> Vec<Value> {
        let of_kind = processes.iter().filter(|process| process.kind == kind);
        of_kind.filter_map(|process| Some(process.said.as_ref()?["own"].clone())).collect()
    };
    let increments = check_counters(&dir.join(Kind::Locks.name()), &own(Kind::Locks))?;
    let appended: Vec<u64> = own(Kind::Log).iter().filter_map(Value::as_u64).collect();
    log::check(&dir.join(Kind::Log.name()).join(log::NAME), &appended)?;
    check_board(&dir.join(Kind::Opens.name()), &own(Kind::Opens), &torture)?;
    for number in 0..opens::FILES {
        let path = opens::path(&dir.join(Kind::Opens.name()), number);
        ensure!(fs::read(&path)? == opens::content(number), "{} has changed", path.display());
    }
    let names_changed: u64 = own(Kind::Names).iter().filter_map(|own| own["changed"].as_u64()).sum();
    let mut sum = sum(&processes);
    sum["increments"] = json!(increments);
    sum["appended"] = json!(appended.iter().sum::<u64>());
    sum["names_changed"] = json!(names_changed);
    println!("{sum}");
    Ok(())
}

/// Makes the directories and what is shared in them.
fn prepare(dir: &Path, of: u64) -> Result<()> {
    let make = |path: &Path| fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()));
    make(dir)?;
    for kind in Kind::ALL {
        make(&dir.join(kind.name()))?;
    }
    let path = |kind: Kind, name: &str| dir.join(kind.name()).join(name);
    for counter in COUNTERS {
        fs::write(path(Kind::Locks, counter), 0u64.to_le_bytes())?;
    }
    fs::write(path(Kind::Log, log::NAME), [])?;
    fs::write(path(Kind::Opens, board::NAME), vec![0; board::size(of) as usize])?;
    for number in 0..opens::FILES {
        fs::write(opens::path(&dir.join(Kind::Opens.name()), number), opens::content(number))?;
    }
    Ok(())
}

fn start(kind: Kind, index: u64, torture: &Torture) -> Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    let number = |number: u64| number.to_string();
    command.args(["worker", kind.name(), &number(index)]).args(&torture.dir);
    command.args(["--seconds", &number(torture.seconds), "--seed", &number(torture.seed)]);
    command.args(["--writers", &number(torture.writers), "--mib", &number(torture.mib)]);
    if torture.sigbus {
        command.arg("--sigbus");
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    Ok(Process { kind, index, child, said: None })
}

/// What a worker says of its work, once it has ended. A worker that failed has said so on standard error.
fn said(process: &mut Process) -> Result<Option<Value>> {
    let Some(status) = process.child.try_wait()? else { return Ok(None) };
    if !status.success() {
        bail!("worker {}-{} has failed ({status})", process.kind.name(), process.index);
    }
    let mut text = String::new();
    if let Some(out) = &mut process.child.stdout {
        let _ = out.read_to_string(&mut text)?;
    }
    Ok(Some(serde_json::from_str(&text)?))
}

/// Each counter is the sum of what was added, and the lock file is gone. Returns the sums.
fn check_counters(dir: &Path, own: &[Value]) -> Result<BTreeMap<&'static str, u64>> {
    let mut calls = Calls::new("at the end".to_owned());
    let mut sums = BTreeMap::new();
    for counter in COUNTERS {
        let path = dir.join(counter);
        let added: u64 = own.iter().filter_map(|own| own[counter].as_u64()).sum();
        let found = locks::count(&mut calls, &path, File::open(&path)?)?;
        calls.same("counter", &path, added, found)?;
        let _ = sums.insert(counter, added);
    }
    let lock = locks::lock_file(dir);
    ensure!(!lock.try_exists()?, "{} is still there", lock.display());
    Ok(sums)
}

/// What each has stored last is on the board, and each has seen something of others.
fn check_board(dir: &Path, own: &[Value], torture: &Torture) -> Result<()> {
    let path: PathBuf = dir.join(board::NAME);
    let mapping = Mapping::new(File::open(&path)?, board::size(torture.writers) as usize, false)?;
    let calls = Calls::new("at the end".to_owned());
    for (index, own) in own.iter().enumerate() {
        let found = board::stored(&mapping, index as u64);
        calls.same("number of a worker", &path, own["stored"].as_u64(), Some(found))?;
        // In a short run one may have ended before another began.
        if torture.writers > 1 && torture.seconds >= 5 {
            ensure!(own["seen"] != 0, "opens-{index} has seen no store of others to {}", path.display());
        }
    }
    Ok(())
}

fn sum(processes: &[Process]) -> Value {
    let said = || processes.iter().filter_map(|process| Some((process, process.said.as_ref()?)));
    let number = |said: &Value, key: &str| said[key].as_u64().unwrap_or(0);
    let longest = said().max_by_key(|(_, said)| number(said, "longest_us"));
    let of = |(process, said): (&Process, &Value)| {
        let call = said["longest_call"].as_str().unwrap_or_default();
        format!("{call} ({}-{})", process.kind.name(), process.index)
    };
    let mut by_kind = BTreeMap::new();
    for (process, said) in said() {
        *by_kind.entry(process.kind.name()).or_insert(0) += number(said, "operations");
    }
    json!({
        "operations": by_kind.values().sum::<u64>(),
        "longest_ms": longest.map_or(0, |(_, said)| number(said, "longest_us").div_ceil(1000)),
        "longest_call": longest.map(of),
        "workers": processes.len(),
        "by_kind": by_kind,
    })
}
