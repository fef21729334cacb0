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
mod tests {
    use super::*;

    #[test]
    fn foreign_text_becomes_one_short_line() {
        assert_eq!(one_line(" a\nb\u{1b}[31m ", 100), "a b [31m");
        assert_eq!(one_line("a  b,\n    c", 100), "a b, c");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(one_line("abc", 3), "abc");
    }

    /// Characters that move or hide others, or are invisible: the first and the last of each kind.
    const HIDDEN: [char; 31] = [
        '\u{ad}',
        '\u{34f}',
        '\u{61c}',
        '\u{115f}',
        '\u{180e}',
        '\u{200b}',
        '\u{200f}',
        '\u{202a}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{206f}',
        '\u{3164}',
        '\u{378}',
        '\u{e000}',
        '\u{f8ff}',
        '\u{fe00}',
        '\u{fe0f}',
        '\u{feff}',
        '\u{fff9}',
        '\u{fffe}',
        '\u{ffff}',
        '\u{ffa0}',
        '\u{1d173}',
        '\u{e0001}',
        '\u{e0020}',
        '\u{e007f}',
        '\u{e0100}',
        '\u{f0000}',
        '\u{10ffff}',
    ];

    #[test]
    fn hidden_characters_become_escapes() {
        for c in HIDDEN {
            let (text, code) = (format!("a{c}b"), u32::from(c));
            let escape = format!("a\\u{{{code:x}}}b");
            assert_eq!(one_line(&text, 100), escape, "{code:x}");
            assert_eq!(visible(&text, |_| false), escape, "{code:x}");
            assert!(!is_visible(&text), "{code:x}");
        }
        for c in [
            '\0', '\t', '\n', '\u{1b}', '\u{7f}', '\u{80}', '\u{85}', '\u{9b}', '\u{2028}',
            '\u{2029}',
        ] {
            let text = format!("a{c}b");
            assert_eq!(one_line(&text, 100), "a b", "{c:?}");
            assert_eq!(visible(&text, |_| false), format!("a{}b", c.escape_unicode()));
        }
    }

    #[test]
    fn visible_text_of_any_language_stays() {
        for text in [
            "rack-7/ü",
            "Node \u{4e00}\u{4e8c}",
            "Việt",
            "हिन्दी",
            "ไทยน้ำ",
            "שלום",
            "e\u{301}",
            "🦀",
            "…",
            "\u{fffd}",
        ] {
            assert_eq!(one_line(text, 100), text);
            assert!(is_visible(text), "{text}");
            assert_eq!(json(text.to_owned()), text);
        }
    }

    #[test]
    fn combining_marks_are_bounded() {
        let flood = format!("a{}", "\u{301}".repeat(1000));
        let shown = one_line(&flood, 60);
        assert!(shown.starts_with("a\u{301}\u{301}\u{301}\u{301}\\u{301}\\u{301}"), "{shown}");
        assert_eq!(shown.matches('\u{301}').count(), MARKS);
        assert!(shown.chars().count() <= 61, "{shown}");
        // A leading mark would combine with the character before the text.
        assert_eq!(one_line("\u{301}a \u{301}", 60), "\\u{301}a \\u{301}");
    }

    #[test]
    fn kept_characters_stay() {
        let kept = visible("a\n\t\u{202e}b\r", |c| matches!(c, '\n' | '\t'));
        assert_eq!(kept, "a\n\t\\u{202e}b\\u{d}");
    }

    #[test]
    fn json_keeps_its_value_and_shows_every_character() {
        let mut text = String::from("é\n\"\\");
        text.extend(HIDDEN);
        text.extend(['\u{7f}', '\u{80}', '\u{9b}', '\u{2028}']);
        let value = serde_json::json!({ text.clone(): [text, "plain"] });
        for written in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let safe = json(written);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
            assert!(safe.lines().all(is_visible), "{safe}");
        }
        assert_eq!(json("[\"\u{e0041}\u{9b}\"]".to_owned()), "[\"\\udb40\\udc41\\u009b\"]");
    }

    #[test]
    fn escape_at_the_limit_is_not_cut() {
        assert_eq!(one_line("ab\u{202e}c", 9), "ab…");
        assert_eq!(one_line("ab\u{202e}", 10), "ab\\u{202e}");
    }
}
