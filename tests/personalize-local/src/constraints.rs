//! Checks a request against the model's constraints, with the messages that AWS JSON services give.

use std::{collections::HashMap, fmt, sync::LazyLock};

use regex::Regex;
use serde_json::Value;

use crate::model::{Kind, Member, OPERATIONS};

/// A broken constraint. Displayed, it is the service's sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    value: Option<String>,
    path: String,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "Value '{value}' at '{}'", self.path)?,
            None => write!(f, "Value null at '{}'", self.path)?,
        }
        write!(f, " failed to satisfy constraint: Member must {}", self.rule)
    }
}

/// A member that can't be read at all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrongType(pub(crate) String);

/// Checks a request body. The first error of type ends it; broken constraints are all collected.
pub(crate) fn check(input: &[Member], body: &Value) -> Result<Vec<Violation>, WrongType> {
    let mut found = Vec::new();
    structure(input, body, "", &mut found)?;
    Ok(found)
}

fn structure(members: &[Member], body: &Value, path: &str, found: &mut Vec<Violation>) -> Result<(), WrongType> {
    let Value::Object(fields) = body else {
        return Err(WrongType(format!("Expected a structure, found {}", type_of(body))));
    };
    for member in members {
        let path = if path.is_empty() { member.name.to_owned() } else { format!("{path}.{}", member.name) };
        match fields.get(member.name) {
            None | Some(Value::Null) if member.required => {
                found.push(Violation { value: None, path, rule: "not be null".to_owned() });
            }
            None | Some(Value::Null) => {}
            Some(value) => one(&member.kind, value, &path, found)?,
        }
    }
    Ok(())
}

fn one(kind: &Kind, value: &Value, path: &str, found: &mut Vec<Violation>) -> Result<(), WrongType> {
    let mut broken = |value: &str, rule: String| {
        found.push(Violation { value: Some(value.to_owned()), path: path.to_owned(), rule });
    };
    match (kind, value) {
        (Kind::Text { min, max, pattern }, Value::String(text)) => {
            let length = text.encode_utf16().count();
            if length > *max {
                broken(text, format!("have length less than or equal to {max}"));
            }
            if length < *min {
                broken(text, format!("have length greater than or equal to {min}"));
            }
            if !matches(pattern, text) {
                broken(text, format!("satisfy regular expression pattern: {pattern}"));
            }
        }
        (Kind::Choice(choices), Value::String(text)) => {
            if !choices.contains(&text.as_str()) {
                broken(text, format!("satisfy enum value set: [{}]", choices.join(", ")));
            }
        }
        (Kind::Flag, Value::Bool(_)) | (Kind::Words, Value::String(_)) | (Kind::Time, Value::Number(_)) => {}
        (Kind::Count { min, max }, Value::Number(number)) => match number.as_i64() {
            Some(count) if count < *min => {
                broken(&count.to_string(), format!("have value greater than or equal to {min}"));
            }
            Some(count) if count > *max => {
                broken(&count.to_string(), format!("have value less than or equal to {max}"));
            }
            Some(_) => {}
            None => return Err(WrongType(format!("{number} can not be converted to an Integer"))),
        },
        (Kind::Structure(members), Value::Object(_)) => structure(members, value, path, found)?,
        (Kind::List { max, of }, Value::Array(elements)) => {
            if elements.len() > *max {
                broken(&value.to_string(), format!("have length less than or equal to {max}"));
            }
            for (index, element) in elements.iter().enumerate() {
                one(of, element, &format!("{path}.{}.member", index + 1), found)?;
            }
        }
        _ => return Err(WrongType(format!("Unexpected {} at '{path}'", type_of(value)))),
    }
    Ok(())
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "structure",
    }
}

/// Patterns compiled once; the service matches them against the whole string.
static PATTERNS: LazyLock<HashMap<&'static str, Option<Regex>>> = LazyLock::new(|| {
    let mut patterns = HashMap::new();
    for operation in OPERATIONS {
        operation.input.iter().for_each(|member| collect(&member.kind, &mut patterns));
    }
    patterns
});

fn collect(kind: &Kind, patterns: &mut HashMap<&'static str, Option<Regex>>) {
    match kind {
        Kind::Text { pattern, .. } => {
            let rust = pattern.replace(r"\p{ASCII}", r"\p{ascii}").replace(r"\d", "[0-9]");
            let rust = rust.replace("[a-z[0-9]-]", "[a-z0-9-]").replace(r"\p{ascii}", "[\\x00-\\x7F]");
            patterns.insert(pattern, Regex::new(&format!(r"\A(?:{rust})\z")).ok());
        }
        Kind::Structure(members) => members.iter().for_each(|member| collect(&member.kind, patterns)),
        Kind::List { of, .. } => collect(of, patterns),
        Kind::Words | Kind::Choice(_) | Kind::Flag | Kind::Time | Kind::Count { .. } => {}
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    matches!(PATTERNS.get(pattern), Some(Some(regex)) if regex.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::{PATTERNS, check};
    use crate::model::Operation;
    use serde_json::json;

    fn sentences(operation: &str, body: &serde_json::Value) -> Vec<String> {
        let operation = Operation::named(operation).unwrap();
        check(operation.input, body).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_pattern_compiles() {
        assert!(PATTERNS.iter().all(|(_, regex)| regex.is_some()));
    }

    #[test]
    fn a_bad_job_name_is_named_in_the_services_words() {
        let body = json!({"jobName": "-x", "datasetArn": "arn:aws:personalize:r:1:dataset/a/B", "dataSource": {}});
        assert_eq!(
            sentences("CreateDatasetImportJob", &body),
            ["Value '-x' at 'jobName' failed to satisfy constraint: Member must satisfy regular expression \
              pattern: ^[a-zA-Z0-9][a-zA-Z0-9\\-_]*"]
        );
    }

    #[test]
    fn a_newline_at_the_end_of_a_name_is_refused() {
        let body = json!({"jobName": "x\n", "datasetArn": "arn:aws:personalize:r:1:dataset/a/B", "dataSource": {}});
        assert_eq!(sentences("CreateDatasetImportJob", &body).len(), 1);
    }

    #[test]
    fn missing_members_are_null() {
        let expected = "Value null at 'datasetImportJobArn' failed to satisfy constraint: Member must not be null";
        assert_eq!(sentences("DescribeDatasetImportJob", &json!({})), [expected]);
    }

    #[test]
    fn a_number_for_a_name_is_a_wrong_type() {
        assert!(check(Operation::named("DescribeDataset").unwrap().input, &json!({"datasetArn": 1})).is_err());
    }
}
