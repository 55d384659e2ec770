//! What is wrong with data: where, what was expected and the shape of what is there. Never a value of the data.

use crate::api::plural;
use crate::redact::sanitize;
use serde::Serialize;
use std::fmt;

/// The most findings of a report; further ones are counted.
pub const MAX_FINDINGS: usize = 20;

/// Whether the service is expected to reject the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It breaks a documented rule.
    Error,
    /// The import may succeed all the same.
    Warning,
}

/// Where in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// In this line, from 1.
    Line(u64),
    /// In the line that starts at this byte: what comes before it was not read.
    Byte(u64),
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Finding {
    /// Whether the service is expected to reject the data.
    pub level: Level,
    /// The rule, in CamelCase.
    pub rule: &'static str,
    /// The file: its name within the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where in the file it was seen first.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// The field of the schema, or the number of the column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What the rule expects.
    pub expected: String,
    /// The shape of what is there instead.
    pub found: String,
    /// How often it was seen.
    pub count: u64,
}

impl Finding {
    /// An error.
    pub(super) fn new(rule: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            rule,
            file: None,
            position: None,
            column: None,
            expected: expected.into(),
            found: found.into(),
            count: 1,
        }
    }

    /// Data that is not in S3 can't be checked.
    #[cfg(feature = "operator")]
    pub(crate) fn not_in_s3() -> Self {
        Self::new("NotInS3", "a location in S3, such as s3://bucket/file.csv", "another one").warning()
    }

    /// The policy of the key can't be read.
    pub(super) fn kms() -> Self {
        let expected =
            "a key policy that allows kms:Decrypt to personalize.amazonaws.com and to the role of the import";
        Self::new("KmsKey", expected, "encryption with a KMS key, whose policy is not checked").warning()
    }

    /// The same as a warning.
    pub(super) fn warning(self) -> Self {
        Self { level: Level::Warning, ..self }
    }

    /// The same, in this file.
    pub(super) fn in_file(self, file: &str) -> Self {
        Self { file: Some(sanitize(file)), ..self }
    }

    /// The same, in this column.
    pub(super) fn in_column(self, column: impl Into<String>) -> Self {
        Self { column: Some(column.into()), ..self }
    }

    /// The same, at this position.
    pub(super) fn at(self, position: Position) -> Self {
        Self { position: Some(position), ..self }
    }

    fn is_like(&self, other: &Self) -> bool {
        (self.rule, &self.file, &self.column) == (other.rule, &other.file, &other.column)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.position.map(|position| match position {
            Position::Line(line) => format!("line {line}"),
            Position::Byte(byte) => format!("byte {byte}"),
        });
        let column = self.column.as_ref().map(|column| format!("column {column}"));
        let place: Vec<String> = [self.file.clone(), position, column].into_iter().flatten().collect();
        if !place.is_empty() {
            write!(f, "{}: ", place.join(", "))?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        if self.count > 1 { write!(f, " ({} times)", self.count) } else { Ok(()) }
    }
}

/// Findings, each kind once per file and column, and not more than [`MAX_FINDINGS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Findings {
    list: Vec<Finding>,
    more: u64,
}

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        if let Some(known) = self.list.iter_mut().find(|known| known.is_like(&finding)) {
            known.count = known.count.saturating_add(finding.count);
            return;
        }
        // An error takes the place of a warning.
        if self.list.len() >= MAX_FINDINGS {
            self.more = self.more.saturating_add(1);
            let warning = self.list.iter_mut().rev().find(|known| known.level == Level::Warning);
            if let (Level::Error, Some(warning)) = (finding.level, warning) {
                *warning = finding;
            }
            return;
        }
        self.list.push(finding);
    }

    pub(super) fn into_parts(mut self) -> (Vec<Finding>, u64) {
        self.list.sort_by_key(|finding| finding.level);
        (self.list, self.more)
    }
}

/// The shape of a text, which says nothing about its content.
pub(super) fn shape(text: &str) -> String {
    let count = text.chars().count();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if text.is_empty() {
        "nothing".into()
    } else if text.trim().is_empty() {
        "only white space".into()
    } else if text.trim() != text {
        format!("{} with white space around it", shape(text.trim()))
    } else if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() {
        let sign = if text.starts_with('-') { "a minus sign and " } else { "" };
        format!("{sign}{}", plural(digits.len(), "digit"))
    } else if text.parse::<f64>().is_ok_and(f64::is_finite) {
        "a number with a fraction or an exponent".into()
    } else {
        format!("text of {}", plural(count, "character"))
    }
}
