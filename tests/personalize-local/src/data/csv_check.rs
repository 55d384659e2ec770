//! Validates the CSV files of an import, record by record, in constant memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use csv::StringRecord;

use super::schema::{Column, Columns, DatasetType, ValueType, alphanumeric};

/// Minimum interactions per import (documented quota). For action interactions only INCREMENTAL imports need them.
const MIN_INTERACTIONS: u64 = 1000;
/// A larger timestamp is treated as milliseconds. As seconds, this is the year 5138.
const MAX_EPOCH_SECOND: i64 = 99_999_999_999;
/// The link in a `failureReason` about lengths.
const GUIDELINES: &str = "https://docs.aws.amazon.com/personalize/latest/dg/data-prep-formatting.html";
/// Maximum record size, so that a missing closing quotation mark does not load the rest of the file into memory.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// Why a check did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CheckError {
    /// The import fails with this `failureReason`.
    Failed(String),
    /// The stand-in shuts down; the data may be valid.
    Stopped,
}

impl From<String> for CheckError {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Checks the files of an import against the columns of a dataset, and returns the number of records. Once `stopping`
/// is set, it stops at the next record.
pub(crate) fn check(
    files: &[PathBuf],
    dataset_type: &str,
    incremental: bool,
    columns: &Columns,
    stopping: &AtomicBool,
) -> Result<u64, CheckError> {
    let (mut records, mut header) = (0, None);
    for path in files {
        let (names, mut file) = CsvFile::open(path, dataset_type, columns)?;
        let first = header.get_or_insert_with(|| names.clone());
        if *first != names {
            let name = &file.name;
            return Err(format!("Input csv {name} has other column headers than the files before it.").into());
        }
        while file.check_next(columns)? {
            records += 1;
            if stopping.load(Ordering::Relaxed) {
                return Err(CheckError::Stopped);
            }
        }
    }
    let has_minimum = match DatasetType::from_name(dataset_type) {
        Some(DatasetType::Interactions) => true,
        Some(DatasetType::ActionInteractions) => incremental,
        _ => false,
    };
    if has_minimum && records < MIN_INTERACTIONS {
        return Err(CheckError::Failed(format!(
            "Failed to create a data import job for {dataset_type} dataset. The number of interaction records is \
             {records}. The minimum number of interaction records required is {MIN_INTERACTIONS}."
        )));
    }
    if records == 0 {
        return Err(CheckError::Failed(format!(
            "Failed to create a data import job for {dataset_type} dataset. Input csv has no records."
        )));
    }
    Ok(records)
}

/// Whether a file that begins with this line may be CSV: it is neither binary, such as gzip, nor JSON, such as the
/// manifest of an export.
fn is_text(line: &[u8]) -> bool {
    let is_binary = line.starts_with(b"\x1f\x8b") || line.contains(&0);
    !is_binary && !matches!(line.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// A file with a limit on the bytes that may still be read.
struct LimitedFile {
    file: File,
    remaining: u64,
}

impl Read for LimitedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.remaining == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let read = self.file.read(buffer)?;
        self.remaining = self.remaining.saturating_sub(read as u64);
        Ok(read)
    }
}

/// An open file with a valid header.
struct CsvFile {
    name: String,
    reader: csv::Reader<io::Chain<Cursor<Vec<u8>>, BufReader<LimitedFile>>>,
    /// The position in a record of each column of the schema.
    positions: Vec<usize>,
    record: StringRecord,
}

impl CsvFile {
    /// Opens a file and checks its header; also returns the names in the header.
    fn open(path: &Path, dataset_type: &str, columns: &Columns) -> Result<(Vec<String>, Self), String> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let failed = |error: io::Error| read_error(&name, &error.into());
        let mut file =
            BufReader::new(LimitedFile { file: File::open(path).map_err(failed)?, remaining: MAX_RECORD_BYTES });
        // Check the raw header for quotation marks: the CSV reader removes them.
        let mut header = Vec::new();
        file.read_until(b'\n', &mut header).map_err(failed)?;
        if !is_text(&header) {
            return Err(format!("Input csv {name} is not a CSV file."));
        }
        if header.contains(&b'"') {
            return Err(format!("Input csv {name} has column headers that are enclosed in quotation marks."));
        }
        let mut reader = csv::ReaderBuilder::new();
        let mut reader = reader.escape(Some(b'\\')).from_reader(Cursor::new(header).chain(file));
        let header = reader.headers().map_err(|error| read_error(&name, &error))?;
        // Remove the byte order mark from the first name.
        let names: Vec<String> =
            header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
        let positions = column_positions(&names, dataset_type, columns)?;
        Ok((names, Self { name, reader, positions, record: StringRecord::new() }))
    }

    /// Reads and checks the next record; `false` at the end of the file.
    fn check_next(&mut self, columns: &Columns) -> Result<bool, String> {
        let Self { name, reader, positions, record } = self;
        reader.get_mut().get_mut().1.get_mut().remaining = MAX_RECORD_BYTES;
        if !reader.read_record(record).map_err(|error| read_error(name, &error))? {
            return Ok(false);
        }
        let line = record.position().map_or(0, csv::Position::line);
        // Two single-character searches are fast even in debug builds.
        if record.as_slice().contains('\n') || record.as_slice().contains('\r') {
            return Err(format!("Input csv {name} has a record in line {line} that is not on a single line."));
        }
        for (column, position) in columns.0.iter().zip(positions) {
            check_value(record.get(*position).unwrap_or_default(), column, line)?;
        }
        Ok(true)
    }
}

fn read_error(name: &str, error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { pos, .. } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("Input csv {name} is not encoded in UTF-8 in line {line}.")
        }
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("Input csv {name} has {len} fields in line {line}, expected {expected_len}.")
        }
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            format!(
                "Input csv {name} has a record of more than {MAX_RECORD_BYTES} bytes. Is a quotation mark not closed?"
            )
        }
        _ => format!("Input csv {name} can't be parsed."),
    }
}

/// The position in a record of each column of the schema. Other columns are ignored.
fn column_positions(names: &[String], dataset_type: &str, columns: &Columns) -> Result<Vec<usize>, String> {
    for (position, name) in names.iter().enumerate() {
        if let Some(other) = names[..position].iter().find(|other| alphanumeric(other) == alphanumeric(name)) {
            return Err(format!("Input csv has the column {other} more than once, the second time as {name}."));
        }
    }
    let (mut missing, mut positions) = (Vec::new(), Vec::new());
    for column in &columns.0 {
        match names.iter().position(|name| *name == column.name) {
            Some(position) => positions.push(position),
            None => missing.push(column.name.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(positions);
    }
    Err(format!(
        "Failed to create a data import job {dataset_type} dataset...Input CSV is missing the following columns:[{}].",
        missing.join(", ")
    ))
}

fn check_value(text: &str, column: &Column, line: u64) -> Result<(), String> {
    let name = &column.name;
    if text.is_empty() {
        return if column.nullable { Ok(()) } else { Err(format!("Column {name} has a null value in line {line}.")) };
    }
    let parses = match column.value_type {
        // Rust also parses "inf" and "nan"; reject them.
        ValueType::Float | ValueType::Double => text.parse::<f64>().is_ok_and(f64::is_finite),
        ValueType::Int => text.parse::<i32>().is_ok(),
        ValueType::Long => text.parse::<i64>().is_ok(),
        ValueType::Boolean => text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false"),
        ValueType::String => true,
    };
    if !parses {
        let expected = format!("{:?}", column.value_type).to_lowercase();
        return Err(format!("Column {name} has a value in line {line} that is not of type {expected}."));
    }
    if column.is_timestamp() && !text.parse::<i64>().is_ok_and(|second| (0..=MAX_EPOCH_SECOND).contains(&second)) {
        return Err(format!("Column {name} has a value in line {line} that is not in Unix epoch seconds."));
    }
    match column.max_chars() {
        // A text has at least as many bytes as characters, and counting bytes is faster.
        Some(max) if text.len() > max && text.chars().count() > max => Err(format!(
            "Length cannot be more than {max} characters for {name}. If no values exceed the character limit, make \
             sure your data follows the formatting guidelines listed in {GUIDELINES}."
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{CheckError, MAX_RECORD_BYTES, check};
    use crate::data::schema::{Columns, DatasetType, minimal};
    use std::{io::Write, sync::atomic::AtomicBool};

    const HEADER: &str = "USER_ID,ITEM_ID,TIMESTAMP";

    fn columns(dataset_type: &str, fields: &[&str]) -> Columns {
        let schema = format!(r#"{{"type":"record","name":"S","fields":[{}]}}"#, fields.join(","));
        Columns::parse(&schema, DatasetType::from_name(dataset_type)).unwrap()
    }

    fn check_file(dataset_type: &str, columns: &Columns, content: &[u8]) -> Result<u64, String> {
        check_files(dataset_type, columns, &[content])
    }

    fn check_files(dataset_type: &str, columns: &Columns, contents: &[&[u8]]) -> Result<u64, String> {
        let file = |content: &&[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(content).unwrap();
            file
        };
        let files: Vec<_> = contents.iter().map(file).collect();
        let paths: Vec<_> = files.iter().map(|file| file.path().to_owned()).collect();
        check(&paths, dataset_type, false, columns, &AtomicBool::new(false)).map_err(|error| match error {
            CheckError::Failed(reason) => reason,
            CheckError::Stopped => panic!("the check was stopped"),
        })
    }

    fn items(more: &[&str]) -> Columns {
        let base = [r#"{"name":"ITEM_ID","type":"string"}"#, r#"{"name":"PRICE","type":"float"}"#];
        columns("Items", &[&base, more].concat())
    }

    fn check_interactions(content: &[u8]) -> Result<u64, String> {
        let columns = Columns::parse(&minimal("Interactions"), Some(DatasetType::Interactions)).unwrap();
        check_file("Interactions", &columns, content)
    }

    fn rows(count: usize, row: &str) -> Vec<u8> {
        format!("{HEADER}\n{}", format!("{row}\n").repeat(count)).into_bytes()
    }

    #[test]
    fn fewer_than_thousand_interactions_fail() {
        assert_eq!(check_interactions(&rows(1000, "u,i,1700000000")), Ok(1000));
        assert!(check_interactions(&rows(999, "u,i,1700000000")).unwrap_err().contains("is 999."));
        assert!(check_interactions(HEADER.as_bytes()).unwrap_err().contains("is 0."));
    }

    #[test]
    fn fewer_than_thousand_action_interactions_fail_only_if_incremental() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"USER_ID,ACTION_ID,EVENT_TYPE,TIMESTAMP\nu,a,taken,1700000000\n").unwrap();
        let name = "Action_Interactions";
        let columns = Columns::parse(&minimal(name), DatasetType::from_name(name)).unwrap();
        let import =
            |incremental| check(&[file.path().to_owned()], name, incremental, &columns, &AtomicBool::new(false));
        assert_eq!(import(false), Ok(1));
        assert!(matches!(import(true), Err(CheckError::Failed(reason)) if reason.contains("is 1.")));
    }

    #[test]
    fn users_file_without_records_fails() {
        let users =
            columns("Users", &[r#"{"name":"USER_ID","type":"string"}"#, r#"{"name":"AGE","type":["null","int"]}"#]);
        assert_eq!(check_file("Users", &users, b"USER_ID,AGE\nu,\n"), Ok(1));
        assert!(check_file("Users", &users, b"USER_ID,AGE\n").unwrap_err().contains("no records"));
    }

    #[test]
    fn missing_columns_are_listed_and_extra_columns_are_ignored() {
        let reason = check_interactions(b"USER_ID,PRICE\nu,1\n").unwrap_err();
        let prefix =
            "Failed to create a data import job Interactions dataset...Input CSV is missing the following columns:";
        assert_eq!(reason, format!("{prefix}[ITEM_ID, TIMESTAMP]."));
        assert!(check_interactions(b"").unwrap_err().contains("[USER_ID, ITEM_ID, TIMESTAMP]"));
        let unusual = format!("\u{feff}TIMESTAMP,MORE,ITEM_ID, USER_ID\n{}", "1700000000,x,i,u\r\n".repeat(1000));
        assert_eq!(
            check_interactions(unusual.as_bytes()),
            Ok(1000),
            "column order, extra columns, BOM and CRLF are accepted"
        );
        assert!(
            check_interactions(b"USER_ID,ITEM_ID,TIMESTAMP,USER_ID\n").unwrap_err().contains("USER_ID more than once")
        );
    }

    #[test]
    fn timestamp_that_is_not_epoch_seconds_fails() {
        for stamp in ["1700000000000", "-1"] {
            assert!(
                check_interactions(&rows(1, &format!("u,i,{stamp}")))
                    .unwrap_err()
                    .contains("line 2 that is not in Unix epoch")
            );
        }
        assert!(check_interactions(&rows(1, "u,i,2023-11-14")).unwrap_err().contains("not of type long"));
        assert!(check_interactions(&rows(1, "u,i,1700000000.5")).unwrap_err().contains("not of type long"));
        assert!(check_interactions(&rows(1, "u,,1")).unwrap_err().contains("ITEM_ID has a null value in line 2"));
    }

    #[test]
    fn value_of_another_type_fails() {
        let field = |avro_type: &str| format!(r#"{{"name":"A","type":{avro_type}}}"#);
        let cases = [
            (r#""int""#, "2147483647", "2147483648"),
            (r#""long""#, "9223372036854775807", "1e3"),
            (r#""float""#, "-1.5e3", "1,5"),
            (r#""float""#, "3", "inf"),
            (r#""double""#, ".5", "half"),
            (r#""double""#, "0", "NaN"),
            (r#""boolean""#, "True", "1"),
            (r#"["null","string"]"#, "", "\u{0}"),
        ];
        for (avro_type, good, bad) in cases {
            let items = items(&[&field(avro_type)]);
            let csv = |value: &str| format!("ITEM_ID,PRICE,A\ni,1,\"{value}\"\n").into_bytes();
            assert_eq!(check_file("Items", &items, &csv(good)), Ok(1), "{avro_type} {good}");
            if avro_type != r#"["null","string"]"# {
                assert!(
                    check_file("Items", &items, &csv(bad)).unwrap_err().contains("not of type"),
                    "{avro_type} {bad}"
                );
            }
        }
    }

    #[test]
    fn invalid_values_in_reserved_columns_fail() {
        let fields = [
            r#"{"name":"USER_ID","type":"string"}"#,
            r#"{"name":"ITEM_ID","type":"string"}"#,
            r#"{"name":"TIMESTAMP","type":"long"}"#,
            r#"{"name":"EVENT_TYPE","type":"string"}"#,
            r#"{"name":"EVENT_VALUE","type":["float","null"]}"#,
            r#"{"name":"IMPRESSION","type":"string"}"#,
            r#"{"name":"RECOMMENDATION_ID","type":["string","null"]}"#,
        ];
        let interactions = columns("Interactions", &fields);
        let import = |row: &str| {
            let header = format!("{HEADER},EVENT_TYPE,EVENT_VALUE,IMPRESSION,RECOMMENDATION_ID\n");
            check_file("Interactions", &interactions, format!("{header}{}", format!("{row}\n").repeat(1000)).as_bytes())
        };
        assert_eq!(import("u,i,1,click,,a|b,"), Ok(1000));
        assert!(import("u,i,1,,,a,").unwrap_err().contains("EVENT_TYPE has a null"));
        assert!(import("u,i,1,click,much,a,").unwrap_err().contains("EVENT_VALUE has a value in line 2"));
        let long = |count| format!("u,i,1,click,,{},", "x".repeat(count));
        assert_eq!(import(&long(1000)), Ok(1000));
        assert_eq!(
            import(&long(1001)).unwrap_err(),
            "Length cannot be more than 1000 characters for IMPRESSION. If no values exceed the character limit, make \
             sure your data follows the formatting guidelines listed in \
             https://docs.aws.amazon.com/personalize/latest/dg/data-prep-formatting.html."
        );
        let items = items(&[r#"{"name":"CREATION_TIMESTAMP","type":"long"}"#]);
        let reason = check_file("Items", &items, b"ITEM_ID,PRICE,CREATION_TIMESTAMP\ni,1,1700000000000\n").unwrap_err();
        assert!(reason.contains("CREATION_TIMESTAMP has a value in line 2 that is not in Unix epoch seconds"));
    }

    #[test]
    fn value_length_is_limited_in_characters_not_bytes() {
        let id = |count| rows(1000, &format!("{},i,1", "ü".repeat(count)));
        assert_eq!(check_interactions(&id(256)), Ok(1000));
        assert!(
            check_interactions(&id(257))
                .unwrap_err()
                .starts_with("Length cannot be more than 256 characters for USER_ID.")
        );
    }

    #[test]
    fn quoted_text_with_escapes_and_of_any_length_is_accepted() {
        let items = items(&[r#"{"name":"TEXT","type":"string","textual":true}"#]);
        let import = |text: &str| check_file("Items", &items, format!("ITEM_ID,PRICE,TEXT\ni,1,{text}\n").as_bytes());
        assert_eq!(import(r#""a \"good\", cheap \\ small one""#), Ok(1));
        assert_eq!(import(r#""a ""good"", cheap one""#), Ok(1));
        assert_eq!(import(&format!("\"{}\"", "x".repeat(20_001))), Ok(1), "the service truncates it");
    }

    #[test]
    fn record_on_several_lines_fails() {
        let reason = check_interactions(&rows(1, "u,\"an\nitem\",1700000000")).unwrap_err();
        assert!(reason.ends_with("has a record in line 2 that is not on a single line."), "{reason}");
        assert!(check_interactions(&rows(1, "u,\"an\r\nitem\",1")).unwrap_err().contains("not on a single line"));
    }

    #[test]
    fn compressed_file_or_manifest_is_not_a_csv_file() {
        for bytes in [
            b"\x1f\x8b\x08\x00\"\n".as_slice(),
            b"PK\x03\x04\x00\"\n",
            b"{\"entries\": [{\"url\": \"s3://bucket/part-0\"}]}\n",
            b"[\"part-0\"]\n",
        ] {
            let reason = check_interactions(bytes).unwrap_err();
            assert!(reason.ends_with("is not a CSV file."), "{reason}");
        }
    }

    #[test]
    fn quoted_duplicate_or_differing_headers_fail() {
        let quoted = check_interactions(b"\"USER_ID\",ITEM_ID,TIMESTAMP\nu,i,1\n").unwrap_err();
        assert!(quoted.ends_with("has column headers that are enclosed in quotation marks."), "{quoted}");
        let duplicate = check_interactions(b"USER_ID,ITEM_ID,TIMESTAMP,GENRES_FIELD_1,GENRESFIELD1\n").unwrap_err();
        assert!(duplicate.contains("GENRES_FIELD_1 more than once, the second time as GENRESFIELD1"), "{duplicate}");
        let items = items(&[]);
        let both = |second: &[u8]| check_files("Items", &items, &[b"ITEM_ID,PRICE,NOTE\na,1,x\n", second]);
        assert_eq!(both(b"ITEM_ID,PRICE,NOTE\nb,2,\n"), Ok(2));
        assert!(both(b"ITEM_ID,PRICE\nb,2\n").unwrap_err().ends_with("other column headers than the files before it."));
    }

    #[test]
    fn check_stops_at_the_next_record_on_shutdown() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"USER_ID,ITEM_ID,TIMESTAMP\nu,i,1\nu,i,never read\n").unwrap();
        let columns = Columns::parse(&minimal("Interactions"), Some(DatasetType::Interactions)).unwrap();
        let files = [file.path().to_owned()];
        assert_eq!(check(&files, "Interactions", false, &columns, &AtomicBool::new(true)), Err(CheckError::Stopped));
    }

    #[test]
    fn uneven_rows_other_encodings_and_unclosed_quotes_fail() {
        assert!(check_interactions(&rows(1, "u,i,1,more")).unwrap_err().contains("4 fields in line 2"));
        assert!(check_interactions(b"USER_ID,ITEM_ID,TIMESTAMP\n\xe9,i,1\n").unwrap_err().contains("UTF-8 in line 2"));
        let unclosed = format!("\"{}", "x,".repeat(MAX_RECORD_BYTES as usize));
        assert!(check_interactions(&rows(1, &unclosed)).unwrap_err().contains("quotation mark"));
    }
}
