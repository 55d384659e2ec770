//! One CSV file, read in pieces.

use super::finding::{Finding, Findings, Position, shape};
use super::lines::{Quoting, Splitter, check_quoting};
use super::schema::Schema;
use super::value;
use crate::api::plural;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The most bytes of a line.
const MAX_LINE: usize = 1 << 20;

/// The most kinds of events that are counted.
const MAX_EVENT_TYPES: usize = 64;

/// The first bytes of files that are no CSV, and what they are.
const OTHER_FORMATS: [(&[u8], &str); 9] = [
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook"),
    (b"PAR1", "Parquet"),
    (b"Obj\x01", "Avro"),
    (b"ORC", "ORC"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
];

/// Checks one file.
#[derive(Debug)]
pub(super) struct FileCheck<'s> {
    schema: &'s Schema,
    name: String,
    findings: Findings,
    splitter: Splitter,
    /// The index of the field of each column; `None` before the header, and if it is unusable.
    columns: Option<Vec<Option<usize>>>,
    header: Option<Vec<u8>>,
    /// A line whose end was not read yet.
    rest: Vec<u8>,
    /// Where the next piece continues this one.
    next: u64,
    /// The number of lines before `rest`, if they were all read.
    lines: Option<u64>,
    rows: u64,
    event_types: BTreeSet<u64>,
    /// A part was not read.
    partial: bool,
    unusable: bool,
}

/// What was learned of a file.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) findings: Vec<Finding>,
    pub(super) more: u64,
    /// The header as it is written.
    pub(super) header: Option<Vec<u8>>,
    /// The number of records read.
    pub(super) rows: u64,
    /// Digests of the types of events.
    pub(super) event_types: BTreeSet<u64>,
    /// Every byte was read.
    pub(super) complete: bool,
}

impl<'s> FileCheck<'s> {
    pub(super) fn new(schema: &'s Schema, name: &str) -> Self {
        Self {
            schema,
            name: name.to_owned(),
            findings: Findings::default(),
            splitter: Splitter::default(),
            columns: None,
            header: None,
            rest: Vec::new(),
            next: 0,
            lines: Some(0),
            rows: 0,
            event_types: BTreeSet::new(),
            partial: false,
            unusable: false,
        }
    }

    /// Reads a piece that starts at this byte. Pieces come in order, the first one from the start of the file; bytes may be
    /// left out between them.
    pub(super) fn read(&mut self, offset: u64, mut piece: &[u8]) {
        if offset == 0 {
            piece = self.check_start(piece);
        } else if offset != self.next {
            // The line that starts in the gap is unknown.
            self.partial = true;
            self.lines = None;
            self.rest.clear();
            let Some(start) = piece.iter().position(|b| *b == b'\n') else { return };
            self.next = offset + start as u64 + 1;
            return self.read_lines(&piece[start + 1..]);
        }
        self.read_lines(piece);
    }

    /// Whether further bytes would say nothing.
    pub(super) fn is_unusable(&self) -> bool {
        self.unusable
    }

    /// Ends the file, or what was read of it.
    pub(super) fn finish(mut self, at_end: bool) -> Checked {
        self.partial |= !at_end;
        if at_end && !self.unusable && !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.line(&rest, self.next - rest.len() as u64);
        }
        if self.header.is_none() && !self.unusable && !self.partial {
            self.add(Finding::new("EmptyFile", "a header and at least one record", "nothing"));
        } else if self.rows == 0 && !self.unusable && !self.partial && self.columns.is_some() {
            self.add(Finding::new("NoRecords", "at least one record", "only a header"));
        }
        let (findings, more) = self.findings.into_parts();
        let complete = !self.partial && !self.unusable;
        Checked { findings, more, header: self.header, rows: self.rows, event_types: self.event_types, complete }
    }

    fn add(&mut self, finding: Finding) {
        self.findings.add(finding.in_file(&self.name));
    }

    /// The file can't be read any further.
    fn give_up(&mut self, finding: Finding) {
        self.add(finding);
        self.unusable = true;
    }

    fn check_start<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        if let Some((_, format)) = OTHER_FORMATS.iter().find(|(start, _)| piece.starts_with(start)) {
            self.give_up(Finding::new(
                "NotCsv",
                "a CSV file in UTF-8, not compressed",
                format!("{format}, by its first bytes"),
            ));
            return &[];
        }
        let Some(rest) = piece.strip_prefix(b"\xef\xbb\xbf") else { return piece };
        let found = "a byte order mark, which becomes part of the first header";
        self.add(Finding::new("ByteOrderMark", "UTF-8 without a byte order mark", found).at(Position::Line(1)));
        self.next += 3;
        rest
    }

    fn read_lines(&mut self, piece: &[u8]) {
        let mut start = 0;
        while let Some(length) = piece[start..].iter().position(|b| *b == b'\n') {
            let end = start + length;
            if self.rest.is_empty() {
                self.line(&piece[start..end], self.next);
            } else {
                let mut line = std::mem::take(&mut self.rest);
                let offset = self.next - line.len() as u64;
                line.extend_from_slice(&piece[start..end]);
                self.line(&line, offset);
            }
            self.next += length as u64 + 1;
            start = end + 1;
            if self.unusable {
                return;
            }
        }
        self.rest.extend_from_slice(&piece[start..]);
        self.next += (piece.len() - start) as u64;
        if self.rest.len() > MAX_LINE {
            let found = "a longer line, or none that ends";
            self.give_up(Finding::new("LineTooLong", "a record of at most 1 MiB in each line", found));
        }
    }

    /// Checks the line at this byte.
    fn line(&mut self, line: &[u8], offset: u64) {
        if let Some(lines) = &mut self.lines {
            *lines += 1;
        }
        let position = self.lines.map_or(Position::Byte(offset), Position::Line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let Ok(text) = std::str::from_utf8(line) else {
            return self.add(Finding::new("NotUtf8", "UTF-8", "bytes of another encoding").at(position));
        };
        if text.contains(['\0', '\r']) {
            let finding = Finding::new("ControlCharacter", "one record in each line, and no control characters", "one");
            return if self.header.is_none() {
                self.give_up(finding.at(position))
            } else {
                self.add(finding.at(position))
            };
        }
        if self.header.is_none() {
            self.header_line(text, position);
        } else {
            self.record(text, position);
        }
    }

    fn header_line(&mut self, line: &str, position: Position) {
        self.header = Some(line.as_bytes().to_vec());
        if line.contains('"') {
            let expected = "headers without quotation marks";
            self.add(Finding::new("QuotedHeader", expected, "a quotation mark").at(position));
        }
        let names: Vec<String> =
            self.splitter.split(line.as_bytes()).map(|f| String::from_utf8_lossy(f).into_owned()).collect();
        let schema = self.schema;
        let index = |name: &str| schema.fields.iter().position(|field| field.name == name);
        let columns: Vec<Option<usize>> = names.iter().map(|name| index(name)).collect();
        if columns.iter().all(Option::is_none) {
            let similar = names.iter().any(|name| self.similar(name).is_some());
            if !similar {
                self.no_header(line, names.len(), position);
                return;
            }
        }
        for (i, (name, column)) in names.iter().zip(&columns).enumerate() {
            match column {
                Some(field) if columns[..i].contains(&Some(*field)) => {
                    let finding = Finding::new("DuplicateColumn", "each column once", "it is repeated");
                    self.add(finding.in_column(name).at(position));
                }
                Some(_) => {}
                None => {
                    let (expected, found) = match self.similar(name) {
                        Some(field) => {
                            (format!("exactly {field}"), "it in other letters, or with other characters".into())
                        }
                        None => ("a field of the schema".into(), shape(name)),
                    };
                    self.add(
                        Finding::new("UnknownColumn", expected, found).in_column((i + 1).to_string()).at(position),
                    );
                }
            }
        }
        for (i, field) in schema.fields.iter().enumerate() {
            if !columns.contains(&Some(i)) {
                let finding = Finding::new("MissingColumn", format!("a column {}", field.name), "no such header");
                self.add(finding.in_column(&field.name).at(position));
            }
        }
        let order: Vec<usize> = columns.iter().copied().flatten().collect();
        if !order.is_sorted() {
            let expected = "the columns in the order of the schema's fields";
            self.add(Finding::new("ColumnOrder", expected, "another order").at(position).warning());
        }
        self.columns = Some(columns);
    }

    /// The field that a header probably means.
    fn similar(&self, name: &str) -> Option<&'s str> {
        let plain =
            |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        let name = plain(name);
        self.schema.fields.iter().map(|field| field.name.as_str()).find(|field| plain(field) == name)
    }

    fn no_header(&mut self, line: &str, count: usize, position: Position) {
        let names: Vec<&str> = self.schema.fields.iter().map(|field| field.name.as_str()).collect();
        let separator = [(';', "semicolons"), ('\t', "tabs"), ('|', "vertical bars")];
        let separator = separator.into_iter().find(|(c, _)| count == 1 && line.contains(*c));
        let finding = match separator {
            Some((_, found)) => Finding::new("Separator", "commas between the columns", found),
            None => {
                let found = format!("{} and no name of a field", plural(count, "column"));
                Finding::new("NoHeader", format!("a header: {}", names.join(",")), found)
            }
        };
        self.give_up(finding.at(position));
    }

    fn record(&mut self, line: &str, position: Position) {
        self.rows += 1;
        if self.header.as_deref() == Some(line.as_bytes()) {
            return self.add(Finding::new("RepeatedHeader", "a record", "the header again").at(position));
        }
        if let Err((column, problem)) = check_quoting(line.as_bytes()) {
            let (expected, found) = match problem {
                Quoting::Open => ("a record on a single line", "a quoted value that does not end in it"),
                Quoting::AfterClosing => ("a comma after a quoted value", "other text"),
                Quoting::Within => ("quotation marks around a value, or escaped in it", "one within a value"),
            };
            let column = self.column_name(column);
            return self.add(Finding::new("Quoting", expected, found).in_column(column).at(position));
        }
        let Some(columns) = &self.columns else { return };
        let count = self.splitter.split(line.as_bytes()).count();
        if count != columns.len() {
            let finding = Finding::new("ColumnCount", plural(columns.len(), "column"), plural(count, "column"));
            return self.add(finding.at(position));
        }
        for (text, column) in self.splitter.split(line.as_bytes()).zip(columns) {
            let Some(field) = column.and_then(|index| self.schema.fields.get(index)) else { continue };
            let text = std::str::from_utf8(text).unwrap_or_default();
            if let Some(finding) = value::check(field, self.schema.dataset_type, text) {
                self.findings.add(finding.in_column(&field.name).at(position).in_file(&self.name));
            }
            if field.name == "EVENT_TYPE" && !text.is_empty() && self.event_types.len() < MAX_EVENT_TYPES {
                let mut hasher = DefaultHasher::new();
                text.hash(&mut hasher);
                self.event_types.insert(hasher.finish());
            }
        }
    }

    fn column_name(&self, index: usize) -> String {
        let field = self.columns.as_ref().and_then(|columns| *columns.get(index)?);
        field
            .and_then(|field| self.schema.fields.get(field))
            .map_or_else(|| (index + 1).to_string(), |f| f.name.clone())
    }
}
