//! Reads the data of an import, a record at a time, and says why the service would not take it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use csv::StringRecord;

use crate::schema::{Column, Columns, Kind, ValueType, alphanumeric};

/// Fewest interactions per import (documented quota). Of action interactions only INCREMENTAL needs so many.
const LEAST_INTERACTIONS: u64 = 1000;
/// Later epoch seconds than this are milliseconds (the year 5138).
const LATEST_SECOND: i64 = 99_999_999_999;
/// What a failureReason about lengths points to.
const GUIDELINES: &str = "https://docs.aws.amazon.com/personalize/latest/dg/data-prep-formatting.html";
/// No record is longer: a quotation mark that is never closed must not pull the rest of the file into memory.
const LONGEST_RECORD: u64 = 1 << 20;

/// Why data is not taken over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The import fails with this failureReason.
    Failed(String),
    /// The stand-in stops; nothing is said about the data.
    Stopped,
}

impl From<String> for Ended {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Checks the files of an import against a dataset's columns; gives the number of records. `stopping` ends it at the
/// next record.
pub(crate) fn check(
    files: &[PathBuf],
    kind: &str,
    incremental: bool,
    columns: &Columns,
    stopping: &AtomicBool,
) -> Result<u64, Ended> {
    let (mut records, mut header) = (0, None);
    for path in files {
        let (names, mut file) = CsvFile::open(path, kind, columns)?;
        let first = header.get_or_insert_with(|| names.clone());
        if *first != names {
            let name = &file.name;
            return Err(format!("Input csv {name} has other column headers than the files before it.").into());
        }
        while file.next(columns)? {
            records += 1;
            if stopping.load(Ordering::Relaxed) {
                return Err(Ended::Stopped);
            }
        }
    }
    let counted = match Kind::of(kind) {
        Some(Kind::Interactions) => true,
        Some(Kind::ActionInteractions) => incremental,
        _ => false,
    };
    if counted && records < LEAST_INTERACTIONS {
        return Err(Ended::Failed(format!(
            "Failed to create a data import job for {kind} dataset. The number of interaction records is {records}. \
             The minimum number of interaction records required is {LEAST_INTERACTIONS}."
        )));
    }
    if records == 0 {
        let reason = format!("Failed to create a data import job for {kind} dataset. Input csv has no records.");
        return Err(reason.into());
    }
    Ok(records)
}

/// A file of which so many more bytes may be read.
struct Rationed {
    file: File,
    left: u64,
}

impl Read for Rationed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let read = self.file.read(buffer)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

/// A file whose header is known to be good.
struct CsvFile {
    name: String,
    reader: csv::Reader<io::Chain<Cursor<Vec<u8>>, BufReader<Rationed>>>,
    /// Where in a record each column of the schema is.
    places: Vec<usize>,
    record: StringRecord,
}

impl CsvFile {
    /// Opens a file, and gives the names in its header.
    fn open(path: &Path, kind: &str, columns: &Columns) -> Result<(Vec<String>, Self), String> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let failed = |error: io::Error| reading(&name, &error.into());
        let mut file = BufReader::new(Rationed { file: File::open(path).map_err(failed)?, left: LONGEST_RECORD });
        // The header is looked at as it is written: a CSV reader would take its quotation marks away.
        let mut header = Vec::new();
        file.read_until(b'\n', &mut header).map_err(failed)?;
        if header.contains(&b'"') {
            return Err(format!("Input csv {name} has column headers that are enclosed in quotation marks."));
        }
        let mut reader = csv::ReaderBuilder::new();
        let mut reader = reader.escape(Some(b'\\')).from_reader(Cursor::new(header).chain(file));
        let header = reader.headers().map_err(|error| reading(&name, &error))?;
        // A byte order mark is not part of the first name.
        let names: Vec<String> =
            header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
        let places = places(&names, kind, columns)?;
        Ok((names, Self { name, reader, places, record: StringRecord::new() }))
    }

    /// Reads and checks a record; `false` at the end.
    fn next(&mut self, columns: &Columns) -> Result<bool, String> {
        let Self { name, reader, places, record } = self;
        reader.get_mut().get_mut().1.get_mut().left = LONGEST_RECORD;
        if !reader.read_record(record).map_err(|error| reading(name, &error))? {
            return Ok(false);
        }
        let line = record.position().map_or(0, csv::Position::line);
        // Two searches for one character each: those are fast, also where nothing is optimised.
        if record.as_slice().contains('\n') || record.as_slice().contains('\r') {
            return Err(format!("Input csv {name} has a record in line {line} that is not on a single line."));
        }
        for (column, place) in columns.0.iter().zip(places) {
            value(record.get(*place).unwrap_or_default(), column, line)?;
        }
        Ok(true)
    }
}

fn reading(name: &str, error: &csv::Error) -> String {
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
                "Input csv {name} has a record of more than {LONGEST_RECORD} bytes. Is a quotation mark not closed?"
            )
        }
        _ => format!("Input csv {name} can't be parsed."),
    }
}

/// Where in a record each column of the schema is. Columns that the schema lacks are ignored.
fn places(names: &[String], kind: &str, columns: &Columns) -> Result<Vec<usize>, String> {
    for (place, name) in names.iter().enumerate() {
        if let Some(other) = names[..place].iter().find(|other| alphanumeric(other) == alphanumeric(name)) {
            return Err(format!("Input csv has the column {other} more than once, the second time as {name}."));
        }
    }
    let (mut missing, mut places) = (Vec::new(), Vec::new());
    for column in &columns.0 {
        match names.iter().position(|name| *name == column.name) {
            Some(place) => places.push(place),
            None => missing.push(column.name.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(places);
    }
    Err(format!(
        "Failed to create a data import job {kind} dataset...Input CSV is missing the following columns:[{}].",
        missing.join(", ")
    ))
}

fn value(text: &str, column: &Column, line: u64) -> Result<(), String> {
    let name = &column.name;
    if text.is_empty() {
        return if column.nullable { Ok(()) } else { Err(format!("Column {name} has a null value in line {line}.")) };
    }
    let parses = match column.value_type {
        // Infinity and "not a number" parse, but are no numbers.
        ValueType::Float | ValueType::Double => text.parse::<f64>().is_ok_and(f64::is_finite),
        ValueType::Int => text.parse::<i32>().is_ok(),
        ValueType::Long => text.parse::<i64>().is_ok(),
        ValueType::Boolean => text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false"),
        ValueType::Text => true,
    };
    if !parses {
        let wanted = format!("{:?}", column.value_type).to_lowercase();
        return Err(format!("Column {name} has a value in line {line} that is not of type {wanted}."));
    }
    if column.is_time() && !text.parse::<i64>().is_ok_and(|second| (0..=LATEST_SECOND).contains(&second)) {
        return Err(format!("Column {name} has a value in line {line} that is not in Unix epoch seconds."));
    }
    match column.longest() {
        // Bytes are never fewer than characters, and quicker to count.
        Some(longest) if text.len() > longest && text.chars().count() > longest => Err(format!(
            "Length cannot be more than {longest} characters for {name}. If no values exceed the character limit, make \
             sure your data follows the formatting guidelines listed in {GUIDELINES}."
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, LONGEST_RECORD, check};
    use crate::schema::{Columns, Kind, minimal};
    use std::{io::Write, sync::atomic::AtomicBool};

    const HEADER: &str = "USER_ID,ITEM_ID,TIMESTAMP";

    fn columns(kind: &str, fields: &[&str]) -> Columns {
        let schema = format!(r#"{{"type":"record","name":"S","fields":[{}]}}"#, fields.join(","));
        Columns::parse(&schema, Kind::of(kind)).unwrap()
    }

    fn verdict_on(kind: &str, columns: &Columns, content: &[u8]) -> Result<u64, String> {
        verdict_on_files(kind, columns, &[content])
    }

    fn verdict_on_files(kind: &str, columns: &Columns, contents: &[&[u8]]) -> Result<u64, String> {
        let file = |content: &&[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(content).unwrap();
            file
        };
        let files: Vec<_> = contents.iter().map(file).collect();
        let paths: Vec<_> = files.iter().map(|file| file.path().to_owned()).collect();
        check(&paths, kind, false, columns, &AtomicBool::new(false)).map_err(|ended| match ended {
            Ended::Failed(reason) => reason,
            Ended::Stopped => panic!("nobody stops it"),
        })
    }

    fn items(more: &[&str]) -> Columns {
        let own = [r#"{"name":"ITEM_ID","type":"string"}"#, r#"{"name":"PRICE","type":"float"}"#];
        columns("Items", &[&own, more].concat())
    }

    fn verdict(content: &[u8]) -> Result<u64, String> {
        verdict_on(
            "Interactions",
            &Columns::parse(&minimal("Interactions"), Some(Kind::Interactions)).unwrap(),
            content,
        )
    }

    fn rows(count: usize, row: &str) -> Vec<u8> {
        format!("{HEADER}\n{}", format!("{row}\n").repeat(count)).into_bytes()
    }

    #[test]
    fn a_thousand_interactions_are_enough() {
        assert_eq!(verdict(&rows(1000, "u,i,1700000000")), Ok(1000));
        assert!(verdict(&rows(999, "u,i,1700000000")).unwrap_err().contains("is 999."));
        assert!(verdict(HEADER.as_bytes()).unwrap_err().contains("is 0."));
    }

    #[test]
    fn a_thousand_new_action_interactions_are_needed_but_few_to_begin_with() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"USER_ID,ACTION_ID,EVENT_TYPE,TIMESTAMP\nu,a,taken,1700000000\n").unwrap();
        let kind = "Action_Interactions";
        let columns = Columns::parse(&minimal(kind), Kind::of(kind)).unwrap();
        let import =
            |incremental| check(&[file.path().to_owned()], kind, incremental, &columns, &AtomicBool::new(false));
        assert_eq!(import(false), Ok(1));
        assert!(matches!(import(true), Err(Ended::Failed(reason)) if reason.contains("is 1.")));
    }

    #[test]
    fn one_user_is_enough_but_none_is_not() {
        let users =
            columns("Users", &[r#"{"name":"USER_ID","type":"string"}"#, r#"{"name":"AGE","type":["null","int"]}"#]);
        assert_eq!(verdict_on("Users", &users, b"USER_ID,AGE\nu,\n"), Ok(1));
        assert!(verdict_on("Users", &users, b"USER_ID,AGE\n").unwrap_err().contains("no records"));
    }

    #[test]
    fn missing_columns_are_listed_in_the_services_words_and_others_are_ignored() {
        let reason = verdict(b"USER_ID,PRICE\nu,1\n").unwrap_err();
        let words =
            "Failed to create a data import job Interactions dataset...Input CSV is missing the following columns:";
        assert_eq!(reason, format!("{words}[ITEM_ID, TIMESTAMP]."));
        assert!(verdict(b"").unwrap_err().contains("[USER_ID, ITEM_ID, TIMESTAMP]"));
        let other = format!("\u{feff}TIMESTAMP,MORE,ITEM_ID, USER_ID\n{}", "1700000000,x,i,u\r\n".repeat(1000));
        assert_eq!(verdict(other.as_bytes()), Ok(1000), "order, more columns, a byte order mark and CRLF are fine");
        assert!(verdict(b"USER_ID,ITEM_ID,TIMESTAMP,USER_ID\n").unwrap_err().contains("USER_ID more than once"));
    }

    #[test]
    fn milliseconds_words_and_nothing_are_not_epoch_seconds() {
        for stamp in ["1700000000000", "-1"] {
            assert!(
                verdict(&rows(1, &format!("u,i,{stamp}"))).unwrap_err().contains("line 2 that is not in Unix epoch")
            );
        }
        assert!(verdict(&rows(1, "u,i,2023-11-14")).unwrap_err().contains("not of type long"));
        assert!(verdict(&rows(1, "u,i,1700000000.5")).unwrap_err().contains("not of type long"));
        assert!(verdict(&rows(1, "u,,1")).unwrap_err().contains("ITEM_ID has a null value in line 2"));
    }

    #[test]
    fn each_type_takes_its_own_values_only() {
        let field = |kind: &str| format!(r#"{{"name":"A","type":{kind}}}"#);
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
        for (kind, good, bad) in cases {
            let items = items(&[&field(kind)]);
            let csv = |value: &str| format!("ITEM_ID,PRICE,A\ni,1,\"{value}\"\n").into_bytes();
            assert_eq!(verdict_on("Items", &items, &csv(good)), Ok(1), "{kind} {good}");
            if kind != r#"["null","string"]"# {
                assert!(verdict_on("Items", &items, &csv(bad)).unwrap_err().contains("not of type"), "{kind} {bad}");
            }
        }
    }

    #[test]
    fn reserved_columns_have_rules_of_their_own() {
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
        let read = |row: &str| {
            let header = format!("{HEADER},EVENT_TYPE,EVENT_VALUE,IMPRESSION,RECOMMENDATION_ID\n");
            verdict_on("Interactions", &interactions, format!("{header}{}", format!("{row}\n").repeat(1000)).as_bytes())
        };
        assert_eq!(read("u,i,1,click,,a|b,"), Ok(1000));
        assert!(read("u,i,1,,,a,").unwrap_err().contains("EVENT_TYPE has a null"));
        assert!(read("u,i,1,click,much,a,").unwrap_err().contains("EVENT_VALUE has a value in line 2"));
        let long = |count| format!("u,i,1,click,,{},", "x".repeat(count));
        assert_eq!(read(&long(1000)), Ok(1000));
        assert_eq!(
            read(&long(1001)).unwrap_err(),
            "Length cannot be more than 1000 characters for IMPRESSION. If no values exceed the character limit, make \
             sure your data follows the formatting guidelines listed in \
             https://docs.aws.amazon.com/personalize/latest/dg/data-prep-formatting.html."
        );
        let items = items(&[r#"{"name":"CREATION_TIMESTAMP","type":"long"}"#]);
        let made = verdict_on("Items", &items, b"ITEM_ID,PRICE,CREATION_TIMESTAMP\ni,1,1700000000000\n").unwrap_err();
        assert!(made.contains("CREATION_TIMESTAMP has a value in line 2 that is not in Unix epoch seconds"));
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let id = |count| rows(1000, &format!("{},i,1", "ü".repeat(count)));
        assert_eq!(verdict(&id(256)), Ok(1000));
        assert!(verdict(&id(257)).unwrap_err().starts_with("Length cannot be more than 256 characters for USER_ID."));
    }

    #[test]
    fn text_is_quoted_with_backslashes_or_doubled_quotes_and_may_be_of_any_length() {
        let items = items(&[r#"{"name":"TEXT","type":"string","textual":true}"#]);
        let read = |text: &str| verdict_on("Items", &items, format!("ITEM_ID,PRICE,TEXT\ni,1,{text}\n").as_bytes());
        assert_eq!(read(r#""a \"good\", cheap \\ small one""#), Ok(1));
        assert_eq!(read(r#""a ""good"", cheap one""#), Ok(1));
        assert_eq!(read(&format!("\"{}\"", "x".repeat(20_001))), Ok(1), "the service truncates it");
    }

    #[test]
    fn a_record_is_on_a_single_line() {
        let reason = verdict(&rows(1, "u,\"an\nitem\",1700000000")).unwrap_err();
        assert!(reason.ends_with("has a record in line 2 that is not on a single line."), "{reason}");
        assert!(verdict(&rows(1, "u,\"an\r\nitem\",1")).unwrap_err().contains("not on a single line"));
    }

    #[test]
    fn headers_are_plain_unique_and_the_same_in_all_files() {
        let quoted = verdict(b"\"USER_ID\",ITEM_ID,TIMESTAMP\nu,i,1\n").unwrap_err();
        assert!(quoted.ends_with("has column headers that are enclosed in quotation marks."), "{quoted}");
        let twice = verdict(b"USER_ID,ITEM_ID,TIMESTAMP,GENRES_FIELD_1,GENRESFIELD1\n").unwrap_err();
        assert!(twice.contains("GENRES_FIELD_1 more than once, the second time as GENRESFIELD1"), "{twice}");
        let items = items(&[]);
        let both = |second: &[u8]| verdict_on_files("Items", &items, &[b"ITEM_ID,PRICE,NOTE\na,1,x\n", second]);
        assert_eq!(both(b"ITEM_ID,PRICE,NOTE\nb,2,\n"), Ok(2));
        assert!(both(b"ITEM_ID,PRICE\nb,2\n").unwrap_err().ends_with("other column headers than the files before it."));
    }

    #[test]
    fn whoever_stops_is_not_held_up_by_the_data() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"USER_ID,ITEM_ID,TIMESTAMP\nu,i,1\nu,i,never looked at\n").unwrap();
        let columns = Columns::parse(&minimal("Interactions"), Some(Kind::Interactions)).unwrap();
        let files = [file.path().to_owned()];
        assert_eq!(check(&files, "Interactions", false, &columns, &AtomicBool::new(true)), Err(Ended::Stopped));
    }

    #[test]
    fn odd_rows_other_encodings_and_endless_records_fail() {
        assert!(verdict(&rows(1, "u,i,1,more")).unwrap_err().contains("4 fields in line 2"));
        assert!(verdict(b"USER_ID,ITEM_ID,TIMESTAMP\n\xe9,i,1\n").unwrap_err().contains("UTF-8 in line 2"));
        let endless = format!("\"{}", "x,".repeat(LONGEST_RECORD as usize));
        assert!(verdict(&rows(1, &endless)).unwrap_err().contains("quotation mark"));
    }
}
