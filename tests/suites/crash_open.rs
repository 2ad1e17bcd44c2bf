//! What clients have open, mapped and locked survives a store that is killed (R28).

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    mem::MaybeUninit,
    os::unix::fs::{FileExt, MetadataExt},
};

use memcharge_tests::{cgroup::Cg, client::report, mount::Mount, torture::free_locks, vm_tests, wait::until};
use rustix::{
    fs::{FlockOperation, OFlags, RawDir},
    mm::{MapFlags, ProtFlags},
};

use crate::crash::{CRASH, ENOSPC, crash, target};

const NAMES: usize = 1000;
const LENGTH: usize = 64 << 10;

/// Names from a directory stream, from where it is on: at least `least` of them, or all that are left.
fn read_names(dir: &File, least: usize) -> Vec<String> {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    // What is in the buffer has left the stream: it must be taken, too.
    while names.len() < least || !entries.is_buffer_empty() {
        let Some(entry) = entries.next() else { break };
        names.push(entry.unwrap().file_name().to_string_lossy().into_owned());
    }
    names
}

/// A byte of a shared mapping.
fn mapped(file: &File, length: usize) -> *mut u8 {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice, which stays until the test's process ends.
    let start =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, file, 0) };
    start.unwrap().cast()
}

/// A mapping and calls show the same at this offset of a file.
fn assert_coherent(mapping: *mut u8, file: &File, reading: &File, offset: usize, byte: u8) {
    // SAFETY: the callers' mappings reach beyond the offset.
    unsafe { mapping.add(offset).write_volatile(byte) };
    for file in [file, reading] {
        let mut found = [0];
        file.read_exact_at(&mut found, offset as u64).unwrap();
        assert_eq!(found[0], byte, "a call sees what was stored through the mapping");
    }
    file.write_all_at(&[byte ^ 0xff], offset as u64).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { mapping.add(offset).read_volatile() }, byte ^ 0xff, "the mapping sees a write");
}

/// Opens a file for reading and writing; makes it if it is missing.
fn open(mount: &Mount, name: &str) -> File {
    let path = mount.join(name);
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn all_names() -> BTreeSet<String> {
    (0..NAMES).map(|i| format!("name-{i}")).collect()
}

/// One client with everything that is kept in a store, or in the kernel on top of it.
struct Client {
    file: File,
    reading: File,
    mapping: *mut u8,
    unnamed: File,
    flocked: File,
    fcntled: File,
    dir: File,
    names: Vec<String>,
}

impl Client {
    fn start(mount: &Mount) -> Self {
        fs::create_dir(mount.join("dir")).unwrap();
        all_names().iter().for_each(|name| drop(open(mount, &format!("dir/{name}"))));
        let (file, reading) = (open(mount, "f"), File::open(mount.join("f")).unwrap());
        file.write_all_at(&[1; LENGTH], 0).unwrap();
        let mapping = mapped(&file, LENGTH);
        let unnamed = open(mount, "unnamed");
        unnamed.write_all_at(&[2; LENGTH], 0).unwrap();
        fs::remove_file(mount.join("unnamed")).unwrap();
        let (flocked, fcntled) = (open(mount, "flocked"), open(mount, "fcntled"));
        rustix::fs::flock(&flocked, FlockOperation::NonBlockingLockExclusive).unwrap();
        rustix::fs::fcntl_lock(&fcntled, FlockOperation::NonBlockingLockExclusive).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = File::from(rustix::fs::open(mount.join("dir"), flags, rustix::fs::Mode::empty()).unwrap());
        let names = read_names(&dir, NAMES / 4);
        Self { file, reading, mapping, unnamed, flocked, fcntled, dir, names }
    }

    /// Everything is as it was; the directory goes on by at least so many names.
    fn check(&mut self, mount: &Mount, round: usize, names: usize) {
        let byte = [0x5a, 0x3c, 0x77][round];
        assert_coherent(self.mapping, &self.file, &self.reading, 4096 * (round + 1) + 7, byte);
        let mut found = vec![0; LENGTH];
        self.unnamed.read_exact_at(&mut found, 0).unwrap();
        assert!(found.iter().all(|byte| *byte == 2), "the file without a name has changed");
        assert_eq!(self.unnamed.metadata().unwrap().nlink(), 0);
        assert_eq!(free_locks(&mount.join("flocked")), (false, true), "flock's is held");
        assert_eq!(free_locks(&mount.join("fcntled")), (true, false), "fcntl's is held");
        self.names.extend(read_names(&self.dir, names));
    }

    /// What was opened before is closed in the right way: locks are free then, and memory comes back.
    fn end(mut self, mount: &Mount) {
        self.names.retain(|name| name != "." && name != "..");
        assert_eq!(self.names.len(), NAMES, "a name is missing or there twice");
        assert_eq!(self.names.into_iter().collect::<BTreeSet<_>>(), all_names());
        let used = mount.number("used_bytes");
        drop(self.unnamed);
        until("the file without a name is gone", || {
            (mount.number("used_bytes") + LENGTH as u64 <= used).then_some(())
        });
        rustix::fs::flock(&self.flocked, FlockOperation::Unlock).unwrap();
        rustix::fs::fcntl_lock(&self.fcntled, FlockOperation::Unlock).unwrap();
        assert_eq!(free_locks(&mount.join("flocked")), (true, true));
        assert_eq!(free_locks(&mount.join("fcntled")), (true, true));
    }
}

vm_tests! { CRASH;
    /// R28: mapping, file without a name, locks, a directory half read; the counters do not go back.
    fn r28_a_mapping_and_open_files_survive_a_kill() {
        let client = Cg::make("/client");
        let _target = target("/t");
        let mount = Mount::make("x", "/t", &[]);
        let mut open = Client::start(&mount);
        let refused = report(&client, &["fallocate", &mount.join("large"), &(1u64 << 40).to_string()]);
        assert_eq!(refused.errno, ENOSPC);
        let before = mount.properties();
        // More than once: what is handed from store to store must be complete each time.
        for round in 0..3 {
            let old = mount.store();
            println!("round {round}: store {old}, then {}", crash(&mount));
            open.check(&mount, round, if round == 2 { usize::MAX } else { NAMES / 4 });
            let now = mount.properties();
            for key in ["denials", "kills", "target_id", "size_max", "used_bytes"] {
                assert_eq!(now[key], before[key], "{key}");
            }
        }
        open.end(&mount);
    }
}
