//! Environment files in systemd's format (`EnvironmentFile=`, systemd.exec(5)).

use std::io;
use std::path::Path;

/// Size limit of an environment file, in bytes: far more than all flags need.
const LIMIT: u64 = 256 << 10;

/// Reads an environment file for [`Flags::read`](crate::Flags::read): a regular file of at most 256
/// KiB.
///
/// # Errors
///
/// The file is missing, unreadable, not a regular file, too large, or not UTF-8.
pub fn read_environment_file(path: &Path) -> io::Result<String> {
    Ok(heddle_files::read_text(path, LIMIT)?)
}

/// One assignment of an environment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) name: String,
    pub(crate) value: String,
    /// Number of its first line, counted from 1.
    pub(crate) line: usize,
}

/// Returns the assignments of a file in order. As in systemd, empty lines, comments, and lines
/// without `=` are ignored.
///
/// A value may be quoted, in part or in whole, with `'` or `"`. A backslash escapes the next
/// character; at the end of a line, it continues the value on the next line.
pub(crate) fn assignments(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let Some((name, rest)) = line.split_once('=') else { continue };
        let mut value = Value::default();
        let mut ended = value.read(rest.trim_start());
        while !ended {
            let Some((_, next)) = lines.next() else { break };
            ended = value.read(next);
        }
        found.push(Assignment {
            name: name.trim_end().to_owned(),
            value: value.finish(),
            line: number + 1,
        });
    }
    found
}

/// A value that is being parsed.
#[derive(Default)]
struct Value {
    text: String,
    /// Length of the text that is kept even if it is white space: everything up to the last quoted
    /// or escaped character.
    kept: usize,
    quote: Option<char>,
}

impl Value {
    /// Parses one more line. Returns true if the value ends with it.
    fn read(&mut self, line: &str) -> bool {
        let mut characters = line.chars();
        while let Some(character) = characters.next() {
            match (self.quote, character) {
                (None, '\'' | '"') => self.quote = Some(character),
                (Some(quote), _) if quote == character => {
                    self.quote = None;
                    self.kept = self.text.len();
                }
                (None | Some('"'), '\\') => match characters.next() {
                    // Within double quotes, a backslash before any other character is literal.
                    Some(next)
                        if self.quote.is_none() || matches!(next, '"' | '\\' | '`' | '$') =>
                    {
                        self.text.push(next);
                        self.kept = self.text.len();
                    }
                    Some(next) => self.text.extend(['\\', next]),
                    None => return false,
                },
                _ => self.text.push(character),
            }
        }
        if self.quote.is_some() {
            self.text.push('\n');
        }
        self.quote.is_none()
    }

    fn finish(self) -> String {
        let (kept, rest) = self.text.split_at(self.kept);
        format!("{kept}{}", rest.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        assignments(text).into_iter().map(|found| (found.name, found.value)).collect()
    }

    #[test]
    fn values_are_parsed_as_systemd_does() {
        for (text, value) in [
            ("A=plain", "plain"),
            ("A=", ""),
            ("  A = two words  ", "two words"),
            ("A=\"quoted  \"", "quoted  "),
            ("A='it is \"so\"'", "it is \"so\""),
            (r#"A="a \"b\" \$c \d""#, r#"a "b" $c \d"#),
            (r"A=a\ b\\c", r"a b\c"),
            ("A=one \\\ntwo", "one two"),
            ("A=\"one\ntwo\"", "one\ntwo"),
            ("A=a # no comment", "a # no comment"),
            ("A=http://a=b,http://c", "http://a=b,http://c"),
        ] {
            assert_eq!(read(text), [("A".to_owned(), value.to_owned())], "{text}");
        }
    }

    #[test]
    fn file_larger_than_the_limit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("heddled");
        let mut text = "A=1\n".to_owned();
        text += &"#".repeat(usize::try_from(LIMIT).unwrap() - text.len());
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read_environment_file(&path).unwrap(), text);
        std::fs::write(&path, text + "#").unwrap();
        let error = read_environment_file(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("256 KiB"), "{error}");
    }

    #[test]
    fn lines_without_assignment_are_skipped() {
        let found = assignments("# A=1\n; A=2\n\nnothing\nB=3\nB=4\n");
        let found: Vec<_> =
            found.iter().map(|a| (a.name.as_str(), a.value.as_str(), a.line)).collect();
        assert_eq!(found, [("B", "3", 5), ("B", "4", 6)]);
    }
}
