//! Samples of a cgroup and all its ancestors, through files that are opened once.

use std::{fs::File, os::unix::fs::FileExt, str, sync::Arc};

use memcharge_policy::{
    Bytes,
    sample::{LevelSample, Sample},
};
use rustix::fs::OFlags;

use crate::{CgroupError, Hierarchy, cgroup::malformed, parse};

const MEMINFO: &str = "/proc/meminfo";

/// Large enough for a limit or a counter: 20 digits and a newline.
const NUMBER_BUFFER: usize = 32;

/// Large enough for `memory.stat`: some sixty lines of at most 50 bytes.
const STAT_BUFFER: usize = 4096;

/// Large enough for the first lines of `/proc/meminfo`; `MemAvailable` is the third.
const MEMINFO_BUFFER: usize = 512;

/// The open limit and counter files of a cgroup and its ancestors, as far as they have the memory controller.
///
/// Sampling neither allocates (once the result has its capacity) nor opens anything, so a store can do it while its
/// cgroup is at the limit.
#[derive(Debug)]
pub struct Sampler {
    levels: Vec<LevelFiles>,
    meminfo: File,
}

#[derive(Debug)]
struct LevelFiles {
    path: Arc<str>,
    id: u64,
    current: File,
    max: File,
    high: File,
    stat: File,
}

impl Sampler {
    /// Opens the files of the cgroup at `path` and of every ancestor below the root.
    pub fn open(hierarchy: &Hierarchy, path: &str) -> Result<Self, CgroupError> {
        let meminfo = File::open(MEMINFO).map_err(|source| CgroupError::Io {
            action: "open",
            path: MEMINFO.to_owned(),
            source,
        })?;
        let mut levels = Vec::new();
        for path in ancestry(path) {
            let cgroup = hierarchy.open(path)?;
            if cgroup.has_memory()? {
                levels.push(LevelFiles {
                    path: path.into(),
                    id: cgroup.id(),
                    current: cgroup.open_file("memory.current", OFlags::RDONLY)?,
                    max: cgroup.open_file("memory.max", OFlags::RDONLY)?,
                    high: cgroup.open_file("memory.high", OFlags::RDONLY)?,
                    stat: cgroup.open_file("memory.stat", OFlags::RDONLY)?,
                });
            }
        }
        Ok(Self { levels, meminfo })
    }

    /// Reads all levels and the machine's available memory.
    pub fn sample(&self) -> Result<Sample, CgroupError> {
        let mut sample = Sample { levels: Vec::with_capacity(self.levels.len()), available: Bytes(0) };
        self.sample_into(&mut sample)?;
        Ok(sample)
    }

    /// Like [`Sampler::sample`], reusing `sample`.
    pub fn sample_into(&self, sample: &mut Sample) -> Result<(), CgroupError> {
        self.sample_levels(sample)?;
        sample.available = self.available()?;
        Ok(())
    }

    /// Reads all levels. The machine's memory is left as it was.
    pub fn sample_levels(&self, sample: &mut Sample) -> Result<(), CgroupError> {
        sample.levels.clear();
        for level in &self.levels {
            sample.levels.push(level.sample()?);
        }
        Ok(())
    }

    /// Reads one level; `None`: there is no such level.
    pub fn sample_level(&self, index: usize) -> Result<Option<LevelSample>, CgroupError> {
        self.levels.get(index).map(LevelFiles::sample).transpose()
    }

    /// Reads the machine's available memory. Costs more than all levels: the kernel makes a list of fifty lines for it.
    pub fn available(&self) -> Result<Bytes, CgroupError> {
        let mut buffer = [0; MEMINFO_BUFFER];
        let text = read_at_start(&self.meminfo, &mut buffer).map_err(|source| CgroupError::Io {
            action: "read",
            path: MEMINFO.to_owned(),
            source,
        })?;
        parse::parse_available(text).ok_or_else(|| malformed(MEMINFO, text, "a list with MemAvailable"))
    }

    /// Cache of files on disk of the level at `index`. Costs more than a sample.
    pub fn file_cache(&self, index: usize) -> Result<Bytes, CgroupError> {
        self.read_stat(index, parse::parse_file_cache)
    }

    /// What the level at `index` is charged as far as the kernel tells for what. Costs more than a sample.
    pub fn accounted(&self, index: usize) -> Result<Bytes, CgroupError> {
        self.read_stat(index, parse::parse_accounted)
    }

    /// Cache of the level at `index` that the kernel can drop without writing anything. Costs more than a sample.
    pub fn clean_cache(&self, index: usize) -> Result<Bytes, CgroupError> {
        self.read_stat(index, parse::parse_clean_cache)
    }

    fn read_stat(&self, index: usize, parse: impl Fn(&str) -> Option<Bytes>) -> Result<Bytes, CgroupError> {
        let Some(level) = self.levels.get(index) else { return Ok(Bytes(0)) };
        let mut buffer = [0; STAT_BUFFER];
        level.read(&level.stat, "memory.stat", &mut buffer, parse, "a list with the counters of memory")
    }

    /// The ids of the levels' cgroups, in the order of the samples.
    pub fn level_ids(&self) -> impl Iterator<Item = u64> {
        self.levels.iter().map(|level| level.id)
    }

    /// The cgroup path of the level at `index` in the samples.
    pub fn level_path(&self, index: usize) -> Option<&Arc<str>> {
        self.levels.get(index).map(|level| &level.path)
    }
}

impl LevelFiles {
    fn sample(&self) -> Result<LevelSample, CgroupError> {
        let limit = "a number or \"max\"";
        let buffer = &mut [0; NUMBER_BUFFER];
        Ok(LevelSample {
            current: self.read(&self.current, "memory.current", buffer, parse::parse_bytes, "a number")?,
            max: self.read(&self.max, "memory.max", buffer, parse::parse_limit, limit)?,
            high: self.read(&self.high, "memory.high", buffer, parse::parse_limit, limit)?,
        })
    }

    fn read<T>(
        &self,
        file: &File,
        name: &str,
        buffer: &mut [u8],
        parse: impl Fn(&str) -> Option<T>,
        expected: &'static str,
    ) -> Result<T, CgroupError> {
        let text = read_at_start(file, buffer).map_err(|source| match source.raw_os_error() {
            Some(19) => CgroupError::Dying { path: self.path.to_string() }, // ENODEV: the cgroup was removed
            _ => CgroupError::Io { action: "read", path: format!("{}/{name}", self.path), source },
        })?;
        parse(text).ok_or_else(|| malformed(&format!("{}/{name}", self.path), text, expected))
    }
}

fn read_at_start<'a>(file: &File, buffer: &'a mut [u8]) -> std::io::Result<&'a str> {
    let length = file.read_at(buffer, 0)?;
    let text = &buffer[..length];
    // A cut inside a character cannot happen: these files are ASCII.
    str::from_utf8(text).map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))
}

/// A path and its ancestors, without the root: `/a/b` gives `/a/b`, `/a`.
fn ancestry(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path.trim_end_matches('/')), |path| {
        path.rsplit_once('/').map(|(parent, _)| parent)
    })
    .take_while(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn make_level(dir: &Path, current: &str, max: &str, high: &str) {
        fs::create_dir_all(dir).unwrap();
        for (file, text) in [
            ("cgroup.controllers", "memory"),
            ("memory.current", current),
            ("memory.max", max),
            ("memory.high", high),
            ("memory.stat", "inactive_file 8\nactive_file 4\nfile_dirty 1\nfile_writeback 1\n"),
        ] {
            fs::write(dir.join(file), text).unwrap();
        }
    }

    #[test]
    fn ancestors_are_the_paths_up_to_the_root() {
        assert_eq!(ancestry("/a/b/c").collect::<Vec<_>>(), ["/a/b/c", "/a/b", "/a"]);
        assert_eq!(ancestry("/").count(), 0);
    }

    #[test]
    fn r17_all_levels_are_sampled() {
        let dir = tempfile::tempdir().unwrap();
        make_level(&dir.path().join("a"), "100\n", "8192\n", "max\n");
        make_level(&dir.path().join("a/b"), "50\n", "max\n", "4096\n");
        fs::create_dir(dir.path().join("a/b/leaf")).unwrap();
        fs::write(dir.path().join("a/b/leaf/cgroup.controllers"), "\n").unwrap();
        let sampler = Sampler::open(&Hierarchy::stand_in(dir.path()), "/a/b/leaf").unwrap();
        let sample = sampler.sample().unwrap();
        let level = |current, max: Option<u64>, high: Option<u64>| LevelSample {
            current: Bytes(current),
            max: max.map(Bytes),
            high: high.map(Bytes),
        };
        assert_eq!(sample.levels, [level(50, None, Some(4096)), level(100, Some(8192), None)]);
        assert_eq!(
            sampler.level_path(0).map(|path| &**path),
            Some("/a/b"),
            "a level without the controller is left out"
        );
        assert!(sample.available.0 > 0);
        assert_eq!(sampler.clean_cache(1).unwrap(), Bytes(10));

        fs::write(dir.path().join("a/memory.max"), "lots\n").unwrap();
        assert!(matches!(sampler.sample(), Err(CgroupError::Malformed { .. })), "no default in silence");
    }
}
