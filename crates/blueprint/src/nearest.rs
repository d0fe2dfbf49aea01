//! The name that was probably meant.

/// Names longer than this are not compared: the cost is quadratic, and nobody mistypes that much.
const MAX_COMPARED_CHARS: usize = 64;

/// The candidate that `name` was probably meant to be: the one with the fewest edits, at most a third of its
/// length. Case, `-` and `_` are not told apart. None if nothing is close.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = fold(name);
    if name.is_empty() || name.len() > MAX_COMPARED_CHARS {
        return None;
    }
    candidates
        .into_iter()
        .filter(|c| c.len() <= 4 * MAX_COMPARED_CHARS)
        .filter_map(|candidate| {
            let folded = fold(candidate);
            let allowed = (name.len().max(folded.len()) / 3).max(1);
            if name.len().abs_diff(folded.len()) > allowed || folded.len() > MAX_COMPARED_CHARS {
                return None;
            }
            let edits = distance(&name, &folded);
            (edits <= allowed && edits < name.len().max(folded.len())).then_some((edits, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

fn fold(text: &str) -> Vec<char> {
    text.chars()
        .take(MAX_COMPARED_CHARS + 1)
        .map(|c| {
            if c == '_' {
                '-'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect()
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = a[i - 1] == b[j - 1];
            row[j] = (above[j - 1] + usize::from(!same))
                .min(above[j] + 1)
                .min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_finger_finds_the_name_and_a_stranger_finds_none() {
        let keys = ["processes", "ports", "env", "health", "max_size", "web-1"];
        for (typed, meant) in [
            ("prots", Some("ports")),
            ("port", Some("ports")),
            ("proccesses", Some("processes")),
            ("ENV", Some("env")),
            ("maxSize", Some("max_size")),
            ("max-size", Some("max_size")),
            ("web1", Some("web-1")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, keys), meant, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(10_000), keys), None);
    }
}
