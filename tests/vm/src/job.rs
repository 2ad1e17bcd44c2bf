//! One command in one VM: thaw (once more if that fails, then boot), stream, and bring back what it left.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cache::{Cache, Scratch},
    disks,
    error::{Context, VmError},
    frozen::{BOOT_LIMIT, Prepared, THAW_LIMIT},
    lock::{self, Lock},
    machine::{Heard, Machine, Start},
    process,
    progress::{Progress, Say},
    script,
    spec::{Job, Outcome},
};

/// As timeout(1) says it.
const TIMED_OUT: i32 = 124;
/// 128 + SIGKILL: timeout's second, harder try.
const KILLED: i32 = 137;
/// For the guest's own kill after the time limit, and for packing what the command left.
const GRACE: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// A VM whose command has begun. The fields end in this order.
pub(crate) struct Running {
    pub(crate) machine: Machine,
    pub(crate) word: String,
    /// The guest's second console.
    pub(crate) console: Option<UnixStream>,
    boot: Duration,
    began: Instant,
    _slot: Option<Lock>,
    scratch: Scratch,
}

/// Runs the job to its end.
pub(crate) fn run(
    cache: &Cache,
    prepared: &Prepared,
    job: &Job,
    out: &mut dyn Write,
    say: Say<'_>,
) -> Result<Outcome, VmError> {
    if job.timeout.is_zero() {
        return Err(VmError::Invalid { reason: "no time for the command".into() });
    }
    let mut running = begin(cache, prepared, job, false, say)?;
    let limit = job.timeout + GRACE + script::ON_FAILURE_LIMIT;
    // The command's own output is the sign of life.
    let mut progress = Progress::quiet("running the command", Duration::MAX, say);
    let heard = running.machine.listen(&running.word, limit, out, &mut progress)?;
    let outcome = running.outcome(heard, job.timeout, say)?;
    if let Some(to) = &job.out_dir {
        disks::take_out(running.scratch.path(), to)?;
    }
    Ok(outcome)
}

/// Brings a VM to the start of the job's command. One with a shell's console takes no slot.
pub(crate) fn begin(
    cache: &Cache,
    prepared: &Prepared,
    job: &Job,
    shell: bool,
    say: Say<'_>,
) -> Result<Running, VmError> {
    let scratch = cache.scratch()?;
    disks::make_files(scratch.path(), &job.files)?;
    let slot = if shell { None } else { Some(lock::slot(cache.dir(), say)?) };
    let frozen = if job.guest.cold { None } else { prepared.frozen() };
    let attempts = if frozen.is_some() { [true, true, false].as_slice() } else { &[false, false] };
    let mut last: Option<VmError> = None;
    for thaw in attempts {
        if let Some(e) = last.take() {
            say(&e.to_string());
            say(if *thaw { "thawing the VM once more" } else { "booting the VM instead" });
        }
        let frozen = frozen.as_ref().filter(|_| *thaw);
        let start_at = Instant::now();
        match attempt(prepared, job, shell, &scratch, frozen.map(|(s, r)| (s.as_path(), r.as_path())), say) {
            Ok((machine, word, console)) => {
                let (boot, began) = (start_at.elapsed(), Instant::now());
                return Ok(Running { machine, word, console, boot, began, _slot: slot, scratch });
            }
            Err(e @ VmError::Failed { .. }) => last = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(last.unwrap_or_else(|| VmError::failed("no attempt was made", "")))
}

fn attempt(
    prepared: &Prepared,
    job: &Job,
    shell: bool,
    scratch: &Scratch,
    frozen: Option<(&Path, &Path)>,
    say: Say<'_>,
) -> Result<(Machine, String, Option<UnixStream>), VmError> {
    let word = script::random_word()?;
    disks::make_ctl(scratch.path(), &script::job(&word, job)?)?;
    let cold_root = prepared.root();
    let mut machine = Machine::start(&Start {
        image: &prepared.image,
        hardware: prepared.hardware,
        root: frozen.map_or(cold_root.as_path(), |(_, root)| root),
        keep_root: false,
        state: frozen.map(|(state, _)| state),
        dir: scratch.path(),
        shell,
    })?;
    // Before the guest writes to it: what nobody listens to is lost.
    let console = if shell { Some(connect(&scratch.path().join("shell"), &machine)?) } else { None };
    let (what, limit) =
        if frozen.is_some() { ("thawing the VM", THAW_LIMIT) } else { ("booting the VM", BOOT_LIMIT) };
    let mut progress = Progress::quiet(what, Duration::from_secs(10), say);
    let mut early = Vec::new();
    match machine.listen(&word, limit, &mut early, &mut progress)? {
        Heard::Message(_) => Ok((machine, word, console)),
        heard => {
            let how = if heard == Heard::End { "QEMU ended" } else { "it gave no sign of life" };
            let early = String::from_utf8_lossy(&early).trim().to_owned();
            Err(machine.failed(format!("{what}: {how} before the command began. {early}")))
        }
    }
}

impl Running {
    /// What the agent's last message, or its absence, means.
    pub(crate) fn outcome(&self, heard: Heard, timeout: Duration, say: Say<'_>) -> Result<Outcome, VmError> {
        let took = self.began.elapsed();
        let late = !timeout.is_zero() && took >= timeout;
        let of = |status, timed_out| Outcome { status, timed_out, boot: self.boot, took };
        match heard {
            Heard::Message(message) => match message.strip_prefix("end ").map(str::parse::<i32>) {
                Some(Ok(TIMED_OUT | KILLED)) if late => Ok(of(TIMED_OUT, true)),
                Some(Ok(status)) => Ok(of(status, false)),
                _ => Err(self.machine.failed(format!("odd answer {message:?}"))),
            },
            Heard::Silence => {
                let console = process::tail(&self.scratch.path().join("console.log"));
                say(&format!("the VM itself hung when the command's time was over; its console:\n{console}"));
                Ok(of(TIMED_OUT, true))
            }
            Heard::End => {
                Err(self.machine.failed("QEMU ended during the command (a panic or a power-off in the VM?)"))
            }
        }
    }
}

fn connect(socket: &Path, machine: &Machine) -> Result<UnixStream, VmError> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(e) if start.elapsed() > CONNECT_LIMIT => {
                return Err(machine.failed(format!("no console at {}: {e}", socket.display())));
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                thread::sleep(POLL);
            }
            Err(e) => return Err(e).at("cannot connect to", socket),
        }
    }
}
