//! Text in so many columns: how wide it is, shorter, in lines.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Stands for what is left out.
const ELLIPSIS: &str = "…";

/// How many columns of a terminal the text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The text in at most `limit` columns, with "…" for its end where that is left out.
pub(crate) fn cut_end(text: &str, limit: usize) -> String {
    match limit {
        _ if width(text) <= limit => text.to_owned(),
        0 => String::new(),
        _ => format!("{}{ELLIPSIS}", first(text.chars(), limit - 1).collect::<String>()),
    }
}

/// The text in at most `limit` columns, with "…" for its middle where that is left out: both ends of a path tell
/// more than its middle does.
pub(crate) fn cut_middle(text: &str, limit: usize) -> String {
    match limit {
        _ if width(text) <= limit => text.to_owned(),
        0 => String::new(),
        _ => {
            let head: String = first(text.chars(), (limit - 1) / 2).collect();
            let tail: Vec<char> = first(text.chars().rev(), limit - 1 - width(&head)).collect();
            format!("{head}{ELLIPSIS}{}", tail.into_iter().rev().collect::<String>())
        }
    }
}

/// The first of these characters, as many as fit into `limit` columns.
fn first(text: impl Iterator<Item = char>, limit: usize) -> impl Iterator<Item = char> {
    text.scan(0, move |taken, c| {
        *taken += c.width().unwrap_or(0);
        (*taken <= limit).then_some(c)
    })
}

/// The text in lines of at most `width` columns where its words allow it.
pub(crate) fn wrap(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for word in text.split(' ') {
        let length = width(word);
        if column > 0 && column + 1 + length > limit {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_at_the_end_or_in_the_middle() {
        for (text, limit, end, middle) in [
            ("/run/models", 11, "/run/models", "/run/models"),
            ("/run/models", 10, "/run/mode…", "/run…odels"),
            ("/run/models", 9, "/run/mod…", "/run…dels"),
            ("/run/models", 2, "/…", "…s"),
            ("/run/models", 1, "…", "…"),
            ("/run/models", 0, "", ""),
            ("", 0, "", ""),
            ("a字字字b", 5, "a字…", "a…字b"),
        ] {
            assert_eq!((cut_end(text, limit).as_str(), cut_middle(text, limit).as_str()), (end, middle));
            assert!(width(end) <= limit && width(middle) <= limit);
        }
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrap("one two three", 7), "one two\nthree");
        assert_eq!(wrap("one-very-long-word a b", 5), "one-very-long-word\na b");
        assert_eq!(wrap("", 5), "");
    }
}
