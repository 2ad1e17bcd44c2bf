//! A client of a mount: enters a cgroup, does one thing to a file, says in one line of JSON how far it came.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A probe that cannot do its work fails by a panic.

use std::{
    ffi::c_void,
    fs::{File, OpenOptions},
    io::{self, BufRead, Read, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::PathBuf,
    ptr,
};

use clap::{Parser, Subcommand, ValueEnum};
use memcharge_tests::growth;
use rustix::{
    fs::FallocateFlags,
    mm::{MapFlags, ProtFlags},
    pipe::SpliceFlags,
};
use serde_json::json;

const PAGE: usize = 4096;

#[derive(Parser)]
struct Cli {
    /// The cgroup to enter first, below the root.
    #[arg(long)]
    cgroup: String,
    /// Wait when it is done, so that the process can be looked at.
    #[arg(long)]
    stay: bool,
    /// The user to become then.
    #[arg(long)]
    uid: Option<u32>,
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    File,
    Dir,
    Symlink,
    Xattr,
}

#[derive(Subcommand)]
enum What {
    /// Writes a pattern; says how many bytes went in, and the error that ended it.
    Write {
        path: PathBuf,
        bytes: usize,
        #[arg(long, default_value_t = 65536)]
        block: usize,
        #[arg(long)]
        append: bool,
        #[arg(long)]
        offset: Option<u64>,
    },
    /// Reads it all back and compares with the pattern.
    Verify { path: PathBuf, bytes: usize },
    /// fallocate(2).
    Fallocate { path: PathBuf, bytes: u64 },
    /// copy_file_range(2) from one file of the mount to another.
    Copy { from: PathBuf, to: PathBuf },
    /// Fills a file from a pipe by splice(2).
    SpliceIn { path: PathBuf, bytes: usize },
    /// Sets a file's length.
    Truncate { path: PathBuf, bytes: u64 },
    /// Sets a file's length and stores a byte into each page through a shared mapping.
    Map {
        path: PathBuf,
        bytes: usize,
        /// Leave the length alone.
        #[arg(long)]
        as_is: bool,
    },
    /// Frees a file's pages by madvise(MADV_REMOVE), which no file system is asked about.
    RemovePages { path: PathBuf },
    /// Like `map`, but catches SIGBUS, and then writes to a second file.
    MapCatch { path: PathBuf, bytes: usize, other: PathBuf },
    /// Reads a whole file by read(2).
    Read {
        path: PathBuf,
        #[arg(long)]
        writable: bool,
    },
    /// Reads a byte of each page through a mapping.
    MapRead { path: PathBuf },
    /// sendfile(2) of a whole file to /dev/null's pipe.
    Sendfile {
        path: PathBuf,
        #[arg(long)]
        writable: bool,
    },
    /// Makes things until it has made so many, or cannot.
    Make { dir: PathBuf, kind: Kind, count: usize },
    /// Appends to a file until it was refused so often; says how often that was.
    Grow {
        path: PathBuf,
        refusals: u64,
        #[arg(long, default_value_t = 4096)]
        block: usize,
    },
    /// Grows and removes files of its own at random until it was refused so often; says how often that was.
    Storm { dir: PathBuf, refusals: u64, seed: u64 },
    /// Writes one byte at the start of each of so many steps.
    Scatter { path: PathBuf, count: usize, step: u64 },
    /// Fills a file to ENOSPC and empties it, again and again, until it is killed.
    Churn { path: PathBuf },
    /// Moves the pages of files into pipes and removes the files, until the pipes hold so many bytes.
    Pipes { dir: PathBuf, bytes: usize },
    /// Holds private memory and waits.
    Hog { bytes: usize },
    /// Holds a file open, or mapped, and waits.
    Hold {
        path: PathBuf,
        #[arg(long)]
        map: bool,
    },
}

fn main() {
    let cli = Cli::parse();
    std::fs::write(format!("/sys/fs/cgroup{}/cgroup.procs", cli.cgroup), "0").expect("enter the cgroup");
    if let Some(uid) = cli.uid {
        // SAFETY: no memory is involved, and there is one thread.
        assert_eq!(unsafe { (libc::setgid(uid), libc::setuid(uid)) }, (0, 0), "become {uid}");
    }
    act(cli.what);
    if cli.stay {
        let _ = io::stdin().lock().read_line(&mut String::new());
    }
}

fn act(what: What) {
    match what {
        What::Write { path, bytes, block, append, offset } => write(&path, bytes, block, append, offset),
        What::Verify { path, bytes } => verify(&path, bytes),
        What::Fallocate { path, bytes } => {
            let file = writable(&path);
            say(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)
                .map(|()| bytes)
                .map_err(Into::into));
        }
        What::Copy { from, to } => copy(&from, &to),
        What::SpliceIn { path, bytes } => splice_in(&path, bytes),
        What::Truncate { path, bytes } => say(writable(&path).set_len(bytes).map(|()| bytes)),
        What::Map { path, bytes, as_is } => {
            let file = writable(&path);
            if !as_is && let Err(e) = file.set_len(bytes as u64) {
                return say(Err(e));
            }
            touch(&file, bytes);
            say(Ok(bytes as u64));
        }
        What::RemovePages { path } => {
            let file = writable(&path);
            let bytes = file.metadata().unwrap().len() as usize;
            let start = map(&file, bytes, ProtFlags::READ | ProtFlags::WRITE);
            // SAFETY: the whole mapping, which nothing refers to.
            let result = unsafe { rustix::mm::madvise(start, bytes, rustix::mm::Advice::LinuxRemove) };
            say(result.map(|()| bytes as u64).map_err(Into::into));
        }
        What::MapCatch { path, bytes, other } => map_catch(&path, bytes, &other),
        What::Read { path, writable } => {
            let mut file = if writable { self::writable(&path) } else { File::open(path).unwrap() };
            let mut buffer = vec![0; 1 << 16];
            let mut total = 0;
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => return say(Ok(total)),
                    Ok(length) => total += length as u64,
                    Err(e) => return say(Err(e)),
                }
            }
        }
        What::MapRead { path } => map_read(&path),
        What::Sendfile { path, writable } => sendfile(&path, writable),
        What::Make { dir, kind, count } => make(&dir, kind, count),
        What::Grow { path, refusals, block } => report(growth::grow(&path, refusals, block), None),
        What::Storm { dir, refusals, seed } => report(growth::storm(&dir, refusals, seed), None),
        What::Scatter { path, count, step } => scatter(&path, count, step),
        What::Churn { path } => churn(&path),
        What::Pipes { dir, bytes } => pipes(&dir, bytes),
        What::Hog { bytes } => {
            let mut memory = vec![0u8; bytes];
            memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
            wait();
            drop(std::hint::black_box(memory));
        }
        What::Hold { path, map } => {
            let file = writable(&path);
            if map {
                let length = file.metadata().unwrap().len() as usize;
                touch(&file, length);
                drop(file);
                wait();
            } else {
                wait();
            }
        }
    }
}

fn say(result: io::Result<u64>) {
    let (done, error) = match result {
        Ok(done) => (Some(done), None),
        Err(e) => (None, e.raw_os_error()),
    };
    report(done.unwrap_or(0), error);
}

fn report(done: u64, errno: Option<i32>) {
    println!("{}", json!({ "done": done, "errno": errno }));
}

fn wait() {
    println!("ready");
    // Ends when the test closes its end, or by a signal.
    let _ = io::stdin().lock().read_line(&mut String::new());
}

fn writable(path: &std::path::Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o666).open(path).unwrap()
}

/// The pattern's byte at an offset; no two blocks are alike.
fn pattern(offset: usize) -> u8 {
    ((offset / 7) ^ (offset >> 11)) as u8 | 1
}

fn write(path: &std::path::Path, bytes: usize, block: usize, append: bool, offset: Option<u64>) {
    let mut file =
        OpenOptions::new().append(append).write(true).create(true).truncate(false).open(path).unwrap();
    let start = if append { file.metadata().unwrap().len() } else { offset.unwrap_or(0) } as usize;
    let mut done = 0;
    let mut data = vec![0; block];
    while done < bytes {
        let length = block.min(bytes - done);
        (0..length).for_each(|i| data[i] = pattern(start + done + i));
        let result = match append {
            true => file.write(&data[..length]),
            false => file.write_at(&data[..length], (start + done) as u64),
        };
        match result {
            Ok(0) => break,
            Ok(written) => done += written,
            Err(e) => return report(done as u64, e.raw_os_error()),
        }
    }
    report(done as u64, None);
}

fn verify(path: &std::path::Path, bytes: usize) {
    let data = std::fs::read(path).unwrap();
    assert!(data.len() >= bytes, "{} bytes, not {bytes}", data.len());
    let wrong = (0..bytes).find(|i| data[*i] != pattern(*i));
    assert_eq!(wrong, None, "the first wrong byte");
    report(bytes as u64, None);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let (from, to) = (File::open(from).unwrap(), writable(to));
    let length = from.metadata().unwrap().len();
    let (mut read, mut written) = (0, 0);
    while written < length {
        let left = (length - written) as usize;
        match rustix::fs::copy_file_range(&from, Some(&mut read), &to, Some(&mut written), left) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) => return report(written, Some(e.raw_os_error())),
        }
    }
    report(written, None);
}

fn splice_in(path: &std::path::Path, bytes: usize) {
    let file = writable(path);
    let (out, into) = rustix::pipe::pipe().unwrap();
    let chunk: Vec<u8> = (0..1 << 16).map(pattern).collect();
    let mut done = 0;
    while done < bytes {
        rustix::io::write(&into, &chunk).unwrap();
        let mut left = chunk.len();
        while left > 0 {
            match rustix::pipe::splice(&out, None, &file, None, left, SpliceFlags::empty()) {
                Ok(length) => {
                    left -= length;
                    done += length;
                }
                Err(e) => return report(done as u64, Some(e.raw_os_error())),
            }
        }
    }
    report(done as u64, None);
}

fn map(file: &File, bytes: usize, protection: ProtFlags) -> *mut c_void {
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe {
        rustix::mm::mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, file.as_fd(), 0).unwrap()
    }
}

fn touch(file: &File, bytes: usize) {
    let start = map(file, bytes, ProtFlags::READ | ProtFlags::WRITE).cast::<u8>();
    for offset in (0..bytes).step_by(PAGE) {
        // SAFETY: within the mapping, which lives until the process ends.
        unsafe { start.add(offset).write_volatile(7) };
    }
}

fn map_read(path: &std::path::Path) {
    let file = File::open(path).unwrap();
    let bytes = file.metadata().unwrap().len() as usize;
    let start = map(&file, bytes, ProtFlags::READ).cast::<u8>();
    let mut sum = 0u64;
    for offset in (0..bytes).step_by(PAGE) {
        // SAFETY: within the mapping, which lives until the process ends.
        sum += u64::from(unsafe { start.add(offset).read_volatile() });
    }
    std::hint::black_box(sum);
    report(bytes as u64, None);
}

/// Where SIGBUS continues; the probe has one thread.
static mut RETURN: [u64; 64] = [0; 64];

unsafe extern "C" {
    #[link_name = "__sigsetjmp"]
    fn sigsetjmp(buffer: *mut c_void, save: i32) -> i32;
    fn siglongjmp(buffer: *mut c_void, value: i32) -> !;
}

extern "C" fn on_sigbus(_signal: i32) {
    // SAFETY: jumps back into `map_catch`, whose frame is alive while the mapping is touched.
    unsafe { siglongjmp((&raw mut RETURN).cast(), 1) }
}

fn map_catch(path: &std::path::Path, bytes: usize, other: &std::path::Path) {
    let file = writable(path);
    file.set_len(bytes as u64).unwrap();
    // SAFETY: `RETURN` is larger than any `sigjmp_buf`; nothing with a destructor is between here and the jump.
    let caught = unsafe {
        libc::signal(libc::SIGBUS, on_sigbus as *const () as usize);
        sigsetjmp((&raw mut RETURN).cast(), 1) != 0
    };
    if !caught {
        touch(&file, bytes);
    }
    let went_on = File::create(other).and_then(|mut file| file.write_all(b"still here")).is_ok();
    println!("{}", json!({ "caught": caught, "went_on": went_on }));
}

fn sendfile(path: &std::path::Path, writable: bool) {
    let file = if writable { self::writable(path) } else { File::open(path).unwrap() };
    let (mut out, into) = std::os::unix::net::UnixStream::pair().unwrap();
    let reader = std::thread::spawn(move || io::copy(&mut out, &mut io::sink()));
    let length = file.metadata().unwrap().len();
    let mut offset = 0;
    while offset < length {
        let left = (length - offset) as usize;
        match rustix::fs::sendfile(&into, &file, Some(&mut offset), left) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) => return report(offset, Some(e.raw_os_error())),
        }
    }
    drop(into);
    assert_eq!(reader.join().unwrap().unwrap(), offset);
    report(offset, None);
}

fn scatter(path: &std::path::Path, count: usize, step: u64) {
    let file = writable(path);
    for i in 0..count {
        if let Err(e) = file.write_at(b"x", i as u64 * step) {
            return report(i as u64, e.raw_os_error());
        }
    }
    report(count as u64, None);
}

fn churn(path: &std::path::Path) {
    let file = writable(path);
    let data = vec![b'c'; 1 << 16];
    println!("ready");
    loop {
        let mut end = 0;
        while let Ok(written) = file.write_at(&data, end) {
            end += written as u64;
        }
        let _ = file.set_len(0);
    }
}

/// What a pipe holds at most unless root says otherwise.
const PIPE: usize = 1 << 20;

fn pipes(dir: &std::path::Path, bytes: usize) {
    let data = vec![b'p'; PIPE];
    let (mut pipes, mut held) = (Vec::new(), 0);
    let mut fill = || {
        let path = dir.join("piped");
        let written = File::create(&path).and_then(|file| file.write_all_at(&data, 0));
        let file = File::open(&path)?;
        std::fs::remove_file(&path)?;
        written?;
        let (out, into) = rustix::pipe::pipe()?;
        rustix::pipe::fcntl_setpipe_size(&into, PIPE)?;
        let mut offset = 0;
        while (offset as usize) < PIPE {
            let left = PIPE - offset as usize;
            held += rustix::pipe::splice(&file, Some(&mut offset), &into, None, left, SpliceFlags::empty())?;
        }
        pipes.push((out, into));
        io::Result::Ok(held)
    };
    loop {
        match fill() {
            Ok(held) if held < bytes => {}
            Ok(held) => return keep(pipes, held, None),
            Err(e) => return keep(pipes, held, e.raw_os_error()),
        }
    }
}

/// Reports, and leaves the pipes open until the process ends.
fn keep<T>(pipes: T, held: usize, errno: Option<i32>) {
    std::mem::forget(pipes);
    report(held as u64, errno);
}

fn make(dir: &std::path::Path, kind: Kind, count: usize) {
    for i in 0..count {
        let path = dir.join(format!("made-{i}"));
        let result = match kind {
            Kind::File => File::create(path).map(drop),
            Kind::Dir => std::fs::create_dir(path),
            Kind::Symlink => std::os::unix::fs::symlink("x".repeat(100), path),
            Kind::Xattr => File::create(dir.join("attributes")).and_then(|file| {
                let value = vec![b'v'; 1024];
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::fsetxattr(&file, format!("user.n{i}"), &value, flags).map_err(Into::into)
            }),
        };
        if let Err(e) = result {
            return report(i as u64, e.raw_os_error());
        }
    }
    report(count as u64, None);
}
