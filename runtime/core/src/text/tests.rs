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
    for c in
        ['\0', '\t', '\n', '\u{1b}', '\u{7f}', '\u{80}', '\u{85}', '\u{9b}', '\u{2028}', '\u{2029}']
    {
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

#[test]
fn one_is_singular() {
    assert_eq!([0, 1, 2].map(|count| counted(count, "peer")), ["0 peers", "1 peer", "2 peers"]);
}
