//! All files of an import together: names, sizes, headers, and the report.

use super::contents::Contents;
use super::file::Checked;
use super::finding::{Finding, Findings};
use super::inspect::Object;
use super::schema::{DatasetType, Domain, Schema};
use crate::api::{ImportMode, ImportedData, plural};
use serde::Serialize;
use std::collections::BTreeSet;

/// One gigabyte as the most generous reading of the quota.
const GIB: i64 = 1 << 30;

/// The most types of events and metadata fields together.
const MAX_EVENT_TYPES: usize = 10;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What is wrong, errors first.
    pub findings: Vec<Finding>,
    /// How many further findings there are.
    pub more_findings: u64,
    /// The data: the number of objects, their size and their fingerprint.
    #[serde(flatten)]
    pub data: ImportedData,
    /// The number of records read.
    pub records: u64,
    /// Every byte was read.
    pub complete: bool,
}

impl Report {
    /// Whether a documented rule is broken.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == super::Level::Error)
    }

    /// A report of these findings alone.
    #[must_use]
    pub fn of(findings: Vec<Finding>) -> Self {
        Self { findings, ..Self::default() }
    }

    /// What is wrong in one line: the first three findings, and how many follow.
    #[must_use]
    pub fn summary(&self) -> String {
        let first: Vec<String> = self.findings.iter().take(3).map(ToString::to_string).collect();
        let rest = self.findings.len().saturating_sub(3) as u64 + self.more_findings;
        let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
        format!("{}{more}", first.join("; "))
    }
}

/// Checks all files of an import.
#[derive(Debug)]
pub(super) struct SetCheck<'s> {
    schema: &'s Schema,
    domain: Option<Domain>,
    mode: ImportMode,
    findings: Findings,
    more: u64,
    header: Option<(String, Vec<u8>)>,
    event_types: BTreeSet<u64>,
    contents: Contents,
    records: u64,
    complete: bool,
}

impl<'s> SetCheck<'s> {
    pub(super) fn new(schema: &'s Schema, domain: Option<Domain>, mode: ImportMode) -> Self {
        Self {
            schema,
            domain,
            mode,
            findings: Findings::default(),
            more: 0,
            header: None,
            event_types: BTreeSet::new(),
            contents: Contents::default(),
            records: 0,
            complete: true,
        }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.add(finding);
    }

    /// Counts an object. Returns whether it can be read as CSV, by its name and size.
    pub(super) fn object(&mut self, object: &Object, in_folder: bool) -> bool {
        self.contents.add(object);
        let (name, size) = (object.name(), object.size);
        let extension = name.rsplit_once('.').map(|(_, extension)| extension);
        let is_csv = extension.is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        if !is_csv && (in_folder || extension.is_some()) {
            let expected = if in_folder { "only CSV files in the folder" } else { "a CSV file" };
            self.add(Finding::new("NotCsv", expected, "a name that does not end in .csv").in_file(name));
            return false;
        }
        if size == 0 {
            self.add(Finding::new("EmptyFile", "a header and at least one record", "no bytes").in_file(name));
            return false;
        }
        true
    }

    /// Takes what was learned of a file.
    pub(super) fn checked(&mut self, name: &str, checked: Checked) {
        checked.findings.into_iter().for_each(|finding| self.add(finding));
        self.more += checked.more;
        self.records += checked.rows;
        self.complete &= checked.complete;
        self.event_types.extend(checked.event_types);
        match (&self.header, checked.header) {
            (None, Some(header)) => self.header = Some((name.to_owned(), header)),
            (Some((_, first)), Some(header)) if *first != header => {
                let found = "another one than in the first file";
                self.add(Finding::new("Header", "the same header in all files", found).in_file(name));
            }
            _ => {}
        }
    }

    /// A file was not read.
    pub(super) fn skipped(&mut self) {
        self.complete = false;
    }

    pub(super) fn finish(mut self) -> Report {
        let (max, mode) = match self.mode {
            ImportMode::Full => (100 * GIB, "FULL"),
            ImportMode::Incremental => (GIB, "INCREMENTAL"),
        };
        let data = std::mem::take(&mut self.contents).data();
        if data.bytes > max {
            let expected = format!("at most {} GB for {mode}", max / GIB);
            self.add(Finding::new("TooMuchData", expected, format!("{} bytes", data.bytes)));
        }
        if data.files == 0 {
            self.add(Finding::new("NoFiles", "at least one CSV file", "none"));
        }
        let min = self.schema.dataset_type.min_records(self.mode);
        if self.complete && data.files > 0 && self.records < min && self.header.is_some() && min > 1 {
            let found = plural(self.records, "record");
            self.add(Finding::new("TooFewRecords", format!("at least {min} records in an import"), found));
        }
        let types = self.event_types.len() + self.schema.metadata(self.domain).count();
        if self.schema.dataset_type == DatasetType::Interactions && types > MAX_EVENT_TYPES {
            let expected = format!("at most {MAX_EVENT_TYPES} types of events and metadata fields together");
            self.add(Finding::new("TooManyEventTypes", expected, format!("at least {types}")));
        }
        let (findings, more) = self.findings.into_parts();
        let (more_findings, records, complete) = (more + self.more, self.records, self.complete);
        Report { findings, more_findings, data, records, complete }
    }
}
