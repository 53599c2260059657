//! Text for terminals.

use std::path::Path;

/// `text` on one line, with every character that could steer a terminal or reorder its line written as an escape.
/// What a bundle or a request holds was written by others.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let reorders =
            matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || reorders {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// A path for reading: a byte that is not UTF-8 shows as U+FFFD, and nothing steers the terminal.
pub(crate) fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// What a unit variant is called in documents.
pub(crate) fn word<T: serde::Serialize>(variant: &T) -> String {
    let value = serde_json::to_value(variant).ok();
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Rows under one another, columns as wide as their widest cell.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A number of bytes for people: exact below 10 KiB, else with one decimal.
pub(crate) fn bytes(count: u64) -> String {
    if count < 10 * 1024 {
        return if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") };
    }
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut tenths, mut unit) = (u128::from(count) * 10 / 1024, 0);
    while tenths >= 10_240 && unit + 1 < units.len() {
        (tenths, unit) = (tenths / 1024, unit + 1);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
}

/// A time in microseconds for people: exact in milliseconds below 10 s, else in seconds.
pub(crate) fn micros(count: u64) -> String {
    if count < 10_000_000 {
        return format!("{}.{:03} ms", count / 1000, count % 1000);
    }
    format!("{}.{:03} s", count / 1_000_000, count / 1000 % 1000)
}

/// So many of something.
pub(crate) fn count(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// Indents every line by two spaces.
pub(crate) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{202e}d\u{e9}"), "a\\u{1b}[2Jb\\nc\\u{202e}d\u{e9}");
    }

    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0 bytes"),
            (1, "1 byte"),
            (10_239, "10239 bytes"),
            (10_240, "10.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (3 * (1 << 30) / 2, "1.5 GiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        cases.into_iter().for_each(|(count, text)| assert_eq!(bytes(count), text));
    }

    #[test]
    fn times_are_short() {
        let cases = [
            (0, "0.000 ms"),
            (1, "0.001 ms"),
            (1234, "1.234 ms"),
            (9_999_999, "9999.999 ms"),
            (10_000_000, "10.000 s"),
            (61_234_567, "61.234 s"),
        ];
        cases.into_iter().for_each(|(count, text)| assert_eq!(micros(count), text));
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a".to_owned(), "b".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(&rows), "a     b\nlong\n");
    }
}
