//! Formats the output of demos and trials.

use std::cell::Cell;
use std::io::{IsTerminal, Write};

/// The width at which lines of other programs' output are cut, in characters.
const WIDTH: usize = 110;

/// The outcome of a demo or trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was shown worked.
    Pass,
    /// Something failed, and was reported.
    Fail,
}

/// Standard output, with colours on a terminal.
pub(crate) struct Screen {
    name: &'static str,
    colours: bool,
    steps: Cell<u32>,
}

/// An ANSI style ("Select Graphic Rendition", ECMA-48).
#[derive(Clone, Copy)]
enum Style {
    Bold = 1,
    Dim = 2,
    Red = 31,
    Green = 32,
    Cyan = 36,
}

impl Screen {
    /// Creates a screen. `name` is the subject of the verdict. Omits colours if standard output is
    /// not a terminal, or if the user asks for it (<https://no-color.org>).
    pub(crate) fn new(name: &'static str) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { name, colours: wanted && std::io::stdout().is_terminal(), steps: Cell::new(0) }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colours { format!("\x1b[{}m{text}\x1b[0m", style as u8) } else { text.to_owned() }
    }

    /// Prints a line. A closed pipe must not stop the run halfway.
    fn print(&self, line: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    }

    /// Prints the title.
    pub(crate) fn title(&self, text: &str) {
        self.print(&self.paint(Style::Bold, text));
    }

    /// Prints the heading of a numbered step.
    pub(crate) fn step(&self, text: &str) {
        self.steps.set(self.steps.get() + 1);
        self.heading(&format!("{}. {text}", self.steps.get()));
    }

    /// Prints the heading of a step without a number.
    pub(crate) fn heading(&self, text: &str) {
        self.print("");
        self.print(&self.paint(Style::Bold, text));
    }

    /// Prints a name and a value.
    pub(crate) fn fact(&self, name: &str, value: &str) {
        let name = self.paint(Style::Cyan, &format!("{name:<20}"));
        self.print(&format!("   {name} {value}"));
    }

    /// Prints a command line and its output.
    pub(crate) fn command(&self, line: &str, output: &str) {
        self.print(&self.paint(Style::Dim, &format!("   $ {line}")));
        self.text(output);
    }

    /// Prints text in full.
    pub(crate) fn whole(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.print(&format!("   {}", line.trim_end()));
        }
    }

    /// Prints the output of another program. Long lines are cut.
    pub(crate) fn text(&self, text: &str) {
        for line in text.trim_end().lines() {
            let cut: String = line.chars().take(WIDTH).collect();
            let more = if cut.len() < line.len() { " …" } else { "" };
            self.print(&format!("   {}{more}", cut.trim_end()));
        }
    }

    /// Prints the verdict, the last line.
    pub(crate) fn verdict(&self, verdict: Verdict, text: &str) {
        let (style, word) = match verdict {
            Verdict::Pass => (Style::Green, "PASS"),
            Verdict::Fail => (Style::Red, "FAIL"),
        };
        self.print("");
        self.print(&format!("{}: {} {text}", self.name, self.paint(style, word)));
    }
}
