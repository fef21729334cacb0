//! Sanitizing of untrusted text for people: log lines, terminals, the status page, metrics, JSON.
//!
//! Foreign names, keys, error messages and file names may contain characters that move or hide
//! their surroundings: control characters, bidirectional controls, zero-width characters, tags, or
//! a hundred combining marks on one letter. The functions here write each of them as an escape, so
//! that two different texts also look different.

use std::borrow::Cow;
use std::fmt::Write;

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Length limit, in characters, of names and keys that are shown in full.
pub(crate) const LONGEST: usize = 120;

/// Limit of combining marks on one character. Living scripts need three; a stack of them would
/// cover the lines above and below.
const MARKS: usize = 4;

/// Returns the items, separated by commas.
pub fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Returns a number and what it counts, in the plural where the number calls for it: `1 peer`,
/// `2 peers`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Returns the text as one line of at most `limit` characters. White space and control characters
/// become single spaces; other invisible characters become escapes such as `\u{202e}`. A longer
/// text ends with `…`.
pub fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    let mut length = 0;
    let mut piece = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty())
    {
        let gap = if line.is_empty() { "" } else { " " };
        let mut filter = Filter::default();
        for c in gap.chars().chain(word.chars()) {
            piece.clear();
            match filter.shows(c) {
                true => piece.push(c),
                false => rust_escape(&mut piece, c),
            }
            length += piece.chars().count();
            if length > limit {
                line.push('…');
                return line;
            }
            line.push_str(&piece);
        }
    }
    line
}

/// Replaces each invisible character by an escape such as `\u{202e}`, except those that `keep`
/// returns true for.
pub fn visible(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    escaped(text, keep, rust_escape)
}

/// Returns true if every character of the text is visible as it is.
pub fn is_visible(text: &str) -> bool {
    matches!(visible(text, |_| false), Cow::Borrowed(_))
}

/// Replaces each invisible character by its JSON escape (RFC 8259, section 7), in a whole JSON
/// text. The JSON value stays the same: outside of strings, the only such characters in a JSON text
/// are line feeds, which are kept.
pub fn json(text: String) -> String {
    match escaped(&text, |c| c == '\n', json_escape) {
        Cow::Borrowed(_) => text,
        Cow::Owned(escaped) => escaped,
    }
}

fn escaped(text: &str, keep: impl Fn(char) -> bool, escape: fn(&mut String, char)) -> Cow<'_, str> {
    let mut filter = Filter::default();
    let hidden = text.char_indices().find(|(_, c)| !keep(*c) && !filter.shows(*c));
    let Some((start, _)) = hidden else { return Cow::Borrowed(text) };
    let mut written = text[..start].to_owned();
    let mut filter = Filter::default();
    for (at, c) in text.char_indices() {
        let shown = keep(c) || filter.shows(c);
        match at < start {
            true => {}
            false if shown => written.push(c),
            false => escape(&mut written, c),
        }
    }
    Cow::Owned(written)
}

fn rust_escape(text: &mut String, c: char) {
    text.extend(c.escape_unicode());
}

fn json_escape(text: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        write!(text, "\\u{unit:04x}").expect("a string takes everything");
    }
}

/// Classifies the characters of a text as visible or not, in order.
struct Filter {
    /// Combining marks since the last base character; [`MARKS`] if there is none.
    marks: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Self { marks: MARKS }
    }
}

impl Filter {
    /// Returns true if the next character of the text is visible and hides nothing.
    fn shows(&mut self, c: char) -> bool {
        if c.is_ascii() {
            self.marks = if c.is_ascii_graphic() { 0 } else { MARKS };
            return !c.is_ascii_control();
        }
        let shown = match CodePointMapData::<GeneralCategory>::new().get(c) {
            // Variation selectors and fillers are ignorable, but of various categories.
            _ if CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c) => false,
            GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::Surrogate
            | GeneralCategory::PrivateUse
            | GeneralCategory::Unassigned
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator => false,
            GeneralCategory::NonspacingMark
            | GeneralCategory::SpacingMark
            | GeneralCategory::EnclosingMark => {
                self.marks += 1;
                self.marks <= MARKS
            }
            _ => {
                self.marks = 0;
                true
            }
        };
        if !shown {
            self.marks = MARKS;
        }
        shown
    }
}

#[cfg(test)]
mod tests;
