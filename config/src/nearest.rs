//! The right word that a misspelt one was probably meant to be.

/// One wrong letter in this many is still taken for a slip.
const LETTERS_PER_SLIP: usize = 3;

/// The candidate with the fewest slips (a letter missing, added, changed or swapped with its neighbour); upper case
/// and `_` for `-` are no slips. `None` where all are too far off.
pub(crate) fn nearest(found: &str, candidates: &[&'static str]) -> Option<&'static str> {
    let longest = candidates.iter().map(|word| word.len()).max()?;
    // The distance costs time and memory by the product of the lengths, and no long text comes close anyway.
    if found.len() > 2 * longest {
        return None;
    }
    let found = found.to_lowercase().replace('_', "-");
    let allowed = (found.chars().count() / LETTERS_PER_SLIP).max(1);
    candidates
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&found, word), *word))
        .filter(|(slips, word)| *slips <= allowed && *slips < word.len())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let words = ["where", "target", "on-full", "mode", "uid", "options"];
        for (found, word) in [
            ("targt", Some("target")),
            ("on_full", Some("on-full")),
            ("Where", Some("where")),
            ("optoins", Some("options")),
            ("mod", Some("mode")),
            ("uuid", Some("uid")),
            ("colour", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(found, &words), word, "{found}");
        }
        assert_eq!(nearest(&"where".repeat(100_000), &words), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
