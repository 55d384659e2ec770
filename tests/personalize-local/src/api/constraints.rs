//! Checks a request against the model's constraints, with the messages that AWS JSON services give.

use std::{collections::HashMap, fmt, sync::LazyLock};

use regex::Regex;
use serde_json::Value;

use crate::model::{Kind, Member, OPERATIONS};

/// A broken constraint. Displayed, it is the service's sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    value: Offending,
    path: String,
    rule: String,
}

/// The value that breaks a constraint, as its sentence names it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Offending {
    Absent,
    Shown(String),
    /// The model calls it sensitive.
    Hidden,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Offending::Absent => write!(f, "Value null at '{}'", self.path)?,
            Offending::Shown(value) => write!(f, "Value '{value}' at '{}'", self.path)?,
            Offending::Hidden => write!(f, "Value at '{}'", self.path)?,
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
        return Err(wrong_type(&Kind::Structure(&[]), body));
    };
    for member in members {
        let path = if path.is_empty() { member.name.to_owned() } else { format!("{path}.{}", member.name) };
        match fields.get(member.name) {
            None | Some(Value::Null) if member.required => {
                found.push(Violation { value: Offending::Absent, path, rule: "not be null".to_owned() });
            }
            None | Some(Value::Null) => {}
            Some(value) => one(&member.kind, value, &path, found)?,
        }
    }
    Ok(())
}

fn one(kind: &Kind, value: &Value, path: &str, found: &mut Vec<Violation>) -> Result<(), WrongType> {
    let mut broken = |value: Offending, rule: String| found.push(Violation { value, path: path.to_owned(), rule });
    match (kind, value) {
        (Kind::Text { sensitive, .. }, Value::String(text)) => {
            for (rule, holds) in text_rules(kind, text) {
                if !holds {
                    broken(if *sensitive { Offending::Hidden } else { Offending::Shown(text.clone()) }, rule);
                }
            }
        }
        (Kind::Choice(choices), Value::String(text)) => {
            if !choices.contains(&text.as_str()) {
                let rule = format!("satisfy enum value set: [{}]", choices.join(", "));
                broken(Offending::Shown(text.clone()), rule);
            }
        }
        (Kind::Flag, Value::Bool(_)) | (Kind::Words, Value::String(_)) | (Kind::Time, Value::Number(_)) => {}
        (Kind::Count { min, max }, Value::Number(number)) => match number.as_i64() {
            Some(count) if count < *min => {
                broken(Offending::Shown(count.to_string()), format!("have value greater than or equal to {min}"));
            }
            Some(count) if count > *max => {
                broken(Offending::Shown(count.to_string()), format!("have value less than or equal to {max}"));
            }
            Some(_) => {}
            None => return Err(WrongType(format!("{number} can not be converted to an Integer"))),
        },
        (Kind::Structure(members), Value::Object(_)) => structure(members, value, path, found)?,
        (Kind::List { max, of }, Value::Array(elements)) => list(*max, of, elements, path, found)?,
        _ => return Err(wrong_type(kind, value)),
    }
    Ok(())
}

/// A list is measured first. A broken rule of plain elements is told once, of the whole list and with all rules of an
/// element; structures are gone into.
fn list(max: usize, of: &Kind, elements: &[Value], path: &str, found: &mut Vec<Violation>) -> Result<(), WrongType> {
    let mut broken = |rule: String| {
        // The only lists that a request has are of tags and their keys.
        found.push(Violation { value: Offending::Hidden, path: path.to_owned(), rule });
    };
    if elements.len() > max {
        broken(format!("have length less than or equal to {max}"));
    }
    let Kind::Text { .. } = of else {
        for (index, element) in elements.iter().enumerate() {
            one(of, element, &format!("{path}.{}.member", index + 1), found)?;
        }
        return Ok(());
    };
    let mut holds = true;
    for element in elements {
        let text = element.as_str().ok_or_else(|| wrong_type(of, element))?;
        holds &= text_rules(of, text).iter().all(|(_, holds)| *holds);
    }
    if !holds {
        let rules: Vec<String> =
            text_rules(of, "").into_iter().map(|(rule, _)| format!("Member must {rule}")).collect();
        broken(format!("satisfy constraint: [{}]", rules.join(", ")));
    }
    Ok(())
}

/// The rules of a string, and whether this one keeps them.
fn text_rules(kind: &Kind, text: &str) -> Vec<(String, bool)> {
    let Kind::Text { min, max, pattern, .. } = kind else { return Vec::new() };
    let length = text.encode_utf16().count();
    vec![
        (format!("have length less than or equal to {max}"), length <= *max),
        (format!("have length greater than or equal to {min}"), length >= *min),
        (format!("satisfy regular expression pattern: {pattern}"), matches(pattern, text)),
    ]
}

/// The words of the JSON reader that AWS's services share.
fn wrong_type(kind: &Kind, value: &Value) -> WrongType {
    let wanted = match kind {
        Kind::Text { .. } | Kind::Words | Kind::Choice(_) => "a String",
        Kind::Flag => "a Boolean",
        Kind::Time => "a Timestamp",
        Kind::Count { .. } => "an Integer",
        Kind::Structure(_) => "a Structure",
        Kind::List { .. } => return WrongType("Expected list or null".to_owned()),
    };
    let found = match value {
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) => return WrongType("Start of list found where not expected".to_owned()),
        Value::Object(_) => return WrongType("Start of structure or map found where not expected.".to_owned()),
    };
    WrongType(format!("{found} can not be converted to {wanted}"))
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
    fn a_wrong_type_is_told_in_the_words_of_the_services_reader() {
        let told = |operation: &str, body: serde_json::Value| {
            check(Operation::named(operation).unwrap().input, &body).unwrap_err().0
        };
        let of_name = |value: serde_json::Value| told("DescribeDataset", json!({"datasetArn": value}));
        assert_eq!(of_name(json!(1)), "NUMBER_VALUE can not be converted to a String");
        assert_eq!(of_name(json!(true)), "TRUE_VALUE can not be converted to a String");
        assert_eq!(of_name(json!([])), "Start of list found where not expected");
        assert_eq!(of_name(json!({})), "Start of structure or map found where not expected.");
        let untag = |keys: serde_json::Value| {
            told("UntagResource", json!({"resourceArn": "arn:aws:personalize:r:1:x", "tagKeys": keys}))
        };
        assert_eq!(untag(json!("a")), "Expected list or null");
        assert_eq!(untag(json!([7])), "NUMBER_VALUE can not be converted to a String");
        assert_eq!(told("ListSchemas", json!({"maxResults": "7"})), "STRING_VALUE can not be converted to an Integer");
        assert_eq!(told("ListSchemas", json!("all")), "STRING_VALUE can not be converted to a Structure");
    }

    #[test]
    fn a_sensitive_value_is_not_repeated() {
        let tags = |key: &str, value: &str| {
            let tags = json!([{"tagKey": key, "tagValue": value}]);
            sentences("TagResource", &json!({"resourceArn": "arn:aws:personalize:r:1:dataset/a/B", "tags": tags}))
        };
        let secret = "s3cret!";
        assert_eq!(
            tags(secret, secret),
            ["tagKey", "tagValue"].map(|member| format!(
                "Value at 'tags.1.member.{member}' failed to satisfy constraint: Member must satisfy regular expression \
                 pattern: ^([\\p{{L}}\\p{{Z}}\\p{{N}}_.:/=+\\-@]*)$"
            ))
        );
    }

    #[test]
    fn a_list_of_strings_is_told_as_a_whole() {
        let untag = |keys: &[&str]| {
            sentences("UntagResource", &json!({"resourceArn": "arn:aws:personalize:r:1:dataset/a/B", "tagKeys": keys}))
        };
        assert_eq!(
            untag(&["good", "", "bad!"]),
            [
                "Value at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: [Member must have length \
              less than or equal to 128, Member must have length greater than or equal to 1, Member must satisfy regular \
              expression pattern: ^([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)$]"
            ]
        );
        let long = "Value at 'tagKeys' failed to satisfy constraint: Member must have length less than or equal to 200";
        assert_eq!(untag(&["a"; 201]), [long]);
    }
}
