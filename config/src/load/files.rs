//! Which files count: systemd's precedence, masking and drop-ins; and their text.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::error::{ConfigError, Located, Problem};

/// No configuration is that long; reading on would only take memory.
const MAX_FILE: u64 = 1 << 20;

/// Where a file stands that masks others of its name.
const NULL: &str = "/dev/null";

/// The directories that configuration is read from, the one that counts most first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    dirs: Vec<PathBuf>,
    must_exist: bool,
}

impl Roots {
    /// The system's: `/etc/memcharge`, `/run/memcharge`, `/usr/lib/memcharge`. None of them needs to be there.
    pub fn system() -> Self {
        let dirs = ["/etc/memcharge", "/run/memcharge", "/usr/lib/memcharge"];
        Self { dirs: dirs.map(PathBuf::from).to_vec(), must_exist: false }
    }

    /// One directory instead of the system's three. It must be there.
    pub fn single(dir: impl Into<PathBuf>) -> Self {
        Self { dirs: vec![dir.into()], must_exist: true }
    }

    /// These directories, the one that counts most first. None of them needs to be there.
    pub fn new(dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { dirs: dirs.into_iter().collect(), must_exist: false }
    }

    /// The directories, the one that counts most first.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Says which directories are not there that must be.
    pub(crate) fn check(&self) -> Vec<ConfigError> {
        let wrong = self.dirs.iter().filter(|dir| self.must_exist && !dir.is_dir());
        let text = "is not a directory that can be read; give one that holds memcharged.toml or mounts.d";
        wrong.map(|dir| error(dir, text.to_owned())).collect()
    }

    /// The file of this name that counts, masked or not.
    pub(crate) fn first(&self, below: &Path) -> Option<PathBuf> {
        self.dirs.iter().map(|dir| dir.join(below)).find(|path| match path.symlink_metadata() {
            Ok(_) => true,
            // Any other failure comes again when the file is read, and is reported there.
            Err(error) => !is_absent(&error),
        })
    }

    /// The files `*.toml` below each root that count, sorted by name; masked ones are among them.
    pub(crate) fn list(&self, below: &Path) -> Listing {
        let mut listing = Listing::default();
        for dir in self.dirs.iter().map(|dir| dir.join(below)) {
            if let Err(failure) = listing.add(&dir)
                && failure.kind() != io::ErrorKind::NotFound
            {
                listing.errors.push(error(&dir, format!("cannot be listed: {failure}")));
            }
        }
        listing
    }
}

/// The files that count, by name.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// File names with their paths.
    pub(crate) files: BTreeMap<String, PathBuf>,
    /// What could not be listed.
    pub(crate) errors: Vec<ConfigError>,
}

impl Listing {
    fn add(&mut self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let bytes = name.as_encoded_bytes();
            if bytes.starts_with(b".") || !bytes.ends_with(b".toml") {
                continue;
            }
            match name.to_str() {
                Some(text) => {
                    self.files.entry(text.to_owned()).or_insert_with(|| dir.join(&name));
                }
                None => self.errors.push(bad_name(dir, &name)),
            }
        }
        Ok(())
    }
}

/// The text of a file; `None` where it is empty or a symlink to `/dev/null`.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, Located> {
    let whole = |text: String| Located { line: 0, problem: Problem::File(text) };
    let failed = |error: io::Error| whole(format!("cannot be read: {error}"));
    if fs::canonicalize(path).map_err(failed)? == Path::new(NULL) {
        return Ok(None);
    }
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    if kind.is_dir() {
        return Err(whole("is a directory; a file is expected here".to_owned()));
    }
    // Opening a FIFO would wait for somebody to write.
    if !kind.is_file() {
        return Err(whole("is not a regular file; a file is expected here".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(whole("is larger than 1 MiB; it cannot be a configuration file".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        Located { line, problem: Problem::File("not UTF-8; save the file as UTF-8".to_owned()) }
    })?;
    Ok((!text.is_empty()).then_some(text))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn bad_name(dir: &Path, name: &OsStr) -> ConfigError {
    error(&dir.join(name), "has a name that is not UTF-8; rename it".to_owned())
}

fn error(file: &Path, text: String) -> ConfigError {
    ConfigError { file: file.to_owned(), line: 0, problem: Problem::File(text) }
}
