//! Reads the data of an import, a record at a time, and says why the service would not take it.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use csv::StringRecord;

use crate::schema::{Column, Columns, Kind, ValueType};

/// Fewest interactions per import (documented quota).
const LEAST_INTERACTIONS: u64 = 1000;
/// Later epoch seconds than this are milliseconds (the year 5138).
const LATEST_SECOND: i64 = 99_999_999_999;
/// No record is longer: a quotation mark that is never closed must not pull the rest of the file into memory.
const LONGEST_RECORD: u64 = 1 << 20;

/// Checks the files of an import against a dataset's columns; gives the number of records, or the failureReason.
pub(crate) fn check(files: &[PathBuf], kind: &str, columns: &Columns) -> Result<u64, String> {
    let mut records = 0;
    for file in files {
        records += one(file, columns)?;
    }
    if Kind::of(kind) == Some(Kind::Interactions) && records < LEAST_INTERACTIONS {
        return Err(format!(
            "Failed to create a data import job for {kind} dataset. The number of interaction records is {records}. \
             The minimum number of interaction records required is {LEAST_INTERACTIONS}."
        ));
    }
    if records == 0 {
        return Err(format!("Failed to create a data import job for {kind} dataset. Input csv has no records."));
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

fn one(path: &Path, columns: &Columns) -> Result<u64, String> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file = File::open(path).map_err(|error| reading(&name, &error.into()))?;
    let mut reader = csv::Reader::from_reader(Rationed { file, left: LONGEST_RECORD });
    let header = reader.headers().map_err(|error| reading(&name, &error))?;
    let places = places(header, columns)?;
    let mut record = StringRecord::new();
    let mut count = 0;
    loop {
        reader.get_mut().left = LONGEST_RECORD;
        if !reader.read_record(&mut record).map_err(|error| reading(&name, &error))? {
            return Ok(count);
        }
        count += 1;
        let line = record.position().map_or(0, csv::Position::line);
        for (column, place) in columns.0.iter().zip(&places) {
            value(record.get(*place).unwrap_or_default(), column, line)?;
        }
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
fn places(header: &StringRecord, columns: &Columns) -> Result<Vec<usize>, String> {
    let mut missing = Vec::new();
    let mut places = Vec::new();
    for column in &columns.0 {
        // A byte order mark is not part of the first name.
        let mut found =
            header.iter().enumerate().filter(|(_, name)| name.trim_start_matches('\u{feff}').trim() == column.name);
        match (found.next(), found.next()) {
            (Some((place, _)), None) => places.push(place),
            (Some(_), Some(_)) => return Err(format!("Input csv has the column {} more than once.", column.name)),
            (None, _) => missing.push(column.name.as_str()),
        }
    }
    if missing.is_empty() {
        Ok(places)
    } else {
        Err(format!("Input csv is missing the following columns: [{}]", missing.join(", ")))
    }
}

fn value(text: &str, column: &Column, line: u64) -> Result<(), String> {
    let name = &column.name;
    if text.is_empty() {
        return if column.nullable { Ok(()) } else { Err(format!("Column {name} has a null value in line {line}.")) };
    }
    let parses = match column.value_type {
        ValueType::Float => text.parse::<f64>().is_ok(),
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
        Some(longest) if text.len() > longest && text.chars().count() > longest => {
            Err(format!("Length cannot be more than {longest} characters for {name}. Line {line} has more."))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_RECORD, check};
    use crate::schema::{Columns, Kind, minimal};
    use std::io::Write;

    const HEADER: &str = "USER_ID,ITEM_ID,TIMESTAMP";

    fn columns(kind: &str, fields: &[&str]) -> Columns {
        let schema = format!(r#"{{"type":"record","name":"S","fields":[{}]}}"#, fields.join(","));
        Columns::parse(&schema, Kind::of(kind)).unwrap()
    }

    fn verdict_on(kind: &str, columns: &Columns, content: &[u8]) -> Result<u64, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        check(&[file.path().to_owned()], kind, columns)
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
    fn one_user_is_enough_but_none_is_not() {
        let users =
            columns("Users", &[r#"{"name":"USER_ID","type":"string"}"#, r#"{"name":"AGE","type":["null","int"]}"#]);
        assert_eq!(verdict_on("Users", &users, b"USER_ID,AGE\nu,\n"), Ok(1));
        assert!(verdict_on("Users", &users, b"USER_ID,AGE\n").unwrap_err().contains("no records"));
    }

    #[test]
    fn missing_columns_are_listed_in_the_services_words_and_others_are_ignored() {
        let reason = verdict(b"USER_ID,PRICE\nu,1\n").unwrap_err();
        assert_eq!(reason, "Input csv is missing the following columns: [ITEM_ID, TIMESTAMP]");
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
            (r#""double""#, ".5", "half"),
            (r#""boolean""#, "True", "1"),
            (r#"["null","string"]"#, "", "\u{0}"),
        ];
        for (kind, good, bad) in cases {
            let items = columns("Items", &[r#"{"name":"ITEM_ID","type":"string"}"#, &field(kind)]);
            let csv = |value: &str| format!("ITEM_ID,A\ni,\"{value}\"\n").into_bytes();
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
        assert!(
            read(&long(1001)).unwrap_err().starts_with("Length cannot be more than 1000 characters for IMPRESSION.")
        );
        let items = columns(
            "Items",
            &[
                r#"{"name":"ITEM_ID","type":"string"}"#,
                r#"{"name":"A","type":"int"}"#,
                r#"{"name":"CREATION_TIMESTAMP","type":"long"}"#,
            ],
        );
        let made = verdict_on("Items", &items, b"ITEM_ID,A,CREATION_TIMESTAMP\ni,1,1700000000000\n").unwrap_err();
        assert!(made.contains("CREATION_TIMESTAMP has a value in line 2 that is not in Unix epoch seconds"));
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let id = |count| rows(1000, &format!("{},i,1", "ü".repeat(count)));
        assert_eq!(verdict(&id(256)), Ok(1000));
        assert!(verdict(&id(257)).unwrap_err().starts_with("Length cannot be more than 256 characters for USER_ID."));
    }

    #[test]
    fn odd_rows_other_encodings_and_endless_records_fail() {
        assert!(verdict(&rows(1, "u,i,1,more")).unwrap_err().contains("4 fields in line 2"));
        assert!(verdict(b"USER_ID,ITEM_ID,TIMESTAMP\n\xe9,i,1\n").unwrap_err().contains("UTF-8 in line 2"));
        let endless = format!("\"{}", "x,".repeat(LONGEST_RECORD as usize));
        assert!(verdict(&rows(1, &endless)).unwrap_err().contains("quotation mark"));
    }
}
