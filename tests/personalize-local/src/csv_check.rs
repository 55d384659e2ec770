//! Reads the data of an import, a record at a time, and says why the service would not take it.

use std::path::{Path, PathBuf};

use csv::StringRecord;

use crate::schema::{Column, Columns, ValueType};

/// Fewest interactions per import (documented quota).
const LEAST_INTERACTIONS: u64 = 1000;
/// Most characters of a categorical value and of an ID.
const LONGEST_VALUE: usize = 1000;
const LONGEST_ID: usize = 256;
/// Later epoch seconds than this are milliseconds (the year 5138).
const LATEST_SECOND: i64 = 99_999_999_999;

/// Checks the files of an import against a dataset's columns; the error is the failureReason.
pub(crate) fn check(files: &[PathBuf], kind: &str, columns: &Columns) -> Result<(), String> {
    let interactions = kind.eq_ignore_ascii_case("interactions");
    let mut records = 0;
    for file in files {
        records += one(file, interactions, columns)?;
    }
    if interactions && records < LEAST_INTERACTIONS {
        return Err(format!(
            "Failed to create a data import job for {kind} dataset. The number of interaction records is {records}. \
             The minimum number of interaction records required is {LEAST_INTERACTIONS}."
        ));
    }
    if records == 0 {
        return Err(format!("Failed to create a data import job for {kind} dataset. Input csv has no records."));
    }
    Ok(())
}

fn one(file: &Path, interactions: bool, columns: &Columns) -> Result<u64, String> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut reader = csv::Reader::from_path(file).map_err(|error| reading(&name, &error))?;
    let header = reader.headers().map_err(|error| reading(&name, &error))?;
    let places = places(header, columns)?;
    let mut record = StringRecord::new();
    let mut count = 0;
    while reader.read_record(&mut record).map_err(|error| reading(&name, &error))? {
        count += 1;
        for (column, place) in columns.0.iter().zip(&places) {
            value(record.get(*place).unwrap_or_default(), column, interactions, count + 1)?;
        }
    }
    Ok(count)
}

fn reading(name: &str, error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => format!("Input csv {name} is not encoded in UTF-8."),
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("Input csv {name} has {len} fields in line {line}, expected {expected_len}.")
        }
        _ => format!("Input csv {name} can't be parsed."),
    }
}

fn places(header: &StringRecord, columns: &Columns) -> Result<Vec<usize>, String> {
    let mut missing = Vec::new();
    let mut places = Vec::new();
    for column in &columns.0 {
        // A byte order mark is not part of the first name.
        match header.iter().position(|name| name.trim_start_matches('\u{feff}').trim() == column.name) {
            Some(place) => places.push(place),
            None => missing.push(column.name.as_str()),
        }
    }
    if missing.is_empty() {
        Ok(places)
    } else {
        Err(format!("Input csv is missing the following columns: [{}]", missing.join(", ")))
    }
}

fn value(text: &str, column: &Column, interactions: bool, line: u64) -> Result<(), String> {
    let name = &column.name;
    let id = matches!(name.as_str(), "USER_ID" | "ITEM_ID" | "ACTION_ID");
    if text.is_empty() {
        return if column.nullable { Ok(()) } else { Err(format!("Column {name} has a null value in line {line}.")) };
    }
    let parses = match column.value_type {
        ValueType::Float => text.parse::<f64>().is_ok(),
        ValueType::Int => text.parse::<i32>().is_ok(),
        ValueType::Long => text.parse::<i64>().is_ok(),
        ValueType::Boolean => text.parse::<bool>().is_ok() || text.eq_ignore_ascii_case("true"),
        ValueType::Text => true,
    };
    if !parses {
        let wanted = format!("{:?}", column.value_type).to_lowercase();
        return Err(format!("Column {name} has a value in line {line} that is not of type {wanted}."));
    }
    if interactions && name == "TIMESTAMP" {
        let second = text.parse::<i64>().unwrap_or_default();
        if !(0..=LATEST_SECOND).contains(&second) {
            return Err(format!("Column TIMESTAMP has a value in line {line} that is not in Unix epoch seconds."));
        }
    }
    let limit = if id { Some(LONGEST_ID) } else { column.categorical.then_some(LONGEST_VALUE) };
    let longest = text.split('|').map(|part| part.chars().count()).max().unwrap_or_default();
    match limit {
        Some(limit) if longest > limit => {
            Err(format!("Length cannot be more than {limit} characters for {name}. Line {line} has {longest}."))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::schema::{Columns, minimal};

    fn verdict(test: &str, content: &[u8]) -> Result<(), String> {
        let path = std::env::temp_dir().join(format!("personalize-local-{}-{test}.csv", std::process::id()));
        std::fs::write(&path, content).unwrap();
        let verdict =
            check(std::slice::from_ref(&path), "Interactions", &Columns::parse(&minimal("Interactions")).unwrap());
        std::fs::remove_file(path).unwrap();
        verdict
    }

    fn rows(count: usize, row: &str) -> Vec<u8> {
        format!("USER_ID,ITEM_ID,TIMESTAMP\n{}", format!("{row}\n").repeat(count)).into_bytes()
    }

    #[test]
    fn a_thousand_interactions_are_enough() {
        assert_eq!(verdict("enough", &rows(1000, "u,i,1700000000")), Ok(()));
        assert!(verdict("few", &rows(999, "u,i,1700000000")).unwrap_err().contains("is 999."));
    }

    #[test]
    fn missing_columns_are_listed_in_the_services_words() {
        let reason = verdict("columns", b"USER_ID,TIMESTAMP\nu,1\n").unwrap_err();
        assert_eq!(reason, "Input csv is missing the following columns: [ITEM_ID]");
    }

    #[test]
    fn milliseconds_words_and_nothing_are_not_epoch_seconds() {
        assert!(verdict("ms", &rows(1, "u,i,1700000000000")).unwrap_err().contains("epoch seconds"));
        assert!(verdict("word", &rows(1, "u,i,today")).unwrap_err().contains("type long"));
        assert!(verdict("null", &rows(1, "u,,1")).unwrap_err().contains("ITEM_ID has a null"));
    }

    #[test]
    fn long_ids_odd_rows_and_other_encodings_fail() {
        let long = format!("{},i,1", "u".repeat(257));
        assert!(verdict("long", &rows(1, &long)).unwrap_err().starts_with("Length cannot be more than 256"));
        assert!(verdict("odd", &rows(1, "u,i,1,more")).unwrap_err().contains("4 fields in line 2"));
        assert!(verdict("latin", b"USER_ID,ITEM_ID,TIMESTAMP\n\xe9,i,1\n").unwrap_err().contains("UTF-8"));
    }
}
