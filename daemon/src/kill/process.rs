//! A process as `/proc` shows it, held by its directory: once it has ended nothing is read of it any more, even if
//! its number is used again.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::fd::{AsFd, OwnedFd},
};

use memcharge_cgroup::parse::parse_own_path;
use memcharge_policy::Bytes;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::smaps::sum_private;
use crate::error::{DaemonError, Result};

/// The longest file that is read, in bytes. A process may be in 65536 groups, which `status` lists.
const MAX_FILE: u64 = 1 << 20;

/// The longest smaps file that is read, in bytes: some 20,000 mappings.
const MAX_SMAPS: u64 = 16 << 20;

/// How much of it at once.
const CHUNK: usize = 64 << 10;

/// Longer names of processes do not exist.
const MAX_COMM: usize = 64;

/// `PF_EXITING` and `PF_KTHREAD` of `linux/sched.h`, as they stand in `/proc/PID/stat` ever since.
const PF_EXITING: u64 = 0x4;
const PF_KTHREAD: u64 = 0x20_0000;

/// The bit of SIGKILL in a set of signals.
const SIGKILL_BIT: u64 = 1 << 8;

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    dir: OwnedFd,
}

/// What `/proc/PID/stat` tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The process' name, control characters escaped.
    pub(super) comm: String,
    /// When it was started, in clock ticks since boot. With the pid it is the process' identity.
    pub(super) started: u64,
    /// Whether it is neither a thread of the kernel nor about to end.
    pub(super) is_alive: bool,
}

/// What `/proc/PID/status` tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// The process that this thread belongs to.
    pub(super) tgid: u32,
    /// Anonymous memory that is present, shared or not; `None`: it has no memory any more.
    pub(super) rss_anon: Option<Bytes>,
    /// Whether it was killed, and has not ended yet.
    pub(super) is_killed: bool,
}

impl Process {
    /// Opens a process, or a thread by its own number. `None`: there is none.
    pub(super) fn open(pid: u32) -> Result<Option<Self>> {
        let path = format!("/proc/{pid}");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(dir) => Ok(Some(Self { pid, dir })),
            Err(Errno::NOENT | Errno::SRCH) => Ok(None),
            Err(e) => Err(DaemonError::io("open", path)(e)),
        }
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its name, age and condition. Like all that follow, `None` once it has ended.
    pub(super) fn stat(&self) -> Result<Option<Stat>> {
        self.read_as("stat", parse_stat)
    }

    /// Its memory.
    pub(super) fn status(&self) -> Result<Option<Status>> {
        self.read_as("status", parse_status)
    }

    /// Its cgroup below the root.
    pub(super) fn cgroup(&self) -> Result<Option<String>> {
        self.read_as("cgroup", |text| parse_own_path(text).map(ToOwned::to_owned))
    }

    /// How readily the kernel would kill it.
    pub(super) fn oom_score(&self) -> Result<Option<u32>> {
        self.read_as("oom_score", |text| text.trim_end().parse().ok())
    }

    /// The administrator's part in that: -1000 is never.
    pub(super) fn oom_score_adj(&self) -> Result<Option<i32>> {
        self.read_as("oom_score_adj", |text| text.trim_end().parse().ok())
    }

    /// [`sum_private`] of the first 16 MiB of its smaps. Waits for the lock of its memory, which it may hold for
    /// long.
    pub(super) fn private_memory(&self) -> Result<Option<Bytes>> {
        let read = || {
            let smaps = File::from(self.open_file("smaps")?).take(MAX_SMAPS);
            sum_private(BufReader::with_capacity(CHUNK, smaps))
        };
        self.unless_gone("smaps", read())
    }

    fn read_as<T>(&self, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
        let read = || {
            let mut bytes = Vec::new();
            File::from(self.open_file(file)?).take(MAX_FILE).read_to_end(&mut bytes)?;
            let text = String::from_utf8_lossy(&bytes);
            let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it is not as documented");
            // A process that ends meanwhile may leave an empty file.
            if text.is_empty() { Ok(None) } else { parse(&text).map(Some).ok_or_else(wrong) }
        };
        self.unless_gone(file, read()).map(Option::flatten)
    }

    fn open_file(&self, file: &str) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(self.dir.as_fd(), file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn unless_gone<T>(&self, file: &str, read: io::Result<T>) -> Result<Option<T>> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(e) => match e.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT | Errno::SRCH) => Ok(None),
                _ => Err(DaemonError::io("read", format!("/proc/{}/{file}", self.pid))(e)),
            },
        }
    }
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may have blanks and brackets in it.
    let (comm, fields) = text.split_once('(')?.1.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace();
    // Counted from field 3, the state: then 9, the flags, and 22, the start.
    let (state, flags, start) = (fields.next()?, fields.nth(5)?, fields.nth(12)?);
    let flags: u64 = flags.parse().ok()?;
    Some(Stat {
        comm: comm.chars().take(MAX_COMM).flat_map(char::escape_debug).collect(),
        started: start.parse().ok()?,
        is_alive: !matches!(state, "Z" | "X" | "x") && flags & (PF_EXITING | PF_KTHREAD) == 0,
    })
}

fn parse_status(text: &str) -> Option<Status> {
    let mut status = Status { tgid: 0, rss_anon: None, is_killed: false };
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key {
            "Tgid" => status.tgid = value.parse().ok()?,
            "RssAnon" => status.rss_anon = Some(parse_kib(value)?),
            "SigPnd" | "ShdPnd" => {
                status.is_killed |= u64::from_str_radix(value, 16).ok()? & SIGKILL_BIT != 0;
            }
            _ => {}
        }
    }
    (status.tgid > 0).then_some(status)
}

fn parse_kib(value: &str) -> Option<Bytes> {
    let kib: u64 = value.strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(comm: &str, state: char, flags: u64) -> String {
        format!(
            "812 ({comm}) {state} 1 812 812 0 -1 {flags} 92 0 0 0 0 0 0 0 20 0 1 0 5042 2330624 233 \
             18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        )
    }

    #[test]
    fn names_may_have_anything_in_them() {
        for (comm, shown) in [
            ("sleep", "sleep"),
            ("a) R 1 (b", "a) R 1 (b"),
            (") ", ") "),
            ("", ""),
            ("x\ny\u{1b}", "x\\ny\\u{1b}"),
        ] {
            let parsed = parse_stat(&stat(comm, 'S', 0x40_0000)).unwrap();
            assert_eq!(parsed, Stat { comm: shown.to_owned(), started: 5042, is_alive: true });
        }
    }

    #[test]
    fn who_is_no_process_or_ends_is_not_alive() {
        for (state, flags, is_alive) in [
            ('R', 0x40_0100, true),
            ('D', 0x40_0100, true),
            ('Z', 0x40_0100, false),
            ('X', 0x40_0100, false),
            ('D', 0x40_0104, false),
            ('I', 0x20_8040, false),
        ] {
            assert_eq!(parse_stat(&stat("x", state, flags)).unwrap().is_alive, is_alive, "{state} {flags:x}");
        }
    }

    #[test]
    fn a_malformed_stat_is_refused() {
        for bad in
            ["", "812 x S 1", "812 (x) S 1 2 3\n", "812 (x) S 1 1 1 0 -1 x 92 0 0 0 0 0 0 0 20 0 1 0 5042\n"]
        {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
    }

    #[test]
    fn status_of_a_process_and_of_one_without_memory() {
        let text = "Name:\tx\nTgid:\t812\nPid:\t813\nRssAnon:\t     812 kB\nSigPnd:\t0000000000000000\n\
                    ShdPnd:\t0000000000000000\n";
        let status = Status { tgid: 812, rss_anon: Some(Bytes::kib(812)), is_killed: false };
        assert_eq!(parse_status(text), Some(status));
        let killed =
            parse_status("Tgid:\t2\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n").unwrap();
        assert_eq!(killed, Status { tgid: 2, rss_anon: None, is_killed: true });
        for bad in ["Name:\tx\n", "Tgid:\tx\n", "Tgid:\t1\nRssAnon:\t 812\n", "Tgid:\t1\nSigPnd:\tx\n"] {
            assert_eq!(parse_status(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_files_of_this_kernel_are_read() {
        let own = Process::open(std::process::id()).unwrap().unwrap();
        assert!(own.stat().unwrap().unwrap().is_alive);
        let status = own.status().unwrap().unwrap();
        assert_eq!((status.tgid, status.is_killed), (std::process::id(), false));
        assert!(own.cgroup().unwrap().unwrap().starts_with('/'));
        own.oom_score().unwrap().unwrap();
        assert!((-1000..=1000).contains(&own.oom_score_adj().unwrap().unwrap()));
        let ballast = vec![1u8; 8 << 20];
        let private = own.private_memory().unwrap().unwrap();
        assert!(private >= Bytes::mib(8) && private <= own.status().unwrap().unwrap().rss_anon.unwrap());
        drop(ballast);
    }

    #[test]
    fn a_process_that_has_ended_is_not_read() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let process = Process::open(child.id()).unwrap().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process.stat().unwrap(), None);
        assert_eq!(process.private_memory().unwrap(), None);
        assert!(Process::open(child.id()).unwrap().is_none());
    }
}
