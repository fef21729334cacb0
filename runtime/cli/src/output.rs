//! Output to the terminal or into a pipe.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use heddle_core::text::{self, one_line};
use serde::Serialize;

/// Longest cell of a table, in characters. Some cells contain reasons.
const LONGEST: usize = 300;

/// Prints a text. A reader that closes the pipe early is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(visible(text).as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Writes an error to standard error.
pub(crate) fn complain(text: &str) {
    // A failure to write to standard error cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "{}", visible(text));
}

/// Replaces control characters, which a terminal would interpret. Line feeds and tabs are kept.
fn visible(text: &str) -> Cow<'_, str> {
    text::visible(text, |c| matches!(c, '\n' | '\t'))
}

/// Formats a value as JSON, for programs, with hidden characters escaped in case it ends up on a
/// terminal.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(text::json(serde_json::to_string_pretty(value)?) + "\n")
}

/// Formats rows in columns below their names, separated by spaces. An empty cell becomes a dash, so
/// that all rows have as many columns as the header; only the last column contains spaces.
pub(crate) fn table<'a>(
    header: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = impl IntoIterator<Item = String>>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.into_iter().collect::<Vec<_>>());
    for row in rows {
        table.add_row(row.into_iter().map(|cell| cell_text(&cell)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

fn cell_text(text: &str) -> String {
    let line = one_line(text, LONGEST);
    if line.is_empty() { "-".to_owned() } else { line }
}

/// Joins items into one cell.
pub(crate) fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Formats a time span in its two largest units: `12s`, `3m5s`, `26d4h`.
pub(crate) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let first = UNITS.iter().position(|(length, _)| seconds >= *length).unwrap_or(3);
    let mut text = format!("{}{}", seconds / UNITS[first].0, UNITS[first].1);
    if let Some((length, name)) = UNITS.get(first + 1) {
        let rest = seconds % UNITS[first].0 / length;
        if rest > 0 {
            text += &format!("{rest}{name}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_aligned_columns_and_no_empty_cell() {
        let rows = [["a", "", "two words"], ["longer", "1", ""]];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_eq!(
            table(["NAME", "N", "TEXT"], rows),
            "NAME    N  TEXT\n\
             a       -  two words\n\
             longer  1  -\n"
        );
        assert_eq!(table(["NAME"], [] as [[String; 1]; 0]), "NAME\n");
    }

    #[test]
    fn line_feed_in_cell_cannot_forge_a_row() {
        let rows = [["a\nb\u{1b}[2J".to_owned()]];
        assert_eq!(table(["NAME"], rows), "NAME\na b [2J\n");
    }

    #[test]
    fn output_shows_hidden_characters_and_keeps_lines() {
        let hostile = "a\n\tb\u{1b}[2J\u{9b}2J\u{202e}\u{e0041}\u{200b}";
        assert_eq!(visible(hostile), "a\n\tb\\u{1b}[2J\\u{9b}2J\\u{202e}\\u{e0041}\\u{200b}");
    }

    #[test]
    fn json_has_no_hidden_characters_and_keeps_its_value() {
        let hostile = "a\u{9b}2J\u{7f}\u{202e}\u{e0041}\u{200b}é";
        let written = json(&[hostile]).unwrap();
        assert_eq!(written, "[\n  \"a\\u009b2J\\u007f\\u202e\\udb40\\udc41\\u200bé\"\n]\n");
        assert_eq!(serde_json::from_str::<[String; 1]>(&written).unwrap(), [hostile]);
    }

    #[test]
    fn long_cell_is_not_wrapped() {
        let long = "word ".repeat(50);
        assert_eq!(table(["NAME"], [[long]]).lines().count(), 2);
    }

    #[test]
    fn span_has_its_two_largest_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (185, "3m5s"), (3600, "1h"), (2_260_800, "26d4h")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
