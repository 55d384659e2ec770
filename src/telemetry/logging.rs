//! The log on standard error. Each event of any crate is one bounded, printable line without secrets: every value of
//! events and spans is sanitised while it is written. Names and targets are constants in code.

use crate::redact;
use clap::ValueEnum;
use serde_json::{Map, Value};
use std::fmt;
use std::io;
use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing::{Event, Subscriber, error};
use tracing_log::NormalizeEvent;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter, layer};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt};

/// A span that is longer than this, in bytes, records no more fields. Each field is bounded, but a span may record a
/// field any number of times.
const MAX_SPAN_BYTES: usize = 16 * 1024;

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging to standard error. A panic is logged, too, with the span that it happened in.
///
/// # Errors
/// When `level` is not in the syntax of [`EnvFilter`].
pub fn init(level: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|e| format!("--log-level: {e}"))?;
    subscriber(filter, format, io::stderr).init();
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        error!(panic = message, location = panic.location().map(tracing::field::display), "panicked");
    }));
    Ok(())
}

fn subscriber<W>(filter: EnvFilter, format: LogFormat, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = layer().with_ansi(false).with_writer(writer).fmt_fields(SanitizedFields(format));
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.event_format(JsonEvent).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(layer)
}

/// Writes an event as a JSON object, with its fields at the top level and its innermost span as `span`.
struct JsonEvent;

impl<S, N> FormatEvent<S, N> for JsonEvent
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Events from the `log` crate have their metadata in fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        write!(writer, "{{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, "\",\"level\":\"{}\"", metadata.level())?;
        context.format_fields(writer.by_ref(), event)?;
        write!(writer, ",\"target\":{}", Value::from(metadata.target()))?;
        if let Some(span) = context.parent_span() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().map_or("", |fields| &fields.fields);
            let fields = format!("{{{}}}", fields.trim_start_matches([',', ' ']));
            // Parsing keeps only the last value of a field that was recorded twice.
            let mut span_fields: Map<String, Value> = serde_json::from_str(&fields).unwrap_or_default();
            span_fields.insert("name".into(), span.name().into());
            write!(writer, ",\"span\":{}", Value::Object(span_fields))?;
        }
        writeln!(writer, "}}")
    }
}

/// Writes fields with sanitised values: as `name="value"` in text, and as `,"name":"value"` in JSON.
struct SanitizedFields(LogFormat);

impl<'w> FormatFields<'w> for SanitizedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = FieldWriter { format: self.0, writer, separator: "", result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        if current.fields.len() > MAX_SPAN_BYTES {
            return Ok(());
        }
        current.fields.push(' ');
        self.format_fields(current.as_writer(), fields)
    }
}

struct FieldWriter<'w> {
    format: LogFormat,
    writer: Writer<'w>,
    separator: &'static str,
    result: fmt::Result,
}

impl FieldWriter<'_> {
    fn write(&mut self, field: &Field, value: impl Into<Value>) {
        let (name, value, separator) = (field.name(), value.into(), self.separator);
        self.result = match (self.format, &value) {
            (LogFormat::Json, _) => write!(self.writer, ",{}:{value}", Value::from(name)),
            // Metadata of an event from the `log` crate: already in the line.
            (LogFormat::Text, _) if name.starts_with("log.") => return,
            (LogFormat::Text, Value::String(message)) if name == "message" => {
                write!(self.writer, "{separator}{message}")
            }
            (LogFormat::Text, _) => write!(self.writer, "{separator}{name}={value}"),
        };
        self.separator = " ";
    }
}

impl Visit for FieldWriter<'_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, sanitize_field(field.name(), &value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, sanitize_field(field.name(), &format_args!("{value:?}")));
    }
}

/// Formats and sanitises the value of a field of a log line. The name counts: the value of `password` is a secret.
fn sanitize_field(name: &str, value: &impl fmt::Display) -> String {
    let field = redact::sanitize_display(&format_args!("{name}={value}"));
    field.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).unwrap_or(&field).trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Error, Read, Seek};
    use std::sync::Arc;
    use tracing::{debug, error_span, field, info, warn};
    use tracing_log::{format_trace, log};

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE1";

    /// The lines that this closure logs.
    fn lines(format: LogFormat, log: impl FnOnce()) -> Vec<String> {
        let file = Arc::new(tempfile::tempfile().unwrap());
        tracing::subscriber::with_default(subscriber("trace".parse().unwrap(), format, Arc::clone(&file)), log);
        let mut written = String::new();
        (&*file).rewind().unwrap();
        (&*file).read_to_string(&mut written).unwrap();
        assert!(written.is_empty() || written.ends_with('\n'));
        written.lines().map(String::from).collect()
    }

    fn json(log: impl FnOnce()) -> Value {
        let lines = lines(LogFormat::Json, log);
        assert_eq!(lines.len(), 1, "{lines:?}");
        serde_json::from_str(&lines[0]).unwrap()
    }

    #[test]
    fn json_line_has_the_fields_at_the_top_and_the_innermost_span() {
        let mut line = json(|| {
            let _outer = error_span!("outer", a = 1).entered();
            let span = error_span!("reconcile", namespace = "shop", resource = "nightly", code = field::Empty);
            let _span = span.clone().entered();
            span.record("code", 1);
            span.record("code", 2);
            info!(count = 3, share = 0.5, late = true, reason = ?Some("x"), name = %"n", "the job has \"ended\"");
        });
        let timestamp = line["timestamp"].take();
        assert!(timestamp.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{timestamp}");
        let expected = serde_json::json!({
            "timestamp": null, "level": "INFO", "target": module_path!(), "message": "the job has \"ended\"",
            "count": 3, "share": 0.5, "late": true, "reason": "Some(\"x\")", "name": "n",
            "span": {"name": "reconcile", "namespace": "shop", "resource": "nightly", "code": 2},
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn json_span_shows_fields_that_are_recorded_later() {
        let line = json(|| {
            let span = error_span!("request", status = field::Empty);
            span.record("status", 200);
            span.in_scope(|| info!("sent"));
        });
        assert_eq!(line["span"], serde_json::json!({"name": "request", "status": 200}));
    }

    #[test]
    fn text_line_has_spans_message_and_fields() {
        let lines = lines(LogFormat::Text, || {
            let _span = error_span!("reconcile", namespace = "shop", resource = "nightly").entered();
            warn!(error = %"no \"answer\"", count = 3, "a call failed");
        });
        let (_, line) = lines[0].split_once(' ').unwrap();
        let target = module_path!();
        let span = r#"reconcile{namespace="shop" resource="nightly"}"#;
        assert_eq!(line, format!(r#" WARN {span}: {target}: a call failed error="no \"answer\"" count=3"#));
    }

    #[test]
    fn events_of_the_log_crate_keep_their_target() {
        let event = || {
            let message = format_args!("handshake");
            format_trace(&log::Record::builder().args(message).level(log::Level::Warn).target("tls").build()).unwrap();
        };
        let line = json(event);
        assert_eq!(
            (&line["level"], &line["target"], &line["message"]),
            (&"WARN".into(), &"tls".into(), &"handshake".into())
        );
        assert!(lines(LogFormat::Text, event)[0].ends_with(" WARN tls: handshake"));
    }

    #[test]
    fn secrets_are_redacted_in_every_kind_of_field_of_events_and_spans() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = lines(format, || {
                let span = error_span!("outer", a = format!("key {SECRET}"), b = field::Empty, password = "hunter2");
                let _span = span.clone().entered();
                span.record("b", format!("secretAccessKey={SECRET}"));
                info!("leaked {SECRET}");
                info!(a = SECRET, b = %SECRET, c = ?Some(SECRET), d = %format!("https://u:{SECRET}@h/"), "display and debug");
                let error = Error::other(format!("Authorization: Bearer {SECRET}"));
                warn!(error = &error as &dyn std::error::Error, "error");
                debug!(session_token = "hunter2", password = %"hunter2", "secrets by name");
            });
            assert_eq!(lines.len(), 4);
            for line in &lines {
                assert!(!line.contains(&SECRET[..10]) && !line.contains("hunter2"), "{line}");
                assert!(line.contains("[redacted]"), "{line}");
                assert!(format == LogFormat::Text || serde_json::from_str::<Value>(line).is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn long_values_are_truncated() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = lines(format, || {
                let span = error_span!("outer", a = field::Empty);
                let _span = span.clone().entered();
                (0..1000).for_each(|_| {
                    span.record("a", "x".repeat(100_000));
                });
                info!(a = "x".repeat(1_000_000), b = ?"x".repeat(1_000_000), "{}", "x".repeat(1_000_000));
            });
            assert_eq!(lines.len(), 1);
            assert!(lines[0].len() < 2 * MAX_SPAN_BYTES, "{}", lines[0].len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_stays_on_one_printable_line(text in "\\PC{0,50}|(?s).{0,300}|[\"\\\\{}:,a\\n\\r\\x1b\\u{2028}\\u{202e}]{0,50}") {
            for format in [LogFormat::Text, LogFormat::Json] {
                let lines = lines(format, || {
                    let _span = error_span!("outer", a = text, b = ?text, c = %text).entered();
                    info!(a = text, b = ?text, c = %text, "{text}");
                });
                prop_assert_eq!(lines.len(), 1);
                prop_assert!(!lines[0].contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}')), "{:?}", lines[0]);
                prop_assert!(format == LogFormat::Text || serde_json::from_str::<Value>(&lines[0]).is_ok(), "{}", lines[0]);
            }
        }
    }
}
