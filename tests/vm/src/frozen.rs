//! Machines that wait, frozen, for a job: booted once per image and size, and once more with a package installed.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    accel,
    cache::{self, Cache, Entry},
    disks,
    error::VmError,
    host, image, lock,
    machine::{Hardware, Machine, Start},
    process,
    progress::{Progress, Say},
    qmp, script,
    spec::{FileIn, Guest, Layer},
};

pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(180);
pub(crate) const THAW_LIMIT: Duration = Duration::from_secs(30);
const INSTALL_LIMIT: Duration = Duration::from_secs(180);
/// Lets what systemd does after start-up end, so that each run need not do it again.
const SETTLE: Duration = Duration::from_millis(500);
/// A freeze fails once in many tens of times.
const ATTEMPTS: usize = 2;

/// What a run of a guest starts from. It stays in the cache as long as this lives.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) image: Entry,
    pub(crate) hardware: Hardware,
    base: Option<Entry>,
    layer: Option<Entry>,
}

impl Prepared {
    /// The root disk of a cold boot.
    pub(crate) fn root(&self) -> PathBuf {
        self.layer.as_ref().unwrap_or(&self.image).file("root.img")
    }

    /// The frozen state, if there is one, and the root disk that belongs to it.
    pub(crate) fn frozen(&self) -> Option<(PathBuf, PathBuf)> {
        let entry = self.layer.as_ref().or(self.base.as_ref())?;
        Some((entry.file("state"), entry.file("root.img")))
    }
}

/// Makes what is missing in the cache for this guest.
pub(crate) fn prepare(cache: &Cache, guest: &Guest, say: Say<'_>) -> Result<Prepared, VmError> {
    if guest.cpus == 0 || guest.mem_mb == 0 {
        return Err(VmError::Invalid { reason: "a guest needs memory and a processor".into() });
    }
    let deb = guest.layer.as_ref().map(|layer| cache::file_key(&layer.deb)).transpose()?;
    let image = image::get(cache, &guest.image, say)?;
    let accel = accel::choose(cache, &image, say)?;
    let hardware = Hardware { mem_mb: guest.mem_mb, cpus: guest.cpus, accel };
    let mut prepared = Prepared { image, hardware, base: None, layer: None };
    if guest.cold && guest.layer.is_none() {
        return Ok(prepared);
    }
    let size = format!("{}x{}", guest.mem_mb, guest.cpus);
    let key = cache::key(hardware.args().into_iter().chain([host::fingerprint()?]));
    prepared.base = boot_and_freeze(cache, &prepared, &format!("{size}-{key}"), say)?;
    if let (Some(layer), Some(deb)) = (&guest.layer, deb) {
        let key = cache::key([key.as_str(), script::INSTALL]);
        let name = format!("layer-{}-{deb}-{size}-{key}", prepared.image.key());
        let made = again(say, || {
            cache.entry(&name, say, |dir| install_and_freeze(cache, &prepared, layer, dir, say))
        })?;
        prepared.layer = Some(made);
    }
    Ok(prepared)
}

/// The frozen base. None if it cannot be frozen: each run boots then.
fn boot_and_freeze(
    cache: &Cache,
    prepared: &Prepared,
    name: &str,
    say: Say<'_>,
) -> Result<Option<Entry>, VmError> {
    let name = format!("state-{}-{name}", prepared.image.key());
    match again(say, || cache.entry(&name, say, |dir| freeze_base(cache, prepared, dir, say))) {
        Err(e @ VmError::Failed { .. }) => {
            say(&e.to_string());
            say("the VM cannot be frozen, so this run boots, which takes some seconds more");
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn freeze_base(cache: &Cache, prepared: &Prepared, dir: &Path, say: Say<'_>) -> Result<(), VmError> {
    let scratch = cache.scratch()?;
    disks::make_empty(scratch.path())?;
    let root = copy_root(&prepared.image.file("root.img"), dir)?;
    let _slot = lock::slot(cache.dir(), false, say)?;
    let mut progress = Progress::new("booting the VM for the first time, to freeze it", say);
    let mut vm = Machine::start(&start(prepared, scratch.path(), &root, None))?;
    let state = vm.expect("agent", BOOT_LIMIT, &mut io::sink(), &mut progress)?;
    if state != "ready running" {
        say(&format!(
            "the VM's systemd says {:?} after booting, instead of running",
            state.trim_start_matches("ready ")
        ));
    }
    freeze(&vm, scratch.path(), dir)
}

fn install_and_freeze(
    cache: &Cache,
    prepared: &Prepared,
    layer: &Layer,
    dir: &Path,
    say: Say<'_>,
) -> Result<(), VmError> {
    let scratch = cache.scratch()?;
    disks::make_files(scratch.path(), &[FileIn { host: layer.deb.clone(), name: "layer.deb".into() }])?;
    let frozen = prepared.frozen();
    let (state, from) = match &frozen {
        Some((state, root)) => (Some(state.as_path()), root.clone()),
        None => (None, prepared.root()),
    };
    let root = copy_root(&from, dir)?;
    let _slot = lock::slot(cache.dir(), false, say)?;
    let word = script::random_word()?;
    disks::make_ctl(scratch.path(), &script::install(&word, INSTALL_LIMIT))?;
    let what = format!("installing {} in the VM, to freeze it", layer.deb.display());
    let mut progress = Progress::new(what, say);
    let mut vm = Machine::start(&start(prepared, scratch.path(), &root, state))?;
    let limit = if state.is_some() { THAW_LIMIT } else { BOOT_LIMIT };
    vm.expect(&word, limit, &mut io::sink(), &mut progress)?;
    let mut text = Vec::new();
    let end = vm.expect(&word, INSTALL_LIMIT + THAW_LIMIT, &mut text, &mut progress)?;
    if end != "end 0" {
        // Not Failed: a second attempt would do the same.
        let text = String::from_utf8_lossy(&text).trim().replace('\n', "\n    ");
        let reason = format!("{} cannot be installed ({end}):\n    {text}", layer.deb.display());
        return Err(VmError::Invalid { reason });
    }
    freeze(&vm, scratch.path(), dir)
}

fn start<'a>(prepared: &'a Prepared, dir: &'a Path, root: &'a Path, state: Option<&'a Path>) -> Start<'a> {
    let Prepared { image, hardware, .. } = prepared;
    Start { image, hardware: *hardware, root, keep_root: true, state, dir, shell: false }
}

fn freeze(vm: &Machine, run: &Path, dir: &Path) -> Result<(), VmError> {
    thread::sleep(SETTLE);
    qmp::save_state(&run.join("qmp"), &dir.join("state")).map_err(|e| vm.failed(e.to_string()))
}

/// Where `copy_root` puts a root disk.
pub(crate) fn own_root(dir: &Path) -> PathBuf {
    dir.join("root.img")
}

/// A root disk of one's own, in `dir`.
pub(crate) fn copy_root(from: &Path, dir: &Path) -> Result<PathBuf, VmError> {
    let to = own_root(dir);
    process::output(
        process::command("cp").args(["--sparse=always", "--reflink=auto", "--"]).arg(from).arg(&to),
    )?;
    Ok(to)
}

fn again<T>(say: Say<'_>, attempt: impl Fn() -> Result<T, VmError>) -> Result<T, VmError> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(e @ VmError::Failed { .. }) => {
                say(&e.to_string());
                say("trying once more");
            }
            other => return other,
        }
    }
    attempt()
}
