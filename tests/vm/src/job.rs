//! One job in one VM: thaw (once more if that fails, then boot), stream, reboot if the job has several phases, and bring
//! back what it left.

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
    frozen::{self, BOOT_LIMIT, Prepared, THAW_LIMIT},
    lock::{self, Slot},
    machine::{Heard, Machine, Start},
    process,
    progress::{Progress, Say},
    reboot::Phase,
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
    phase: Phase,
    boot: Duration,
    began: Instant,
    slot: Option<Slot>,
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
    let mut outcome = running.finish(job, out, say)?;
    for _ in &job.then {
        if outcome.status != 0 {
            break;
        }
        running = running.reboot(prepared, job, out, say)?;
        outcome = running.finish(job, out, say)?;
    }
    if let Some(to) = &job.out_dir {
        disks::take_out(running.scratch.path(), to)?;
    }
    Ok(outcome)
}

/// Brings a VM to the start of the job's first command. One with a shell's console takes no slot.
pub(crate) fn begin(
    cache: &Cache,
    prepared: &Prepared,
    job: &Job,
    shell: bool,
    say: Say<'_>,
) -> Result<Running, VmError> {
    let scratch = cache.scratch()?;
    disks::make_files(scratch.path(), &job.files)?;
    let slot = if shell { None } else { Some(lock::slot(cache.dir(), job.alone, say)?) };
    let frozen = if job.guest.cold { None } else { prepared.frozen() };
    let attempts = if frozen.is_some() { [true, true, false].as_slice() } else { &[false, false] };
    let mut last: Option<VmError> = None;
    for thaw in attempts {
        if let Some(e) = last.take() {
            say(&e.to_string());
            say(if *thaw { "thawing the VM once more" } else { "booting the VM instead" });
        }
        let frozen = frozen.as_ref().filter(|_| *thaw);
        let cold_root = prepared.root();
        let (state, root) = frozen
            .map_or((None, cold_root.as_path()), |(state, root)| (Some(state.as_path()), root.as_path()));
        // Afresh in each attempt: the one before may have written to it.
        let own_root =
            if job.then.is_empty() { None } else { Some(frozen::copy_root(root, scratch.path())?) };
        let origin =
            Origin { state, root: own_root.as_deref().unwrap_or(root), keep_root: own_root.is_some() };
        let (phase, start_at) = (Phase::default(), Instant::now());
        match attempt(prepared, job, &phase, shell, &scratch, &origin, say) {
            Ok((machine, word, console)) => {
                let (boot, began) = (start_at.elapsed(), Instant::now());
                return Ok(Running { machine, word, console, phase, boot, began, slot, scratch });
            }
            Err(e @ VmError::Failed { .. }) => last = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(last.unwrap_or_else(|| VmError::failed("no attempt was made", "")))
}

/// What a machine starts from.
struct Origin<'a> {
    state: Option<&'a Path>,
    root: &'a Path,
    keep_root: bool,
}

fn attempt(
    prepared: &Prepared,
    job: &Job,
    phase: &Phase,
    shell: bool,
    scratch: &Scratch,
    origin: &Origin<'_>,
    say: Say<'_>,
) -> Result<(Machine, String, Option<UnixStream>), VmError> {
    let word = script::random_word()?;
    disks::make_ctl(scratch.path(), &script::job(&word, job, phase)?)?;
    let mut machine = Machine::start(&Start {
        image: &prepared.image,
        hardware: prepared.hardware,
        root: origin.root,
        keep_root: origin.keep_root,
        state: origin.state,
        dir: scratch.path(),
        shell,
    })?;
    // Before the guest writes to it: what nobody listens to is lost.
    let console = if shell { Some(connect(&scratch.path().join("shell"), &machine)?) } else { None };
    let (what, limit) =
        if origin.state.is_some() { ("thawing the VM", THAW_LIMIT) } else { ("booting the VM", BOOT_LIMIT) };
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
    /// Waits for the end of the command.
    fn finish(&mut self, job: &Job, out: &mut dyn Write, say: Say<'_>) -> Result<Outcome, VmError> {
        let limit = job.timeout + GRACE + script::ON_FAILURE_LIMIT;
        // The command's own output is the sign of life.
        let mut progress = Progress::quiet("running the command", Duration::MAX, say);
        let heard = self.machine.listen(&self.word, limit, out, &mut progress)?;
        self.outcome(heard, job.timeout, say)
    }

    /// Waits for the end of the machine, and brings another one with the same root disk to the start of the next command.
    fn reboot(
        self,
        prepared: &Prepared,
        job: &Job,
        out: &mut dyn Write,
        say: Say<'_>,
    ) -> Result<Self, VmError> {
        let Self { mut machine, phase, slot, scratch, .. } = self;
        let phase = phase.shut_down(&mut machine, scratch.path(), out, say)?;
        // Its disks are free when its process has ended.
        drop(machine);
        let root = frozen::own_root(scratch.path());
        let origin = Origin { state: None, root: &root, keep_root: true };
        let start_at = Instant::now();
        let (machine, word, console) = attempt(prepared, job, &phase, false, &scratch, &origin, say)?;
        let (boot, began) = (start_at.elapsed(), Instant::now());
        Ok(Self { machine, word, console, phase, boot, began, slot, scratch })
    }

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
