//! What a caller asks for: a guest (image, layer, size) and a job in it; and what it gets back.

use std::{path::PathBuf, time::Duration};

use crate::error::VmError;

/// The Debian release that the VM's programs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Suite {
    /// Debian 13, systemd 257.
    #[default]
    Trixie,
    /// Debian 12, systemd 252.
    Bookworm,
}

/// The series of the VM's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernel {
    /// Linux 6.12, in both suites.
    #[default]
    V6_12,
    /// Linux 6.1, in bookworm only.
    V6_1,
}

/// A root file system and its kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// Where the programs come from.
    pub suite: Suite,
    /// Which kernel runs them.
    pub kernel: Kernel,
    /// Debian packages besides the base set; each set of them is an image of its own.
    pub packages: Vec<String>,
}

/// A local package that is installed already when a run begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The .deb; what it depends on must be in the image.
    pub deb: PathBuf,
}

/// A machine to run commands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its root file system and kernel.
    pub image: Image,
    /// A package installed on top.
    pub layer: Option<Layer>,
    /// Memory in MiB.
    pub mem_mb: u32,
    /// Processors.
    pub cpus: u32,
    /// Boots for each run rather than thawing a booted machine: slower by some seconds, with nothing of an earlier boot.
    pub cold: bool,
}

/// A file or directory of the host for the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileIn {
    /// Where it is here.
    pub host: PathBuf,
    /// Its relative path below /mnt/files there.
    pub name: String,
}

/// One command for a fresh guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The machine.
    pub guest: Guest,
    /// What bash runs as root, in /mnt/files; at most about 40 KB.
    pub command: String,
    /// What is run after it, each after a shutdown and a cold boot on the same root disk, as long as all before it
    /// succeeded. /mnt/files is as given, each time. All commands of such a job have MEMCHARGE_PHASE in their
    /// environment, from 0; those after the first also MEMCHARGE_SHUTDOWN_MS, the time from the order to shut down to
    /// the end of QEMU, and MEMCHARGE_SHUTDOWN_CONSOLE, what the machine's console showed up to then. The journal of
    /// earlier boots is there.
    pub then: Vec<String>,
    /// What is at /mnt/files, a writable copy.
    pub files: Vec<FileIn>,
    /// Swap in MiB, none by default. It is a file of the 4 GiB root disk.
    pub swap_mb: Option<u32>,
    /// How long each command may take.
    pub timeout: Duration,
    /// No other VM runs beside it: for what measures time.
    pub alone: bool,
    /// Where the content of /mnt/out goes, with journal.log if the command failed.
    pub out_dir: Option<PathBuf>,
    /// What bash runs in the VM when the command failed, for at most a minute; its output is streamed too.
    pub on_failure: Option<String>,
}

/// How a command ended: the last one that was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit status; 124 if it ran out of time.
    pub status: i32,
    /// It was ended because its time was over.
    pub timed_out: bool,
    /// From the start of the VM to the start of the command.
    pub boot: Duration,
    /// From the start of the command to its end.
    pub took: Duration,
}

impl Default for Guest {
    fn default() -> Self {
        Self { image: Image::default(), layer: None, mem_mb: 1024, cpus: 2, cold: false }
    }
}

impl Job {
    /// A job with no files that may take ten minutes.
    pub fn new(guest: Guest, command: impl Into<String>) -> Self {
        Self {
            guest,
            command: command.into(),
            then: Vec::new(),
            files: Vec::new(),
            swap_mb: None,
            timeout: Duration::from_secs(600),
            alone: false,
            out_dir: None,
            on_failure: None,
        }
    }
}

impl Suite {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Bookworm => "bookworm",
        }
    }
}

impl Kernel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V6_12 => "6.12",
            Self::V6_1 => "6.1",
        }
    }
}

impl Image {
    /// The package whose first dependency is the kernel.
    pub(crate) fn kernel_package(&self) -> Result<&'static str, VmError> {
        match (self.suite, self.kernel) {
            (Suite::Trixie, Kernel::V6_12) | (Suite::Bookworm, Kernel::V6_1) => Ok("linux-image-cloud-amd64"),
            (Suite::Bookworm, Kernel::V6_12) => Ok("linux-image-6.12-cloud-amd64"),
            (Suite::Trixie, Kernel::V6_1) => Err(VmError::Invalid {
                reason: "Debian 13 has no kernel 6.1; take the suite bookworm".into(),
            }),
        }
    }
}
