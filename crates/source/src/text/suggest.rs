//! "Did you mean": the nearest of the names that would have been understood.

/// The candidate that `written` most probably stands for: equal but for case and separators, or at most a third of
/// its letters (and at least one) away. Of equally near ones the first.
pub(super) fn nearest<'c>(written: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let plain = folded(written);
    let allowed = (plain.len() / 3).clamp(1, 3);
    let scored = candidates.into_iter().map(|candidate| (distance(&plain, &folded(candidate)), candidate));
    scored.filter(|(d, _)| *d <= allowed).min_by_key(|(d, _)| *d).map(|(_, candidate)| candidate)
}

fn folded(text: &str) -> Vec<u8> {
    text.bytes().filter(|b| !matches!(b, b'_' | b'-')).map(|b| b.to_ascii_lowercase()).take(64).collect()
}

/// Levenshtein's distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_is_recognised_and_another_word_is_not() {
        let fields = ["route", "redirect", "retries", "timeout", "match"];
        assert_eq!(nearest("rout", fields), Some("route"));
        assert_eq!(nearest("Timeout", fields), Some("timeout"));
        assert_eq!(nearest("time_out", fields), Some("timeout"));
        assert_eq!(nearest("retrys", fields), Some("retries"));
        assert_eq!(nearest("weights", fields), None);
        assert_eq!(nearest("", fields), None);
    }
}
