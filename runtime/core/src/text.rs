//! Texts that somebody else wrote, on their way to people.

/// The longest name or key that is shown in full, in characters.
pub(crate) const LONGEST: usize = 120;

/// One line of at most `limit` characters without control characters, so that whoever wrote the text can neither forge a
/// line of the log nor flood it.
pub fn one_line(text: &str, limit: usize) -> String {
    let mut short = String::new();
    let mut length = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty())
    {
        let gap = if short.is_empty() { "" } else { " " };
        for c in gap.chars().chain(word.chars()) {
            if length == limit {
                short.push('…');
                return short;
            }
            short.push(c);
            length += 1;
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_s_text_is_one_short_line() {
        assert_eq!(one_line(" a\nb\u{1b}[31m ", 100), "a b [31m");
        assert_eq!(one_line("a  b,\n    c", 100), "a b, c");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(one_line("abc", 3), "abc");
    }
}
