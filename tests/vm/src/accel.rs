//! KVM or emulation. KVM is believed in only once a kernel was seen to run: a /dev/kvm can be there whose guests die at once.

use std::{
    env, fs,
    path::Path,
    process::Stdio,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cache::{self, Cache, Entry},
    error::{Context, VmError},
    host, machine, process,
    progress::{Progress, Say},
};

const PROBE_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// What the initrd's second init writes to the console.
const ALIVE: &str = "memcharge-probe-alive";
/// What a probe's file says of a processor that runs guests.
const WORKS: &str = "works";

/// How the guest's code is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    /// The value of QEMU's -accel.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }
}

/// What MEMCHARGE_VM_ACCEL names (kvm or tcg), or else KVM if the image's kernel runs on it. Emulation that nobody asked for
/// is said, once per process.
pub(crate) fn choose(cache: &Cache, image: &Entry, say: Say<'_>) -> Result<Accel, VmError> {
    static CHOSEN: OnceLock<Accel> = OnceLock::new();
    if let Some(accel) = CHOSEN.get() {
        return Ok(*accel);
    }
    let accel = match env::var("MEMCHARGE_VM_ACCEL").as_deref() {
        Ok("kvm") => Accel::Kvm,
        Ok("tcg") => Accel::Tcg,
        Ok("") | Err(_) => detect(cache, image, say)?,
        Ok(other) => {
            return Err(VmError::Invalid {
                reason: format!("MEMCHARGE_VM_ACCEL is {other:?}, neither kvm nor tcg"),
            });
        }
    };
    Ok(*CHOSEN.get_or_init(|| accel))
}

fn detect(cache: &Cache, image: &Entry, say: Say<'_>) -> Result<Accel, VmError> {
    let slow = "the VM is emulated, some ten times slower than with KVM";
    let device = Path::new("/dev/kvm");
    if let Err(e) = fs::OpenOptions::new().read(true).write(true).open(device) {
        say(&format!("{slow} (/dev/kvm: {e})"));
        return Ok(Accel::Tcg);
    }
    let host_kernel = rustix::system::uname();
    let host = host::fingerprint()?;
    let answer =
        image.file(&format!("kvm-{}", cache::key([host.as_bytes(), host_kernel.release().to_bytes()])));
    let text = match fs::read_to_string(&answer) {
        Ok(text) if text.ends_with('\n') => text,
        _ => {
            let text = probe(cache, image, say)? + "\n";
            fs::write(&answer, &text).at("cannot write", &answer)?;
            text
        }
    };
    if text.trim_end() == WORKS {
        return Ok(Accel::Kvm);
    }
    say(&format!("{slow} (/dev/kvm exists, but: {})", text.trim_end()));
    Ok(Accel::Tcg)
}

/// Whether the image's kernel comes as far as its init in ten seconds: `WORKS`, or what went wrong, in one line.
fn probe(cache: &Cache, image: &Entry, say: Say<'_>) -> Result<String, VmError> {
    let scratch = cache.scratch()?;
    let [console, log] = ["console.log", "qemu.log"].map(|name| scratch.path().join(name));
    let errors = fs::File::create(&log).at("cannot create", &log)?;
    let mut command = process::bound_command(host::QEMU);
    command.args(machine::probe_args(image, &console)).stdout(Stdio::null()).stderr(errors);
    let child = command.spawn().context(|| format!("cannot run {}", host::QEMU))?;
    let mut child = process::Killed(child);
    let mut progress = Progress::new("trying whether a guest runs on /dev/kvm", say);
    let start = Instant::now();
    loop {
        // The end before the look at the console: a guest that has done its work ends QEMU.
        let ended = child.0.try_wait().context(|| "cannot wait for QEMU".into())?.is_some();
        if String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).contains(ALIVE) {
            return Ok(WORKS.to_owned());
        }
        if ended {
            return Ok(format!(
                "QEMU ended at once: {}",
                process::tail(&log).lines().next().unwrap_or_default()
            ));
        }
        if start.elapsed() > PROBE_LIMIT {
            return Ok(format!("a guest does not come up in {} s", PROBE_LIMIT.as_secs()));
        }
        progress.tick();
        thread::sleep(POLL);
    }
}
