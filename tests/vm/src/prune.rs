//! Which entries of the cache are to go when a new one was made. Names: `image-SUITE-KERNEL-PACKAGES-KEY`,
//! `state-IMAGE-SIZE-KEY` and `layer-IMAGE-DEB-SIZE-KEY`, with IMAGE the image's KEY.

use std::{
    collections::{BTreeSet, HashSet},
    time::SystemTime,
};

/// Machine sizes per image that are kept frozen.
const STATES_PER_IMAGE: usize = 4;
/// Installed packages per image that are kept: the one under test, and a few to compare with.
const LAYERS_PER_IMAGE: usize = 3;

/// The names of entries, each with the time of its last use, that `made` has made useless.
pub(crate) fn stale(entries: &[(String, SystemTime)], made: &str) -> Vec<String> {
    let mut newest_first: Vec<&(String, SystemTime)> = entries.iter().collect();
    newest_first.sort_by_key(|(name, used)| (name != made, std::cmp::Reverse(*used)));

    let (mut seen, mut images) = (HashSet::new(), HashSet::new());
    let mut current = Vec::new();
    let mut gone = Vec::new();
    for (name, _) in newest_first {
        let Some((group, key)) = name.rsplit_once('-') else { continue };
        if seen.insert(group) {
            if name.starts_with("image-") {
                images.insert(key);
            }
            current.push(name);
        } else {
            gone.push(name.clone());
        }
    }
    let mut kept: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for name in current {
        let fields: Vec<&str> = name.split('-').collect();
        let (kind, image, what, limit) = match fields[..] {
            ["state", image, size, _] => ("state", image, size, STATES_PER_IMAGE),
            ["layer", image, deb, _, _] => ("layer", image, deb, LAYERS_PER_IMAGE),
            _ => continue,
        };
        let of_image = kept.iter().filter(|(k, i, _)| (*k, *i) == (kind, image)).count();
        if images.contains(image) && (of_image < limit || kept.contains(&(kind, image, what))) {
            kept.insert((kind, image, what));
        } else {
            gone.push(name.clone());
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Entries in the order of their last use, oldest first.
    fn stale_of(names: &[&str], made: &str) -> Vec<String> {
        let entries: Vec<_> = (0..)
            .zip(names)
            .map(|(n, name)| ((*name).to_owned(), SystemTime::UNIX_EPOCH + Duration::from_secs(n)))
            .collect();
        let mut gone = stale(&entries, made);
        gone.sort();
        gone
    }

    #[test]
    fn an_outdated_image_goes_with_what_depends_on_it() {
        let names = [
            "image-t-6.12-p-A",
            "state-A-1x2-s",
            "layer-A-d-1x2-l",
            "image-t-6.12-q-B",
            "state-B-1x2-s",
            "image-t-6.12-p-C",
        ];
        assert_eq!(
            stale_of(&names, "image-t-6.12-p-C"),
            ["image-t-6.12-p-A", "layer-A-d-1x2-l", "state-A-1x2-s"]
        );
    }

    #[test]
    fn three_packages_stay_at_any_size() {
        let names = [
            "image-t-6.12-p-A",
            "layer-A-d1-1x2-k",
            "layer-A-d2-1x2-k",
            "layer-A-d2-4x2-k",
            "layer-A-d3-1x2-k",
            "layer-A-d4-1x2-k",
        ];
        assert_eq!(stale_of(&names, "layer-A-d4-1x2-k"), ["layer-A-d1-1x2-k"]);
        assert_eq!(stale_of(&names, "layer-A-d1-1x2-k"), ["layer-A-d2-1x2-k", "layer-A-d2-4x2-k"]);
    }

    #[test]
    fn states_are_bounded_and_replaced() {
        let names = [
            "image-t-6.12-p-A",
            "state-A-1x2-old",
            "state-A-1x2-new",
            "state-A-2x2-k",
            "state-A-3x2-k",
            "state-A-4x2-k",
        ];
        assert_eq!(stale_of(&names, "state-A-4x2-k"), ["state-A-1x2-old"]);
        assert_eq!(
            stale_of(&[&names[..], &["state-A-5x2-k"]].concat(), "state-A-5x2-k"),
            ["state-A-1x2-new", "state-A-1x2-old"]
        );
    }

    #[test]
    fn unknown_names_are_left_alone() {
        assert!(
            stale_of(&["something", "else-1-2-3-4-5-6", "image-t-6.12-p-A"], "image-t-6.12-p-A").is_empty()
        );
    }
}
