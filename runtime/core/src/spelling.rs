//! Suggestions for misspelt names.

/// Returns the known name that a name was probably meant to be. Case does not matter.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<Vec<_>>();
    let name = lower(name);
    let distances = known.into_iter().filter_map(|known| {
        let letters = lower(known);
        let longest = name.len().max(letters.len());
        // A longer name is another one. This also bounds the work.
        let near = name.len().abs_diff(letters.len()) * 3 <= longest;
        let distance = near.then(|| distance(&name, &letters))?;
        (distance * 3 <= longest).then_some((distance, known))
    });
    distances.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// Returns the number of letters to insert, delete, replace or swap with their neighbour (optimal
/// string alignment).
fn distance(one: &[char], other: &[char]) -> usize {
    let mut before = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut best = (row[j] + usize::from(a != b)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 7] = ["Type", "VNI", "Port", "GBP", "MTU", "Learning", "DirectRouting"];

    #[test]
    fn misspelt_name_has_its_suggestion() {
        for (name, expected) in [
            ("Prot", Some("Port")),
            ("DirectRoutng", Some("DirectRouting")),
            ("directrouting", Some("DirectRouting")),
            ("VNID", Some("VNI")),
            ("GPB", Some("GBP")),
            ("learnig", Some("Learning")),
            ("X", None),
            ("Network", None),
            ("", None),
        ] {
            assert_eq!(closest(name, KNOWN), expected, "{name}");
        }
        assert_eq!(closest("SubnetLength", ["SubnetMin", "SubnetLen"]), Some("SubnetLen"));
    }

    #[test]
    fn distance_counts_edits_and_swaps() {
        let distance = |one: &str, other: &str| {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            distance(&letters(one), &letters(other))
        };
        assert_eq!(distance("port", "port"), 0);
        assert_eq!(distance("", "port"), 4);
        assert_eq!(distance("prot", "port"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
