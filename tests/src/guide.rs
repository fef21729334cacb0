//! Extracts the steps of a guide from its Markdown text.
//!
//! A fenced block is a step if its info string begins with `sh`. The remaining words of the info
//! string are parsed by this module; a rendered page does not show them:
//!
//! ````text
//! ```sh node1            the block is for the machine node1
//! ```sh all              for each machine, in sequence
//! ```sh node1 CONTAINER  the output replaces CONTAINER in later blocks
//! ```rust node1 FILE     the content to write to FILE there, in any language
//! ```text node1 FILE     lines that FILE must then contain there, among others
//! ````
//!
//! A `text` block after a step is its expected output. In it, a number matches any number and a MAC
//! any MAC, since they differ between machines; white space matches white space of any length; `…`
//! matches any text, and alone on a line any number of lines.

use regex::Regex;

/// A block of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Number of second-level headings above the step.
    pub section: usize,
    /// The machine that runs it, or `all`.
    pub machine: String,
    /// The commands.
    pub script: String,
    /// Name by which later steps refer to its output.
    pub name: Option<String>,
    /// Expected output.
    pub output: Option<String>,
}

/// Delimiter of a file's contents in a script.
const END_OF_FILE: &str = "END-OF-FILE";

/// Returns the steps in the order of the text.
///
/// # Panics
///
/// On commands without a machine, and on an output without a step.
pub fn steps(markdown: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut section = 0;
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("## ") {
            section += 1;
        }
        let Some(info) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let block = block.join("\n");
        let mut words = info.split_whitespace();
        match words.next() {
            Some("sh") => {
                let machine = words.next().unwrap_or_else(|| panic!("on which machine?\n{block}"));
                steps.push(Step {
                    section,
                    machine: machine.to_owned(),
                    script: block,
                    name: words.next().map(ToOwned::to_owned),
                    output: None,
                });
            }
            Some("text") => {
                if let (Some(machine), Some(path)) = (words.next(), words.next()) {
                    steps.push(Step {
                        section,
                        machine: machine.to_owned(),
                        script: format!("cat {path}"),
                        name: None,
                        output: Some(format!("…\n{block}\n…")),
                    });
                    continue;
                }
                let Some(step) = steps.last_mut().filter(|step| step.output.is_none()) else {
                    panic!("whose output?\n{block}");
                };
                step.output = Some(block);
            }
            // A file's contents: machine and path follow the language.
            Some(_) => {
                if let (Some(machine), Some(path)) = (words.next(), words.next()) {
                    steps.push(Step {
                        section,
                        machine: machine.to_owned(),
                        script: format!("cat > {path} <<'{END_OF_FILE}'\n{block}\n{END_OF_FILE}"),
                        name: None,
                        output: None,
                    });
                }
            }
            None => {}
        }
    }
    steps
}

/// Returns true if the printed output matches the output that the guide shows.
pub fn is_as_shown(shown: &str, printed: &str) -> bool {
    let whole = Regex::new(&format!("^(?:{})$", pattern(shown))).expect("it was escaped");
    let lines: Vec<&str> = printed.lines().map(str::trim_end).collect();
    whole.is_match(&format!("{}\n", lines.join("\n").trim_end()))
}

/// Translates an output's lines into a regular expression.
fn pattern(shown: &str) -> String {
    let special = Regex::new(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|[0-9]+|[ \t]+|…").expect("it is one");
    let mut pattern = String::new();
    for line in shown.trim_end().lines() {
        if line == "…" {
            pattern += "(?:[^\n]*\n)*?";
            continue;
        }
        let mut rest = line.trim_end();
        while let Some(found) = special.find(rest) {
            pattern += &regex::escape(&rest[..found.start()]);
            pattern += match found.as_str() {
                "…" => "[^\n]*",
                space if space.trim().is_empty() => "[ \t]+",
                mac if mac.contains(':') => "(?:[0-9a-f]{2}:){5}[0-9a-f]{2}",
                _ => "[0-9]+",
            };
            rest = &rest[found.end()..];
        }
        pattern += &regex::escape(rest);
        pattern += "\n";
    }
    pattern
}

#[cfg(test)]
mod tests;
