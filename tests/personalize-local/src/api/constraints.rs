//! Checks requests against the constraints of the model, with the error messages of AWS JSON services.

use std::{collections::HashMap, fmt, sync::LazyLock};

use regex::Regex;
use serde_json::Value;

use super::model::{Member, OPERATIONS, Shape};

/// A violated constraint. Its `Display` is the error message of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    value: InvalidValue,
    path: String,
    rule: String,
}

/// The value in the message of a violation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum InvalidValue {
    Missing,
    Shown(String),
    /// Omitted, because the model marks it as sensitive.
    Sensitive,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            InvalidValue::Missing => write!(f, "Value null at '{}'", self.path)?,
            InvalidValue::Shown(value) => write!(f, "Value '{value}' at '{}'", self.path)?,
            InvalidValue::Sensitive => write!(f, "Value at '{}'", self.path)?,
        }
        write!(f, " failed to satisfy constraint: Member must {}", self.rule)
    }
}

/// A value of the wrong JSON type, with the error message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrongType(pub(crate) String);

/// Checks a request body. Returns all violations, or the first value of the wrong type.
pub(crate) fn check(input: &[Member], body: &Value) -> Result<Vec<Violation>, WrongType> {
    let mut violations = Vec::new();
    check_structure(input, body, "", &mut violations)?;
    Ok(violations)
}

fn check_structure(
    members: &[Member],
    body: &Value,
    path: &str,
    violations: &mut Vec<Violation>,
) -> Result<(), WrongType> {
    let Value::Object(fields) = body else {
        return Err(wrong_type(&Shape::Structure(&[]), body));
    };
    for member in members {
        let path = if path.is_empty() { member.name.to_owned() } else { format!("{path}.{}", member.name) };
        match fields.get(member.name) {
            None | Some(Value::Null) if member.required => {
                violations.push(Violation { value: InvalidValue::Missing, path, rule: "not be null".to_owned() });
            }
            None | Some(Value::Null) => {}
            Some(value) => check_value(&member.shape, value, &path, violations)?,
        }
    }
    Ok(())
}

fn check_value(shape: &Shape, value: &Value, path: &str, violations: &mut Vec<Violation>) -> Result<(), WrongType> {
    let mut violation =
        |value: InvalidValue, rule: String| violations.push(Violation { value, path: path.to_owned(), rule });
    match (shape, value) {
        (Shape::String { sensitive, .. }, Value::String(text)) => {
            for (rule, satisfied) in string_rules(shape, text) {
                if !satisfied {
                    violation(
                        if *sensitive { InvalidValue::Sensitive } else { InvalidValue::Shown(text.clone()) },
                        rule,
                    );
                }
            }
        }
        (Shape::Enum(choices), Value::String(text)) => {
            if !choices.contains(&text.as_str()) {
                let rule = format!("satisfy enum value set: [{}]", choices.join(", "));
                violation(InvalidValue::Shown(text.clone()), rule);
            }
        }
        (Shape::Boolean, Value::Bool(_))
        | (Shape::AnyString, Value::String(_))
        | (Shape::Timestamp | Shape::AnyInteger, Value::Number(_)) => {}
        (Shape::Integer { min, max }, Value::Number(number)) => match number.as_i64() {
            Some(count) if count < *min => {
                violation(InvalidValue::Shown(count.to_string()), format!("have value greater than or equal to {min}"));
            }
            Some(count) if count > *max => {
                violation(InvalidValue::Shown(count.to_string()), format!("have value less than or equal to {max}"));
            }
            Some(_) => {}
            None => return Err(WrongType(format!("{number} can not be converted to an Integer"))),
        },
        (Shape::Structure(members), Value::Object(_)) => check_structure(members, value, path, violations)?,
        (Shape::List { max, member }, Value::Array(elements)) => check_list(*max, member, elements, path, violations)?,
        _ => return Err(wrong_type(shape, value)),
    }
    Ok(())
}

/// Checks the length of a list, then its elements. Violations of string elements are reported once, for the whole list
/// and with all rules of an element.
fn check_list(
    max: usize,
    member: &Shape,
    elements: &[Value],
    path: &str,
    violations: &mut Vec<Violation>,
) -> Result<(), WrongType> {
    let mut violation = |rule: String| {
        // The only lists in requests contain tags or tag keys, which are sensitive.
        violations.push(Violation { value: InvalidValue::Sensitive, path: path.to_owned(), rule });
    };
    if elements.len() > max {
        violation(format!("have length less than or equal to {max}"));
    }
    let Shape::String { .. } = member else {
        for (index, element) in elements.iter().enumerate() {
            check_value(member, element, &format!("{path}.{}.member", index + 1), violations)?;
        }
        return Ok(());
    };
    let mut satisfied = true;
    for element in elements {
        let text = element.as_str().ok_or_else(|| wrong_type(member, element))?;
        satisfied &= string_rules(member, text).iter().all(|(_, satisfied)| *satisfied);
    }
    if !satisfied {
        let rules: Vec<String> =
            string_rules(member, "").into_iter().map(|(rule, _)| format!("Member must {rule}")).collect();
        violation(format!("satisfy constraint: [{}]", rules.join(", ")));
    }
    Ok(())
}

/// The rules of a string shape, and whether the text satisfies them.
fn string_rules(shape: &Shape, text: &str) -> Vec<(String, bool)> {
    let Shape::String { min, max, pattern, .. } = shape else { return Vec::new() };
    let length = text.encode_utf16().count();
    vec![
        (format!("have length less than or equal to {max}"), length <= *max),
        (format!("have length greater than or equal to {min}"), length >= *min),
        (format!("satisfy regular expression pattern: {pattern}"), matches(pattern, text)),
    ]
}

/// The error message of the JSON parser that AWS services share.
fn wrong_type(shape: &Shape, value: &Value) -> WrongType {
    let expected = match shape {
        Shape::String { .. } | Shape::AnyString | Shape::Enum(_) => "a String",
        Shape::Boolean => "a Boolean",
        Shape::Timestamp => "a Timestamp",
        Shape::AnyInteger | Shape::Integer { .. } => "an Integer",
        Shape::Structure(_) => "a Structure",
        Shape::List { .. } => return WrongType("Expected list or null".to_owned()),
    };
    let actual = match value {
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) => return WrongType("Start of list found where not expected".to_owned()),
        Value::Object(_) => return WrongType("Start of structure or map found where not expected.".to_owned()),
    };
    WrongType(format!("{actual} can not be converted to {expected}"))
}

/// The compiled patterns of the model. They match the whole string.
static PATTERNS: LazyLock<HashMap<&'static str, Option<Regex>>> = LazyLock::new(|| {
    let mut patterns = HashMap::new();
    for operation in OPERATIONS {
        operation.input.iter().for_each(|member| compile_patterns(&member.shape, &mut patterns));
    }
    patterns
});

fn compile_patterns(shape: &Shape, patterns: &mut HashMap<&'static str, Option<Regex>>) {
    match shape {
        Shape::String { pattern, .. } => {
            let rust = pattern.replace(r"\p{ASCII}", r"\p{ascii}").replace(r"\d", "[0-9]");
            let rust = rust.replace("[a-z[0-9]-]", "[a-z0-9-]").replace(r"\p{ascii}", "[\\x00-\\x7F]");
            patterns.insert(pattern, Regex::new(&format!(r"\A(?:{rust})\z")).ok());
        }
        Shape::Structure(members) => members.iter().for_each(|member| compile_patterns(&member.shape, patterns)),
        Shape::List { member, .. } => compile_patterns(member, patterns),
        Shape::AnyString
        | Shape::Enum(_)
        | Shape::Boolean
        | Shape::Timestamp
        | Shape::AnyInteger
        | Shape::Integer { .. } => {}
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    matches!(PATTERNS.get(pattern), Some(Some(regex)) if regex.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::{PATTERNS, check};
    use crate::api::model::Operation;
    use serde_json::json;

    fn messages(operation: &str, body: &serde_json::Value) -> Vec<String> {
        let operation = Operation::find(operation).unwrap();
        check(operation.input, body).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_pattern_compiles() {
        assert!(PATTERNS.iter().all(|(_, regex)| regex.is_some()));
    }

    #[test]
    fn invalid_job_name_violates_the_pattern() {
        let body = json!({"jobName": "-x", "datasetArn": "arn:aws:personalize:r:1:dataset/a/B", "dataSource": {}});
        assert_eq!(
            messages("CreateDatasetImportJob", &body),
            ["Value '-x' at 'jobName' failed to satisfy constraint: Member must satisfy regular expression \
              pattern: ^[a-zA-Z0-9][a-zA-Z0-9\\-_]*"]
        );
    }

    #[test]
    fn job_name_with_trailing_newline_is_rejected() {
        let body = json!({"jobName": "x\n", "datasetArn": "arn:aws:personalize:r:1:dataset/a/B", "dataSource": {}});
        assert_eq!(messages("CreateDatasetImportJob", &body).len(), 1);
    }

    #[test]
    fn missing_required_member_is_reported_as_null() {
        let expected = "Value null at 'datasetImportJobArn' failed to satisfy constraint: Member must not be null";
        assert_eq!(messages("DescribeDatasetImportJob", &json!({})), [expected]);
    }

    #[test]
    fn value_of_wrong_type_is_reported_with_both_types() {
        let error = |operation: &str, body: serde_json::Value| {
            check(Operation::find(operation).unwrap().input, &body).unwrap_err().0
        };
        let of_arn = |value: serde_json::Value| error("DescribeDataset", json!({"datasetArn": value}));
        assert_eq!(of_arn(json!(1)), "NUMBER_VALUE can not be converted to a String");
        assert_eq!(of_arn(json!(true)), "TRUE_VALUE can not be converted to a String");
        assert_eq!(of_arn(json!([])), "Start of list found where not expected");
        assert_eq!(of_arn(json!({})), "Start of structure or map found where not expected.");
        let untag = |keys: serde_json::Value| {
            error("UntagResource", json!({"resourceArn": "arn:aws:personalize:r:1:x", "tagKeys": keys}))
        };
        assert_eq!(untag(json!("a")), "Expected list or null");
        assert_eq!(untag(json!([7])), "NUMBER_VALUE can not be converted to a String");
        assert_eq!(error("ListSchemas", json!({"maxResults": "7"})), "STRING_VALUE can not be converted to an Integer");
        assert_eq!(error("ListSchemas", json!("all")), "STRING_VALUE can not be converted to a Structure");
    }

    #[test]
    fn sensitive_value_is_omitted_from_the_message() {
        let tags = |key: &str, value: &str| {
            let tags = json!([{"tagKey": key, "tagValue": value}]);
            messages("TagResource", &json!({"resourceArn": "arn:aws:personalize:r:1:dataset/a/B", "tags": tags}))
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
    fn violations_in_a_list_of_strings_are_reported_once() {
        let untag = |keys: &[&str]| {
            messages("UntagResource", &json!({"resourceArn": "arn:aws:personalize:r:1:dataset/a/B", "tagKeys": keys}))
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
