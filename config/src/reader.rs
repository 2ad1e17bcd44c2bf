//! A TOML text as typed values with their lines; what is wrong is collected on the way.

use std::{ops::RangeInclusive, str::FromStr};

use memcharge_policy::PolicyError;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    error::{Hint, Located, Problem},
    nearest::nearest,
    vocabulary::{Section, hint_key, hint_table},
};

/// The parser says these where any other value would do as well.
const IDLE_TALK: [&str; 2] = [", expected literal string", ", expected nothing"];

/// A longer piece of a text does not help to find the place in its line.
const MAX_PLACE: usize = 40;

/// What is read of one text.
#[derive(Debug)]
pub(crate) struct Reader {
    line_ends: Vec<usize>,
    file: &'static [Section],
    found: Vec<Located>,
}

/// A key with its value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a, 'i> {
    /// The key.
    pub(crate) key: &'static str,
    /// The line of the key.
    pub(crate) line: usize,
    /// The value.
    pub(crate) value: &'a DeValue<'i>,
}

/// A part of an array.
type Item<'a, 'i> = (usize, &'a DeValue<'i>);

/// Parses a text as TOML; where it is not TOML, all errors, at most one for each line.
pub(crate) fn parse_toml(text: &str) -> Result<DeTable<'_>, Vec<Located>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table.into_inner());
    }
    let line_ends = line_ends(text);
    let mut found: Vec<Located> = errors
        .iter()
        .map(|error| Located {
            line: error.span().map_or(0, |span| line_at(&line_ends, span.start)),
            problem: Problem::Syntax(syntax_text(text, error)),
        })
        .collect();
    found.sort_by_key(|located| located.line);
    found.dedup_by_key(|located| located.line);
    Err(found)
}

impl Reader {
    /// A reader for one text of a kind of file.
    pub(crate) fn new(text: &str, file: &'static [Section]) -> Self {
        Self { line_ends: line_ends(text), file, found: Vec::new() }
    }

    /// All that was wrong, in the order of the lines.
    pub(crate) fn into_found(mut self) -> Vec<Located> {
        self.found.sort_by_key(|located| located.line);
        self.found
    }

    /// Takes down what is wrong in a line.
    pub(crate) fn report(&mut self, line: usize, problem: Problem) {
        self.found.push(Located { line, problem });
    }

    /// The line of a key or value.
    pub(crate) fn line<T>(&self, spanned: &Spanned<T>) -> usize {
        line_at(&self.line_ends, spanned.span().start)
    }

    /// Takes down a key or table that is not known in `here`.
    pub(crate) fn unknown(&mut self, line: usize, key: &str, value: &DeValue<'_>, here: &Section) {
        let found = key.escape_debug().to_string();
        let problem = match value {
            DeValue::Table(_) => Problem::UnknownTable { hint: hint_table(key, here), found },
            _ => Problem::UnknownKey { hint: hint_key(key, here, self.file), found },
        };
        self.report(line, problem);
    }

    /// Takes down that a value breaks a rule.
    pub(crate) fn rule(&mut self, entry: Entry<'_, '_>, rule: String) {
        self.report(entry.line, Problem::Rule { key: entry.key, rule });
    }

    /// Takes down a value of a type that the key does not take.
    pub(crate) fn wrong_type(&mut self, entry: Entry<'_, '_>, expected: &'static str) {
        let found = type_name(entry.value);
        self.report(entry.line, Problem::WrongType { key: entry.key, expected, found });
    }

    /// A text.
    pub(crate) fn text<'a>(&mut self, entry: Entry<'a, '_>, expected: &'static str) -> Option<&'a str> {
        let text = entry.value.as_str();
        if text.is_none() {
            self.wrong_type(entry, expected);
        }
        text
    }

    /// A text in a form that `parse` knows.
    pub(crate) fn parsed<T>(
        &mut self,
        entry: Entry<'_, '_>,
        expected: &'static str,
        parse: impl Fn(&str) -> Result<T, PolicyError>,
    ) -> Option<T> {
        match parse(self.text(entry, expected)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.report(entry.line, Problem::Value { key: entry.key, error });
                None
            }
        }
    }

    /// One of a set of words.
    pub(crate) fn word<T: FromStr<Err = PolicyError>>(
        &mut self,
        entry: Entry<'_, '_>,
        expected: &'static str,
        words: &[&'static str],
    ) -> Option<T> {
        let text = self.text(entry, expected)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let hint = nearest(text, words).map_or(Hint::None, Hint::DidYouMean);
                self.report(entry.line, Problem::Word { key: entry.key, error, hint });
                None
            }
        }
    }

    /// True or false.
    pub(crate) fn boolean(&mut self, entry: Entry<'_, '_>) -> Option<bool> {
        let value = entry.value.as_bool();
        if value.is_none() {
            self.wrong_type(entry, "true or false");
        }
        value
    }

    /// A whole number within `range`.
    pub(crate) fn number(
        &mut self,
        entry: Entry<'_, '_>,
        expected: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let DeValue::Integer(integer) = entry.value else {
            self.wrong_type(entry, expected);
            return None;
        };
        let negative = integer.as_str().starts_with('-');
        // What does not even fit into 64 bits is above every range.
        let value = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        match value.filter(|value| range.contains(value)) {
            Some(value) => Some(value),
            None if negative || value.is_some_and(|value| value < *range.start()) => {
                self.rule(entry, format!("must be at least {}, not {integer}", range.start()));
                None
            }
            None => {
                self.rule(entry, format!("must be at most {}, not {integer}", range.end()));
                None
            }
        }
    }

    /// The parts of an array with their lines.
    pub(crate) fn array<'a, 'i>(
        &mut self,
        entry: Entry<'a, 'i>,
        expected: &'static str,
    ) -> Option<Vec<Item<'a, 'i>>> {
        let Some(array) = entry.value.as_array() else {
            self.wrong_type(entry, expected);
            return None;
        };
        Some(array.iter().map(|item| (self.line(item), item.get_ref())).collect())
    }
}

/// What the parser says, without what only its authors understand, and with the place it speaks of.
fn syntax_text(text: &str, error: &toml::de::Error) -> String {
    let said = error.message();
    let said = IDLE_TALK.iter().find_map(|idle| said.strip_suffix(idle)).unwrap_or(said);
    let place = error.span().and_then(|span| text.get(span)).map(str::trim);
    match place.filter(|place| !place.is_empty() && place.len() <= MAX_PLACE) {
        Some(place) => format!("{said}, at `{}`", place.escape_debug()),
        None => said.to_owned(),
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn line_ends(text: &str) -> Vec<usize> {
    text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect()
}

fn line_at(line_ends: &[usize], offset: usize) -> usize {
    line_ends.partition_point(|end| *end < offset) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_one() {
        let ends = line_ends("a\nbc\n\nd");
        for (offset, line) in [(0, 1), (1, 1), (2, 2), (4, 2), (5, 3), (6, 4), (7, 4)] {
            assert_eq!(line_at(&ends, offset), line, "{offset}");
        }
    }
}
