//! What a value that comes from outside can be refused for.

/// A refused value. The message says what was found and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not a byte count.
    #[error(
        "`{0}` is not a size; give bytes, or a number with K, M, G or T (powers of 1024), such as \"512M\""
    )]
    Size(String),
    /// A percentage outside 1 to 100.
    #[error("`{0}` is not a share of the target's limit; give \"1%\" to \"100%\"")]
    Percent(String),
    /// Not a time span.
    #[error("`{0}` is not a time span; give for example \"200ms\", \"5s\" or \"1min 30s\"")]
    Duration(String),
    /// Not a mount's name.
    #[error(
        "`{0}` is not a mount name; it has 1 to 63 letters, digits, `_`, `.` or `-`, and begins with a letter or a digit"
    )]
    Name(String),
    /// Not a target.
    #[error("`{0}` is not a target: {1}")]
    Target(String, &'static str),
    /// Not one of the words that a key takes.
    #[error("`{found}` is not {what}; give {accepted}")]
    Word {
        /// What the word stands for, as "a value of on-full".
        what: &'static str,
        /// What was found.
        found: String,
        /// The words that are accepted, as a list in words.
        accepted: &'static str,
    },
    /// Not a file mode.
    #[error("`{0}` is not a file mode; give four octal digits, such as \"1777\"")]
    Mode(String),
    /// Two mount options that exclude each other.
    #[error("the mount options `{0}` and `{1}` exclude each other; keep one of them")]
    OptionConflict(&'static str, &'static str),
    /// Not a kernel release.
    #[error("`{0}` is not a kernel release such as \"6.12.9-amd64\"")]
    Kernel(String),
    /// A message between daemon and store that does not hold together.
    #[error("a message between memcharged and a store is not valid: {0}")]
    Link(String),
    /// Not the identity of an arbitration.
    #[error("`{0}` is not the id of an event; it has 32 hex digits, as `memchargectl history` shows them")]
    EventId(String),
}
