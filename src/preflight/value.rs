//! Whether a value is what its field expects.

use super::finding::{Finding, shape};
use super::schema::{DatasetType, Field, Kind};
use crate::api::plural;

/// The most characters of an ID.
const MAX_ID: usize = 256;

/// The most characters of a category, of a list of impressions and of a string in Items.
const MAX_TEXT: usize = 1000;

/// The year 5138 in seconds, 1973 in milliseconds.
const MAX_SECONDS: i64 = 100_000_000_000;

/// What is wrong with a value, if anything is.
pub(super) fn check(field: &Field, dataset_type: DatasetType, value: &str) -> Option<Finding> {
    if value.is_empty() {
        let expected = format!("a value: the schema allows no null ({})", field.kind);
        return (!field.nullable).then(|| Finding::new("MissingValue", expected, "nothing"));
    }
    match field.kind {
        Kind::String => check_text(field, dataset_type, value),
        _ if field.is_time() => check_time(value),
        kind => {
            let expected = match kind {
                Kind::Int if value.parse::<i32>().is_err() => "a whole number of 32 bits (int)",
                Kind::Long if value.parse::<i64>().is_err() => "a whole number of 64 bits (long)",
                Kind::Float if !value.parse::<f32>().is_ok_and(f32::is_finite) => {
                    "a number with a decimal point (float)"
                }
                Kind::Double if !value.parse::<f64>().is_ok_and(f64::is_finite) => {
                    "a number with a decimal point (double)"
                }
                Kind::Boolean if !matches!(value, "true" | "false") => "true or false in lower case (boolean)",
                _ => return None,
            };
            Some(Finding::new("WrongType", expected, shape(value)))
        }
    }
}

fn check_time(value: &str) -> Option<Finding> {
    let expected = "seconds since 1970 (long)";
    let Ok(seconds) = value.parse::<i64>() else {
        return Some(Finding::new("WrongType", expected, shape(value)));
    };
    let found = if seconds >= MAX_SECONDS {
        match value.len() {
            12 | 13 => format!("{}, like milliseconds", shape(value)),
            15 | 16 => format!("{}, like microseconds", shape(value)),
            _ => shape(value),
        }
    } else if seconds < 0 {
        shape(value)
    } else if is_calendar_date(seconds) {
        format!("{}, like a date", shape(value))
    } else {
        return None;
    };
    Some(Finding::new("NotSeconds", expected, found))
}

/// Whether a number reads as a day from 1970 to 2099, such as 20240131. As seconds it would be in 1970.
fn is_calendar_date(number: i64) -> bool {
    let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
    (1970..2100).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day)
}

fn check_text(field: &Field, dataset_type: DatasetType, value: &str) -> Option<Finding> {
    let too_long = |max: usize, text: &str| {
        let count = text.chars().count();
        let expected = format!("at most {max} characters");
        (count > max).then(|| Finding::new("TooLong", expected, format!("text of {}", plural(count, "character"))))
    };
    if dataset_type.keywords().any(|keyword| keyword == value) {
        return Some(Finding::new("ReservedKeyword", "a value that is no reserved keyword", "a reserved keyword"));
    }
    let action_events = ["Taken", "Not taken", "Viewed"];
    if dataset_type == DatasetType::ActionInteractions
        && field.name == "EVENT_TYPE"
        && !action_events.iter().any(|event| event.eq_ignore_ascii_case(value))
    {
        return Some(Finding::new("WrongEventType", "one of Taken, Not taken and Viewed", shape(value)));
    }
    if field.is_id() {
        if value.trim().is_empty() {
            return Some(Finding::new("MissingValue", "an ID", shape(value)));
        }
        if value.chars().any(|c| c == '"' || c.is_control()) {
            let found = "a quotation mark or a control character in it";
            return Some(Finding::new("SpecialCharacter", "an ID without special characters", found));
        }
        return too_long(MAX_ID, value);
    }
    if field.categorical {
        if let Some(finding) = value.split('|').find_map(|category| too_long(MAX_TEXT, category)) {
            return Some(finding);
        }
        let has_gap = value.split('|').any(|category| category.trim().is_empty());
        let warning = || Finding::new("EmptyCategory", "a category between each two |", "nothing").warning();
        return has_gap.then(warning);
    }
    if field.name == "IMPRESSION" || dataset_type == DatasetType::Items && !field.textual {
        return too_long(MAX_TEXT, value);
    }
    None
}
