//! A root shell on the guest's second console, with this process's terminal as its terminal.

use std::{
    env,
    io::{self, Read, Stdin, Write},
    os::fd::AsFd,
    os::unix::net::UnixStream,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};

use crate::{
    cache::Cache,
    error::{Context, VmError},
    frozen::Prepared,
    job::{self, Running},
    machine::Heard,
    process::quoted,
    progress::Say,
    spec::{FileIn, Guest, Job},
};

/// Ctrl-], as in telnet and virsh: a way out of a guest that hangs.
const ESCAPE: u8 = 0x1d;
/// Ctrl-D: what the guest's terminal takes for the end of the input.
const END_OF_INPUT: u8 = 0x04;
/// The shell's status when its VM was ended with the escape: 128 + SIGKILL.
const KILLED: i32 = 137;
const CHUNK: usize = 4096;
/// The console's last output may come a moment after the agent's message, on another way.
const LAST_OUTPUT: Duration = Duration::from_millis(100);

/// Runs the shell to its end.
pub(crate) fn run(
    cache: &Cache,
    prepared: &Prepared,
    guest: &Guest,
    files: &[FileIn],
    say: Say<'_>,
) -> Result<i32, VmError> {
    let stdin = io::stdin();
    let mut job = Job::new(guest.clone(), command(&stdin));
    job.files = files.to_vec();
    job.timeout = Duration::ZERO;
    let mut running = job::begin(cache, prepared, &job, true, say)?;
    let Some(mut console) = running.console.take() else { return Err(running.machine.failed("no console")) };
    say("a root shell in the VM; leave it with exit or Ctrl-D, kill the VM with Ctrl-]");
    let heard = {
        let _raw = Raw::enter(&stdin)?;
        running.machine.set_word(&running.word);
        let heard = pump(&stdin, &mut console, &mut running)?;
        if heard.is_some() {
            last_output(&mut console)?;
        }
        heard
    };
    match heard {
        Some(heard) => running.outcome(heard, Duration::ZERO, say).map(|outcome| outcome.status),
        None => Ok(KILLED),
    }
}

/// What makes the second console a terminal with a shell on it.
fn command(stdin: &Stdin) -> String {
    let term = env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
    let size =
        tcgetwinsize(stdin).map(|w| (w.ws_row, w.ws_col)).ok().filter(|(rows, cols)| *rows > 0 && *cols > 0);
    let (rows, cols) = size.unwrap_or((24, 80));
    // The size after the opening: each first opening of this console resets it.
    format!(
        "export TERM={}; exec <>/dev/hvc0 >&0 2>&1; stty sane rows {rows} cols {cols}; \
         exec setsid --ctty --wait bash -il",
        quoted(&term)
    )
}

/// Carries bytes between terminal, console and agent until the agent says that the shell ended. None: the user killed it.
fn pump(stdin: &Stdin, console: &mut UnixStream, running: &mut Running) -> Result<Option<Heard>, VmError> {
    let mut typing = true;
    let mut stdout = io::stdout();
    loop {
        if let Some(message) = running.machine.drain(&mut stdout)? {
            return Ok(Some(Heard::Message(message)));
        }
        let [from_agent, from_console, from_user] = {
            let stream = running.machine.stream();
            let mut fds = vec![PollFd::new(&stream, PollFlags::IN), PollFd::new(console, PollFlags::IN)];
            if typing {
                fds.push(PollFd::new(stdin, PollFlags::IN));
            }
            rustix::io::retry_on_intr(|| poll(&mut fds, None)).context(|| "cannot wait for the VM".into())?;
            [0, 1, 2].map(|n| fds.get(n).is_some_and(|fd| !fd.revents().is_empty()))
        };
        if from_console {
            copy(console, &mut stdout)?;
        }
        if from_user {
            let bytes = read(stdin)?;
            if bytes.contains(&ESCAPE) {
                return Ok(None);
            }
            typing = !bytes.is_empty();
            let bytes = if typing { bytes } else { vec![END_OF_INPUT] };
            console.write_all(&bytes).context(|| "cannot write to the VM's console".into())?;
        }
        if from_agent && !running.machine.read()? {
            return Ok(Some(Heard::End));
        }
    }
}

fn last_output(console: &mut UnixStream) -> Result<(), VmError> {
    console.set_read_timeout(Some(LAST_OUTPUT)).context(|| "cannot use the VM's console".into())?;
    while copy(console, &mut io::stdout()).is_ok_and(|n| n > 0) {}
    Ok(())
}

fn copy(console: &mut UnixStream, stdout: &mut io::Stdout) -> Result<usize, VmError> {
    let mut buffer = [0; CHUNK];
    let n = console.read(&mut buffer).context(|| "cannot read the VM's console".into())?;
    stdout
        .write_all(&buffer[..n])
        .and_then(|()| stdout.flush())
        .context(|| "cannot write to the terminal".into())?;
    Ok(n)
}

/// Past the buffer of std, which would hide from poll what it holds.
fn read(stdin: &Stdin) -> Result<Vec<u8>, VmError> {
    let mut buffer = vec![0; CHUNK];
    let n = rustix::io::retry_on_intr(|| rustix::io::read(stdin, &mut buffer))
        .context(|| "cannot read from the terminal".into())?;
    buffer.truncate(n);
    Ok(buffer)
}

/// The terminal in raw mode, until this is dropped. Nothing if stdin is no terminal.
struct Raw<'a> {
    stdin: &'a Stdin,
    before: Option<Termios>,
}

impl<'a> Raw<'a> {
    fn enter(stdin: &'a Stdin) -> Result<Self, VmError> {
        let failed = || "cannot set up the terminal".to_owned();
        if !isatty(stdin.as_fd()) {
            return Ok(Self { stdin, before: None });
        }
        let before = tcgetattr(stdin).context(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Drain, &raw).context(failed)?;
        Ok(Self { stdin, before: Some(before) })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing can be done about a terminal that is gone.
            let _ = tcsetattr(self.stdin, OptionalActions::Drain, before);
        }
    }
}
