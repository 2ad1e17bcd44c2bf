//! All that can be wrong with a configuration, in words that say what to do.

use std::{fmt, path::PathBuf};

use memcharge_policy::PolicyError;

/// Something wrong with a key, a value or a file. The message names the key and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// A key that nothing reads.
    #[error("unknown key `{found}`{hint}")]
    UnknownKey {
        /// The key as found.
        found: String,
        /// What was meant, perhaps.
        hint: Hint,
    },
    /// A table that nothing reads.
    #[error("unknown table `[{found}]`{hint}")]
    UnknownTable {
        /// The table's name as found.
        found: String,
        /// What was meant, perhaps.
        hint: Hint,
    },
    /// A value of another TOML type than the key takes.
    #[error("`{key}` must be {expected}, not {found}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// What the key takes, with an example.
        expected: &'static str,
        /// The type that was found, with its article.
        found: &'static str,
    },
    /// A text that cannot be read as what the key takes.
    #[error("`{key}`: {error}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with the text.
        error: PolicyError,
    },
    /// A word that is not among those that the key takes.
    #[error("{error}{hint}")]
    Word {
        /// The key.
        key: &'static str,
        /// What was found and what is accepted.
        error: PolicyError,
        /// What was meant, perhaps.
        hint: Hint,
    },
    /// A value that breaks a rule of its key.
    #[error("`{key}` {rule}")]
    Rule {
        /// The key.
        key: &'static str,
        /// The rule, as the rest of a sentence that begins with the key.
        rule: String,
    },
    /// A key or value that is reserved for later.
    #[error("`{what}` is not built yet; {instead}")]
    NotBuilt {
        /// The key.
        key: &'static str,
        /// The key, with its value where only that is reserved.
        what: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// A key that every mount needs.
    #[error("`{key}` is missing; give {example}")]
    Missing {
        /// The key.
        key: &'static str,
        /// The key with what it stands for.
        example: &'static str,
    },
    /// A file whose name is not that of a mount.
    #[error("the name of the file is that of the mount, but {0}")]
    FileName(PolicyError),
    /// A file that cannot be used, whatever is in it.
    #[error("{0}")]
    File(String),
}

impl Problem {
    /// The key that this is about, or that was probably meant; `None` where it is about the whole file.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::UnknownKey { hint: Hint::DidYouMean(key), .. } => Some(key),
            Self::WrongType { key, .. }
            | Self::Value { key, .. }
            | Self::Word { key, .. }
            | Self::Rule { key, .. }
            | Self::NotBuilt { key, .. }
            | Self::Missing { key, .. } => Some(key),
            Self::Syntax(_) | Self::UnknownKey { .. } | Self::UnknownTable { .. } => None,
            Self::FileName(_) | Self::File(_) => None,
        }
    }
}

/// What a misspelt key, table or word was perhaps meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Nothing comes close, and the message already says what is accepted.
    None,
    /// The nearest right word.
    DidYouMean(&'static str),
    /// The nearest right table.
    DidYouMeanTable(&'static str),
    /// The key is right, but stands in the wrong table; where it belongs.
    Belongs(&'static str),
    /// All keys that are accepted here.
    Keys(&'static [&'static str]),
    /// All tables that are accepted here.
    Tables(&'static [&'static str]),
}

impl fmt::Display for Hint {
    /// Writes the end of a message, with its leading `;`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::DidYouMean(word) => write!(f, "; did you mean `{word}`?"),
            Self::DidYouMeanTable(name) => write!(f, "; did you mean `[{name}]`?"),
            Self::Belongs("") => f.write_str("; it belongs at the top of the file, above the first table"),
            Self::Belongs(table) => write!(f, "; it belongs below `[{table}]`"),
            Self::Keys(keys) => write!(f, "; the keys here are {}", keys.join(", ")),
            Self::Tables([]) => f.write_str("; there are no tables here"),
            Self::Tables(names) => write!(f, "; the tables here are [{}]", names.join("], [")),
        }
    }
}

/// A problem with its line in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The line, from 1; 0 where it is about the whole text.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// A problem with its place in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or the directory that could not be listed.
    pub file: PathBuf,
    /// The line, from 1; 0 where it is about the whole file.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for ConfigError {
    /// Writes `FILE:LINE: message`, without the line where it is about the whole file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.problem),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.problem),
        }
    }
}

// The message holds that of the problem, which would come twice if it were the source as well.
impl std::error::Error for ConfigError {}
