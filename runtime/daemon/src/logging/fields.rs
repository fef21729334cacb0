//! Safe formatting of log messages and their fields.

use std::fmt::{self, Debug};

use heddle_core::text::one_line;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

/// The field that names the subject of an event. It is not shown, because the message names it as
/// well.
pub(super) const SUBJECT: &str = "subject";

/// Maximum length of a message or value in a log line, in characters.
const LONGEST: usize = 4096;

/// Formats messages and fields as tracing-subscriber does, but each as one line of bounded length
/// without hidden characters, wherever their text comes from.
pub(super) struct VisibleFields;

impl<'writer> FormatFields<'writer> for VisibleFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Visitor(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct Visitor<'writer>(DefaultVisitor<'writer>);

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != SUBJECT {
            let text = one_line(&format!("{value:?}"), LONGEST);
            self.0.record_debug(field, &format_args!("{text}"));
        }
    }
}
