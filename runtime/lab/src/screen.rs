//! The look of what is shown step by step.

use std::cell::Cell;
use std::io::{IsTerminal, Write};

use crate::Verdict;

/// Longer lines of other programs' output are cut.
const WIDTH: usize = 110;

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
    /// `name` is what the verdict is on. Colours are left out where nobody would see them, and where the user asks for it
    /// (<https://no-color.org>).
    pub(crate) fn new(name: &'static str) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { name, colours: wanted && std::io::stdout().is_terminal(), steps: Cell::new(0) }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colours { format!("\x1b[{}m{text}\x1b[0m", style as u8) } else { text.to_owned() }
    }

    /// A reader that has gone away is no reason to stop in the middle.
    fn print(&self, line: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    }

    /// The first line.
    pub(crate) fn title(&self, text: &str) {
        self.print(&self.paint(Style::Bold, text));
    }

    /// A numbered step.
    pub(crate) fn step(&self, text: &str) {
        self.steps.set(self.steps.get() + 1);
        self.heading(&format!("{}. {text}", self.steps.get()));
    }

    /// A step without a number.
    pub(crate) fn heading(&self, text: &str) {
        self.print("");
        self.print(&self.paint(Style::Bold, text));
    }

    /// One thing that is so: what, and how.
    pub(crate) fn fact(&self, name: &str, value: &str) {
        let name = self.paint(Style::Cyan, &format!("{name:<20}"));
        self.print(&format!("   {name} {value}"));
    }

    /// A command line and what it printed.
    pub(crate) fn command(&self, line: &str, output: &str) {
        self.print(&self.paint(Style::Dim, &format!("   $ {line}")));
        self.text(output);
    }

    /// Text in which nothing may be missing.
    pub(crate) fn whole(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.print(&format!("   {}", line.trim_end()));
        }
    }

    /// Text of another program. Long lines are cut.
    pub(crate) fn text(&self, text: &str) {
        for line in text.trim_end().lines() {
            let cut: String = line.chars().take(WIDTH).collect();
            let more = if cut.len() < line.len() { " …" } else { "" };
            self.print(&format!("   {}{more}", cut.trim_end()));
        }
    }

    /// The last line.
    pub(crate) fn verdict(&self, verdict: Verdict, text: &str) {
        let (style, word) = match verdict {
            Verdict::Pass => (Style::Green, "PASS"),
            Verdict::Fail => (Style::Red, "FAIL"),
        };
        self.print("");
        self.print(&format!("{}: {} {text}", self.name, self.paint(style, word)));
    }
}
