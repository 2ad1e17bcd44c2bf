//! The configuration as the daemon uses it: read, checked, and written for mounts that shall stay.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use memcharge_config::{Accounts, ConfigError, Loaded, LoadedMount, Roots};
use memcharge_policy::MountName;
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    error::{DaemonError, Result},
    mounts::Source,
    record::write_whole,
    reload::invalid,
};

/// Reading the configuration takes no longer, unless a file system does not answer.
const LOAD_LIMIT: Duration = Duration::from_secs(10);

/// Where the files of mounts are, below a root.
const MOUNTS: &str = "mounts.d";

/// Reads and checks all of it.
pub(crate) fn load(roots: &Roots) -> Result<Loaded, Vec<ConfigError>> {
    memcharge_config::load(roots, Accounts::system())
}

/// The same beside whatever else the daemon does: a file system that does not answer is waited for on another thread,
/// and given up.
pub(crate) async fn load_in_time(roots: &Roots) -> Result<Result<Loaded, Vec<ConfigError>>> {
    let roots = roots.clone();
    in_time(move || load(&roots)).await
}

/// The configuration of a mount, or the main one, merged from its files; see [`memcharge_config::cat`].
pub(crate) async fn cat(roots: &Roots, name: Option<MountName>) -> Result<String> {
    let roots = roots.clone();
    let sought = name.clone();
    let text = in_time(move || memcharge_config::cat(&roots, Accounts::system(), sought.as_ref())).await?;
    let text = text.map_err(|errors| invalid(&errors))?;
    text.ok_or_else(|| DaemonError::NotConfigured {
        name: name.map(|name| name.to_string()).unwrap_or_default(),
    })
}

async fn in_time<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let late = |_| DaemonError::Late { what: "reading the configuration".into(), limit: LOAD_LIMIT };
    let read = timeout(LOAD_LIMIT, spawn_blocking(read)).await.map_err(late)?;
    read.map_err(|error| DaemonError::io("read", "the configuration")(std::io::Error::other(error)))
}

/// Where the configuration of a mount comes from.
pub(crate) fn source(mount: &LoadedMount) -> Source {
    Source {
        fragment: mount.fragment.display().to_string(),
        drop_ins: mount.drop_ins.iter().map(|path| path.display().to_string()).collect(),
    }
}

/// The file of a mount that is not there yet: written before the mount is made, so that a full disk is known in time,
/// and given its name afterwards. Without that it is removed again.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    draft: PathBuf,
}

impl Draft {
    /// Writes the text for the mount `name` in the root that counts most.
    pub(crate) fn write(roots: &Roots, name: &MountName, text: &str) -> Result<Self> {
        let root = roots.dirs().first().map_or(Path::new("/etc/memcharge"), PathBuf::as_path);
        let dir = root.join(MOUNTS);
        let path = dir.join(format!("{name}.toml"));
        if path.symlink_metadata().is_ok() {
            return Err(taken(name, &path));
        }
        let shown = path.display().to_string();
        fs::create_dir_all(&dir).map_err(DaemonError::io("make", dir.display().to_string()))?;
        // Without `.toml` at its end nobody reads it.
        let draft = dir.join(format!("{name}.toml.draft"));
        write_whole(&draft, text.as_bytes(), 0o644).map_err(DaemonError::io("write", shown))?;
        Ok(Self { path, draft })
    }

    /// The file's name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name. One that has come there meanwhile is not overwritten.
    pub(crate) fn commit(self) -> Result<()> {
        let shown = self.path.display().to_string();
        match rustix::fs::renameat_with(CWD, &self.draft, CWD, &self.path, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {
                let error = std::io::Error::other("it exists; the mount is there, and is not kept in a file");
                Err(DaemonError::io("write", shown)(error))
            }
            other => other.map_err(DaemonError::io("write", shown)),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Not there once it has been given its name.
        drop(fs::remove_file(&self.draft));
    }
}

fn taken(name: &MountName, path: &Path) -> DaemonError {
    let path = path.display();
    DaemonError::NameTaken { name: name.to_string(), why: format!("{path} exists; remove it, or edit it") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_becomes_the_file_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::single(dir.path());
        let name: MountName = "m".parse().unwrap();
        let file = dir.path().join("mounts.d/m.toml");
        drop(Draft::write(&roots, &name, "a = 1\n").unwrap());
        assert_eq!(fs::read_dir(dir.path().join("mounts.d")).unwrap().count(), 0);

        let draft = Draft::write(&roots, &name, "a = 1\n").unwrap();
        assert_eq!(draft.path(), file);
        draft.commit().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 1\n");
        assert!(matches!(Draft::write(&roots, &name, ""), Err(DaemonError::NameTaken { .. })));

        fs::remove_file(&file).unwrap();
        let draft = Draft::write(&roots, &name, "a = 1\n").unwrap();
        fs::write(&file, "other\n").unwrap();
        assert!(draft.commit().is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "other\n");
    }
}
