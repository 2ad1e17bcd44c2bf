//! What a value that comes from outside can be refused for.

/// A refused value. The message says what was found and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not a byte count.
    #[error(
        "`{}` is not a size; give bytes, or a number with K, M, G or T (powers of 1024), such as \"512M\"", shown(.0)
    )]
    Size(String),
    /// A percentage outside 1 to 100.
    #[error("`{}` is not a share of the target's limit; give \"1%\" to \"100%\"", shown(.0))]
    Percent(String),
    /// Not a time span.
    #[error("`{}` is not a time span; give for example \"200ms\", \"5s\" or \"1min 30s\"", shown(.0))]
    Duration(String),
    /// Not a mount's name.
    #[error(
        "`{}` is not a mount name; it has 1 to 63 letters, digits, `_`, `.` or `-`, and begins with a letter or a digit", shown(.0)
    )]
    Name(String),
    /// Not a target.
    #[error("`{}` is not a target: {}", shown(.0), .1)]
    Target(String, &'static str),
    /// Not one of the words that a key takes.
    #[error("`{}` is not {what}; give {accepted}", shown(.found))]
    Word {
        /// What the word stands for, as "a value of on-full".
        what: &'static str,
        /// What was found.
        found: String,
        /// The words that are accepted, as a list in words.
        accepted: &'static str,
    },
    /// Not a file mode.
    #[error("`{}` is not a file mode; give four octal digits, such as \"1777\"", shown(.0))]
    Mode(String),
    /// Two mount options that exclude each other.
    #[error("the mount options `{0}` and `{1}` exclude each other; keep one of them")]
    OptionConflict(&'static str, &'static str),
    /// Not a kernel release.
    #[error("`{}` is not a kernel release such as \"6.12.9-amd64\"", shown(.0))]
    Kernel(String),
    /// A message between daemon and store that does not hold together.
    #[error("a message between memcharged and a store is not valid: {0}")]
    Link(String),
    /// Not the identity of an arbitration.
    #[error("`{}` is not the id of an event; it has 32 hex digits, as `memchargectl history` shows them", shown(.0))]
    EventId(String),
}

/// A text that came from outside, as a part of one line: no commands for a terminal, no further lines of a log.
fn shown(text: &str) -> std::str::EscapeDebug<'_> {
    text.escape_debug()
}

#[cfg(test)]
mod tests {
    use crate::{Bytes, Target};

    #[test]
    fn a_message_is_one_line_whatever_was_given() {
        let size = "1\nM".parse::<Bytes>().unwrap_err();
        assert!(size.to_string().starts_with("`1\\nM` is not a size; "), "{size}");
        let target = "a\u{1b}[2J.slice".parse::<Target>().unwrap_err();
        assert!(target.to_string().starts_with("`a\\u{1b}[2J.slice` is not a target: "), "{target}");
    }
}
