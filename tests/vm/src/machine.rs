//! One QEMU: its arguments, and the process with the agent's output stream.

use std::{
    io::Write,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{ChildStdout, Stdio},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    accel::Accel,
    cache::Entry,
    error::{Context, VmError},
    host,
    process::{self, Killed, quoted},
    progress::Progress,
    stream::{Piece, Splitter},
};

/// No mitigations, no address randomisation: under emulation they cost a third of the speed and more.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests norandmaps \
                       randomize_kstack_offset=off psi=1 audit=0 tsc=reliable nosoftlockup";
/// Size of the second and third disk, sparse. It is a part of the frozen state, so it has to do for every job.
pub(crate) const DISK_BYTES: u64 = 32 << 30;
const PROBE_MEM: &str = "256";
/// How long one wait for output lasts, so that progress can be told in between.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
const READ_BYTES: usize = 64 << 10;

/// What a frozen state depends on, besides the image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hardware {
    pub(crate) mem_mb: u32,
    pub(crate) cpus: u32,
    pub(crate) accel: Accel,
}

/// What differs between the starts of the same hardware.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// The kernel and initrd come from here.
    pub(crate) image: &'a Entry,
    pub(crate) hardware: Hardware,
    /// The root disk.
    pub(crate) root: &'a Path,
    /// Writes to the root disk stay in its file.
    pub(crate) keep_root: bool,
    /// The state to thaw, packed with zstd.
    pub(crate) state: Option<&'a Path>,
    /// Has the disks `files` and `ctl`; gets console.log, qemu.log and the socket qmp.
    pub(crate) dir: &'a Path,
    /// The guest's second console is at the socket `shell`, else nowhere.
    pub(crate) shell: bool,
}

/// What was heard of the agent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Message(String),
    Silence,
    End,
}

/// A running QEMU, killed when dropped.
pub(crate) struct Machine {
    _qemu: Killed,
    out: ChildStdout,
    splitter: Splitter,
    dir: PathBuf,
}

impl Hardware {
    /// The arguments that a frozen state depends on.
    pub(crate) fn args(&self) -> Vec<String> {
        let (mem, cpus) = (self.mem_mb.to_string(), self.cpus.to_string());
        let mut args = base_args(self.accel, &mem, &cpus, CMDLINE);
        args.extend(["-device", "vmgenid,guid=auto"].map(str::to_owned));
        args.extend(["-device", "virtio-serial-pci,id=serial"].map(str::to_owned));
        args.extend(
            ["-device", "virtserialport,bus=serial.0,chardev=out,name=memcharge.out"].map(str::to_owned),
        );
        args.extend(["-device", "virtconsole,bus=serial.0,chardev=shell"].map(str::to_owned));
        for disk in ["root", "files", "ctl"] {
            args.extend(["-device".to_owned(), format!("virtio-blk-pci,drive={disk}")]);
        }
        args
    }
}

/// A machine without disks that only tells that its kernel runs on KVM.
pub(crate) fn probe_args(image: &Entry, console: &Path) -> Vec<String> {
    let mut args = base_args(Accel::Kvm, PROBE_MEM, "1", "console=ttyS0 quiet panic=-1 rdinit=/probe");
    args.extend(boot_args(image, console));
    args
}

fn base_args(accel: Accel, mem: &str, cpus: &str, cmdline: &str) -> Vec<String> {
    let mut args: Vec<String> =
        ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-M", "q35", "-cpu", "max"]
            .map(str::to_owned)
            .to_vec();
    args.extend(["-accel", accel.option(), "-m", mem, "-smp", cpus, "-append", cmdline].map(str::to_owned));
    args
}

fn boot_args(image: &Entry, console: &Path) -> Vec<String> {
    let mut args = Vec::new();
    for (flag, name) in [("-kernel", "vmlinux"), ("-initrd", "initrd")] {
        args.extend([flag.to_owned(), image.file(name).display().to_string()]);
    }
    args.extend(["-serial".to_owned(), format!("file:{}", option_path(console))]);
    args
}

impl Start<'_> {
    fn args(&self) -> Vec<String> {
        let at = |name: &str| option_path(&self.dir.join(name));
        let mut args = self.hardware.args();
        args.extend(boot_args(self.image, &self.dir.join("console.log")));
        let disks = [
            ("root", option_path(self.root), self.keep_root),
            ("files", at("files"), false),
            ("ctl", at("ctl"), true),
        ];
        for (id, file, keep) in disks {
            let snapshot = if keep { "off" } else { "on" };
            args.extend([
                "-drive".to_owned(),
                format!("if=none,id={id},file={file},format=raw,cache=unsafe,snapshot={snapshot}"),
            ]);
        }
        let shell = if self.shell {
            format!("socket,path={},server=on,wait=off", at("shell"))
        } else {
            "null".to_owned()
        };
        args.extend(["-chardev".to_owned(), "stdio,id=out,signal=off".to_owned()]);
        args.extend(["-chardev".to_owned(), format!("{shell},id=shell")]);
        args.extend(["-qmp".to_owned(), format!("unix:{},server=on,wait=off", at("qmp"))]);
        if let Some(state) = self.state {
            let unpack = format!("exec:zstd -dcq <{}", quoted(&state.display().to_string()));
            args.extend(["-incoming".to_owned(), unpack]);
        }
        args
    }
}

impl Machine {
    /// Starts it. The caller holds a slot.
    pub(crate) fn start(start: &Start<'_>) -> Result<Self, VmError> {
        let log = start.dir.join("qemu.log");
        let errors = std::fs::File::create(&log).at("cannot create", &log)?;
        let mut command = process::bound_command(host::QEMU);
        // QEMU keeps the writes to disks that are not kept in an unlinked file there.
        command.args(start.args()).env("TMPDIR", start.dir).stdout(Stdio::piped()).stderr(errors);
        // QEMU takes the end of its input for the end of the whole stream, hence a pipe that nobody writes to.
        command.stdin(Stdio::piped());
        let mut child = command.spawn().context(|| format!("cannot run {}", host::QEMU))?;
        let out = child.stdout.take();
        let qemu = Killed(child);
        let Some(out) = out else { return Err(VmError::failed("QEMU has no output stream", "")) };
        Ok(Self { _qemu: qemu, out, splitter: Splitter::default(), dir: start.dir.to_owned() })
    }

    /// Waits for the agent's next message with this word; what the command writes before it goes to `text`.
    pub(crate) fn listen(
        &mut self,
        word: &str,
        limit: Duration,
        text: &mut dyn Write,
        progress: &mut Progress<'_>,
    ) -> Result<Heard, VmError> {
        self.splitter.listen(word);
        let deadline = Instant::now() + limit;
        loop {
            if let Some(message) = self.drain(text)? {
                return Ok(Heard::Message(message));
            }
            if Instant::now() >= deadline {
                return Ok(Heard::Silence);
            }
            progress.tick();
            let mut fds = [PollFd::new(&self.out, PollFlags::IN)];
            if poll(&mut fds, Some(&PATIENCE)).context(|| "cannot wait for QEMU".into())? > 0
                && !self.read()?
            {
                return Ok(Heard::End);
            }
        }
    }

    /// As `listen`, where anything but a message is an error.
    pub(crate) fn expect(
        &mut self,
        word: &str,
        limit: Duration,
        text: &mut dyn Write,
        progress: &mut Progress<'_>,
    ) -> Result<String, VmError> {
        match self.listen(word, limit, text, progress)? {
            Heard::Message(message) => Ok(message),
            Heard::Silence => Err(self.failed(format!("no answer in {} s", limit.as_secs()))),
            Heard::End => Err(self.failed("it ended early")),
        }
    }

    /// Passes on the text that has arrived up to the next message.
    pub(crate) fn drain(&mut self, text: &mut dyn Write) -> Result<Option<String>, VmError> {
        loop {
            match self.splitter.next() {
                Piece::Text(bytes) => text
                    .write_all(&bytes)
                    .and_then(|()| text.flush())
                    .context(|| "cannot pass on the command's output".into())?,
                Piece::Message(message) => return Ok(Some(message)),
                Piece::Incomplete => return Ok(None),
            }
        }
    }

    /// Reads what is there, or waits for it; false at the end of QEMU.
    pub(crate) fn read(&mut self) -> Result<bool, VmError> {
        let mut buffer = vec![0; READ_BYTES];
        let n = rustix::io::retry_on_intr(|| rustix::io::read(&self.out, &mut buffer))
            .context(|| "cannot read from QEMU".into())?;
        self.splitter.push(&buffer[..n]);
        Ok(n > 0)
    }

    pub(crate) fn stream(&self) -> impl AsFd + '_ {
        &self.out
    }

    pub(crate) fn set_word(&mut self, word: &str) {
        self.splitter.listen(word);
    }

    /// An error with the ends of QEMU's messages and of the guest's console.
    pub(crate) fn failed(&self, what: impl Into<String>) -> VmError {
        let logs = ["qemu.log", "console.log"].map(|name| process::tail(&self.dir.join(name)));
        VmError::failed(what, logs.join("\n").trim())
    }
}

/// A path inside one of QEMU's comma-separated options.
fn option_path(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(option_path(Path::new("/a,b/c")), "/a,,b/c");
    }

    #[test]
    fn hardware_shows_in_the_arguments() {
        let args = |mem_mb, cpus, accel| Hardware { mem_mb, cpus, accel }.args();
        let plain = args(1024, 2, Accel::Tcg);
        assert!(plain.windows(2).any(|pair| pair == ["-m", "1024"]));
        assert!(plain.windows(2).any(|pair| pair == ["-accel", "tcg,thread=multi"]));
        assert_ne!(plain, args(1025, 2, Accel::Tcg));
        assert_ne!(plain, args(1024, 3, Accel::Tcg));
        assert_ne!(plain, args(1024, 2, Accel::Kvm));
    }
}
