//! The last gate of the log: whatever is written, by whichever crate, is one printable line, bounded
//! and without secrets.

use crate::cli::LogFormat;
use crate::redact;
use std::io::{self, Write};
use tracing::error;
use tracing_subscriber::EnvFilter;

/// Begins to log to standard error what the filter lets through.
pub fn init(filter: EnvFilter, format: LogFormat) {
    // Colours would not pass the gate.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(move || Gate(format));
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(true).with_span_list(false).init(),
    }
    // A panic, too, is told through the gate, with the resource that it was about.
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.payload_as_str().unwrap_or("without words");
        error!(panic = what, place = panic.location().map(tracing::field::display), "panicked");
    }));
}

/// Writes to standard error, one whole line at a time.
struct Gate(LogFormat);

impl Write for Gate {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let told = String::from_utf8_lossy(line);
        let clean = match self.0 {
            LogFormat::Text => redact::line(&told),
            LogFormat::Json => json_line(told.trim_end()),
        };
        io::stderr().write_all(format!("{clean}\n").as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A line of JSON whose every string is sanitised.
fn json_line(line: &str) -> String {
    let mut clean = String::new();
    let mut rest = line;
    while let Some(begin) = rest.find('"') {
        let (between, literal) = rest.split_at(begin);
        let (literal, after) = literal.split_at(literal_end(literal));
        clean.push_str(between);
        let told: String = serde_json::from_str(literal).unwrap_or_default();
        clean.push_str(&serde_json::Value::String(redact::sanitize(&told)).to_string());
        rest = after;
    }
    clean.push_str(rest);
    clean
}

/// Where a string literal ends that begins at the start of the text.
fn literal_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_keeps_its_shape_and_loses_its_secrets() {
        let line =
            r#"{"level":"INFO","n":1,"a":["x\"y\n","secretAccessKey=abc"],"b":{"message":"https://u:p@h"},"c":null}"#;
        let clean = r#"{"level":"INFO","n":1,"a":["x\"y","secretAccessKey=[redacted]"],"b":{"message":"https://[redacted]@h"},"c":null}"#;
        assert_eq!(json_line(line), clean);
    }

    #[test]
    fn a_line_that_is_cut_off_makes_no_more_of_itself() {
        for cut in [r#"{"a"#, r#"{"a":"b\"#, "", "no json"] {
            assert!(!json_line(cut).contains('\n'));
        }
    }
}
