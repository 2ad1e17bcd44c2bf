//! The only I/O of this crate: finds and reads the files, and gives all of it or a list of errors.

mod accounts;
mod files;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use memcharge_policy::{MountName, MountPolicy};

use crate::{
    cat::{Layer, cat_main, cat_mount},
    check::clean_path,
    error::{ConfigError, Located, Problem},
    fragment::{Accounts, Fragment, Read, read_mount_file},
    load::files::{Listing, read_text},
    main_file::{MainFragment, MainSettings, read_main_file},
    merge::{merge, merge_main},
    settings::{missing, resolve},
};

pub use files::Roots;

const MAIN: &str = "memcharged.toml";
const MOUNTS: &str = "mounts.d";

/// The whole configuration, valid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The daemon's own settings.
    pub main: MainSettings,
    /// The main file and its drop-ins that were read, in the order in which they count.
    pub main_files: Vec<PathBuf>,
    /// The mounts, sorted by name.
    pub mounts: Vec<LoadedMount>,
}

/// One mount of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedMount {
    /// What was decided, with all defaults filled in.
    pub policy: MountPolicy,
    /// The mount's file.
    pub fragment: PathBuf,
    /// Its drop-ins, in the order in which they count.
    pub drop_ins: Vec<PathBuf>,
}

/// Reads and checks the whole configuration. Either everything is valid, or there are errors, sorted by file and line.
///
/// A file of the same name in an earlier root hides the later one; an empty file or a symlink to `/dev/null` masks.
/// Drop-ins of a mount whose file is not there, or is masked, do nothing.
pub fn load(roots: &Roots, accounts: Accounts<'_>) -> Result<Loaded, Vec<ConfigError>> {
    let mut loading = Loading { roots, accounts, errors: roots.check() };
    let main_layers = loading.main();
    let main = merged_main(&main_layers);
    let drafts = loading.mounts(&main.defaults);
    loading.places(&drafts);
    // A value that breaks a rule is still in its fragment here, and has been taken down with its line.
    let mounts = if loading.errors.is_empty() { loading.policies(drafts) } else { Vec::new() };
    loading.end()?;
    let main_files = main_layers.into_iter().map(|(path, _)| path).collect();
    Ok(Loaded { main: main.into(), main_files, mounts })
}

/// The configuration of a mount, merged, as the text of a file that says where each value comes from; without a name the
/// main configuration. `None`: no file configures such a mount. Errors are those of [`load`].
pub fn cat(
    roots: &Roots,
    accounts: Accounts<'_>,
    name: Option<&MountName>,
) -> Result<Option<String>, Vec<ConfigError>> {
    let mut loading = Loading { roots, accounts, errors: roots.check() };
    let main_layers = loading.main();
    let drafts = loading.mounts(&merged_main(&main_layers).defaults);
    loading.places(&drafts);
    loading.end()?;
    let origin = |path: PathBuf| path.display().to_string();
    let layers = main_layers.into_iter().map(|(path, says)| Layer { origin: origin(path), says });
    let Some(name) = name else { return Ok(Some(cat_main(&layers.collect::<Vec<_>>()))) };
    let draft = drafts.into_iter().find(|draft| draft.name == *name);
    Ok(draft.map(|draft| {
        let defaults = layers.map(|Layer { origin, says }| Layer { origin, says: says.defaults });
        let own = draft.layers.into_iter().map(|(path, says)| Layer { origin: origin(path), says });
        cat_mount(&defaults.chain(own).collect::<Vec<_>>())
    }))
}

fn merged_main(layers: &[(PathBuf, MainFragment)]) -> MainFragment {
    layers.iter().fold(MainFragment::default(), |merged, (_, says)| merge_main(merged, says.clone()))
}

struct Loading<'a> {
    roots: &'a Roots,
    accounts: Accounts<'a>,
    errors: Vec<ConfigError>,
}

/// A mount whose files were read and that is not a policy yet.
struct Draft {
    name: MountName,
    fragment: PathBuf,
    drop_ins: Vec<PathBuf>,
    merged: Fragment,
    /// What each of its files says, in the order in which they count.
    layers: Vec<(PathBuf, Fragment)>,
    /// The file and the line that `where` comes from.
    place_from: Option<(PathBuf, usize)>,
}

impl Loading<'_> {
    /// What was wrong, sorted.
    fn end(&mut self) -> Result<(), Vec<ConfigError>> {
        let mut errors = std::mem::take(&mut self.errors);
        errors.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn main(&mut self) -> Vec<(PathBuf, MainFragment)> {
        let main = self.roots.first(Path::new(MAIN));
        let drop_ins = self.list(&PathBuf::from(format!("{MAIN}.d")));
        let mut layers = Vec::new();
        for path in main.into_iter().chain(drop_ins.into_values()) {
            if let Some(read) = self.read(&path, read_main_file) {
                self.take_down(&path, read.found);
                layers.push((path, read.value));
            }
        }
        layers
    }

    fn mounts(&mut self, defaults: &Fragment) -> Vec<Draft> {
        let files = self.list(Path::new(MOUNTS));
        files.into_iter().filter_map(|(file_name, path)| self.mount(&file_name, path, defaults)).collect()
    }

    fn mount(&mut self, file_name: &str, path: PathBuf, defaults: &Fragment) -> Option<Draft> {
        let first = self.read(&path, read_mount_file)?;
        let stem = file_name.strip_suffix(".toml").unwrap_or(file_name);
        let name = match stem.parse::<MountName>() {
            Ok(name) => name,
            Err(error) => {
                self.take_down(&path, first.found);
                self.error(path, 0, Problem::FileName(error));
                return None;
            }
        };
        let drop_ins = self.list(&Path::new(MOUNTS).join(format!("{file_name}.d")));
        let mut files = vec![(path.clone(), first)];
        for drop_in in drop_ins.into_values() {
            if let Some(read) = self.read(&drop_in, read_mount_file) {
                files.push((drop_in, read));
            }
        }
        let mut excused = Vec::new();
        let mut draft = Draft {
            name,
            fragment: path,
            drop_ins: files.iter().skip(1).map(|(path, _)| path.clone()).collect(),
            merged: defaults.clone(),
            layers: Vec::new(),
            place_from: None,
        };
        for (path, read) in files {
            excused.extend(read.found.iter().map(|located| Excuse::from(&located.problem)));
            self.take_down(&path, read.found);
            draft.place_from = read.place_line.map(|line| (path.clone(), line)).or(draft.place_from);
            draft.merged = merge(draft.merged, read.value.clone());
            draft.layers.push((path, read.value));
        }
        for problem in missing(&draft.merged) {
            if !excused.iter().any(|excuse| excuse.covers(&problem)) {
                self.error(draft.fragment.clone(), 0, problem);
            }
        }
        Some(draft)
    }

    fn places(&mut self, drafts: &[Draft]) {
        let mut taken: BTreeMap<String, &PathBuf> = BTreeMap::new();
        for draft in drafts {
            let (Some(place), Some((file, line))) = (&draft.merged.place, &draft.place_from) else {
                continue;
            };
            let place = clean_path(place);
            if let Some(other) = taken.get(&place) {
                let shown = place.escape_debug();
                let rule =
                    format!("is `{shown}` in {} too; give each mount a place of its own", other.display());
                self.error(file.clone(), *line, Problem::Rule { key: "where", rule });
            } else {
                taken.insert(place, file);
            }
        }
    }

    fn policies(&mut self, drafts: Vec<Draft>) -> Vec<LoadedMount> {
        let mut mounts = Vec::new();
        for Draft { name, fragment, drop_ins, merged, .. } in drafts {
            match resolve(name, &merged) {
                Ok(policy) => mounts.push(LoadedMount { policy, fragment, drop_ins }),
                Err(found) => {
                    let located = found.into_iter().map(|problem| Located { line: 0, problem });
                    self.take_down(&fragment, located.collect());
                }
            }
        }
        mounts
    }

    /// Reads one file; `None` where it masks.
    fn read<T: Default>(
        &mut self,
        path: &Path,
        parse: impl Fn(&str, Accounts<'_>) -> Read<T>,
    ) -> Option<Read<T>> {
        match read_text(path) {
            Ok(Some(text)) => Some(parse(&text, self.accounts)),
            Ok(None) => None,
            Err(located) => Some(Read { found: vec![located], ..Read::default() }),
        }
    }

    fn list(&mut self, below: &Path) -> BTreeMap<String, PathBuf> {
        let Listing { files, errors } = self.roots.list(below);
        self.errors.extend(errors);
        files
    }

    fn error(&mut self, file: PathBuf, line: usize, problem: Problem) {
        self.errors.push(ConfigError { file, line, problem });
    }

    fn take_down(&mut self, file: &Path, found: Vec<Located>) {
        for Located { line, problem } in found {
            self.error(file.to_owned(), line, problem);
        }
    }
}

/// Why a key may seem to be missing: a problem that was reported already.
enum Excuse {
    /// The key is there, and is wrong.
    Key(&'static str),
    /// A file could not be read, and the key may be in there.
    File,
    /// Nothing of the kind.
    None,
}

impl From<&Problem> for Excuse {
    fn from(problem: &Problem) -> Self {
        match problem {
            Problem::Syntax(_) | Problem::File(_) => Self::File,
            other => other.key().map_or(Self::None, Self::Key),
        }
    }
}

impl Excuse {
    fn covers(&self, missing: &Problem) -> bool {
        match self {
            Self::Key(key) => missing.key() == Some(key),
            Self::File => true,
            Self::None => false,
        }
    }
}
