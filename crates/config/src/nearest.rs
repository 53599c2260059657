//! The name that was meant.

/// The name most like `word`, if one is like it: few letters away, or the same in another way of writing.
pub(crate) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let asked = plain(word);
    let most = (asked.len() / 3).max(1);
    let (distance, name) = names.map(|name| (distance(&asked, &plain(name)), name)).min()?;
    (distance <= most).then_some(name)
}

/// `admin-listen`, `admin_listen` and `adminListen` are the same word. A word longer than any key is cut.
fn plain(word: &str) -> Vec<char> {
    let letters = word.chars().filter(|letter| letter.is_alphanumeric()).take(64);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Letters to be put in, taken away or replaced (Levenshtein).
fn distance(one: &[char], other: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.iter().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (index, theirs) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != theirs);
            diagonal = row[index + 1];
            row[index + 1] = replaced.min(diagonal + 1).min(row[index] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_named_and_nothing_is_guessed() {
        let names = ["adminListen", "slots", "store", "tlsKey"];
        for (word, expected) in [
            ("admin-listen", Some("adminListen")),
            ("ADMIN_LISTEN", Some("adminListen")),
            ("admnListen", Some("adminListen")),
            ("slot", Some("slots")),
            ("tlsKye", Some("tlsKey")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names.into_iter()), expected, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), names.into_iter()), None);
    }
}
