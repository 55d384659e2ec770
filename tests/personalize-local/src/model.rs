//! The request constraints of the service model, and the service's way of refusing.

use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

/// The service's answer to a call it does not carry out.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) status: u16,
}

/// A refusal as the service itself phrases it: HTTP 400.
pub(crate) fn refusal(code: &str, message: impl Into<String>) -> Refusal {
    Refusal { code: code.into(), message: message.into(), status: 400 }
}

/// A string member and its constraint: least and greatest length, and pattern.
struct Member {
    name: &'static str,
    required: bool,
    least: usize,
    greatest: usize,
    pattern: &'static str,
}

const ANY: &str = "";
const ARN: &str = r"arn:([a-z\d-]+):personalize:.*:.*:.+";

const fn member(name: &'static str, required: bool, least: usize, greatest: usize, pattern: &'static str) -> Member {
    Member { name, required, least, greatest, pattern }
}

/// The string members of each operation's request.
fn members(operation: &str) -> Option<&'static [Member]> {
    const CREATE: &[Member] = &[
        member("jobName", true, 1, 63, r"^[a-zA-Z0-9][a-zA-Z0-9\-_]*"),
        member("datasetArn", true, 0, 256, ARN),
        member("roleArn", true, 0, 256, r"arn:([a-z\d-]+):iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"),
    ];
    const DESCRIBE: &[Member] = &[member("datasetImportJobArn", true, 0, 256, ARN)];
    const LIST: &[Member] =
        &[member("datasetArn", false, 0, 256, ARN), member("nextToken", false, 0, 1500, r"\p{ASCII}{0,1500}")];
    const DATASET: &[Member] = &[member("datasetArn", true, 0, 256, ARN)];
    const TAGS: &[Member] = &[member("resourceArn", true, 0, 256, ARN)];
    match operation {
        "CreateDatasetImportJob" => Some(CREATE),
        "DescribeDatasetImportJob" => Some(DESCRIBE),
        "ListDatasetImportJobs" => Some(LIST),
        "DescribeDataset" => Some(DATASET),
        "ListTagsForResource" => Some(TAGS),
        _ => None,
    }
}

/// Checks a request against the model.
pub(crate) fn check(operation: &str, request: &Value) -> Result<(), Refusal> {
    let Some(members) = members(operation) else {
        return Err(refusal("UnknownOperationException", ""));
    };
    for m in members {
        check_string(m, &request[m.name])?;
    }
    if operation == "CreateDatasetImportJob" {
        let location = member("dataSource.dataLocation", false, 0, 256, r"(s3|http|https)://.+");
        if request["dataSource"].is_null() {
            return Err(violation(&Value::Null, "dataSource", "Member must not be null"));
        }
        check_string(&location, &request["dataSource"]["dataLocation"])?;
        let mode = &request["importMode"];
        if !mode.is_null() && mode != "FULL" && mode != "INCREMENTAL" {
            return Err(violation(mode, "importMode", "Member must satisfy enum value set: [FULL, INCREMENTAL]"));
        }
        tags(request)?;
    }
    Ok(())
}

fn violation(value: &Value, name: &str, constraint: &str) -> Refusal {
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let at = if value.is_null() { "Value null".to_owned() } else { format!("Value '{shown}'") };
    refusal(
        "ValidationException",
        format!("1 validation error detected: {at} at '{name}' failed to satisfy constraint: {constraint}"),
    )
}

fn check_string(m: &Member, value: &Value) -> Result<(), Refusal> {
    let Some(text) = value.as_str() else {
        return if !value.is_null() {
            Err(refusal("SerializationException", format!("{} is not a string", m.name)))
        } else if m.required {
            Err(violation(value, m.name, "Member must not be null"))
        } else {
            Ok(())
        };
    };
    let length = text.chars().count();
    if length < m.least {
        return Err(violation(value, m.name, &format!("Member must have length greater than or equal to {}", m.least)));
    }
    if length > m.greatest {
        return Err(violation(value, m.name, &format!("Member must have length less than or equal to {}", m.greatest)));
    }
    let whole = format!("^(?:{})$", m.pattern.trim_start_matches('^'));
    if m.pattern != ANY && !Regex::new(&whole).is_ok_and(|r| r.is_match(text)) {
        return Err(violation(
            value,
            m.name,
            &format!("Member must satisfy regular expression pattern: {}", m.pattern),
        ));
    }
    Ok(())
}

/// The tags of a create request.
pub(crate) fn tags(request: &Value) -> Result<BTreeMap<String, String>, Refusal> {
    const TEXT: &str = r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)";
    let mut tags = BTreeMap::new();
    for tag in request["tags"].as_array().into_iter().flatten() {
        check_string(&member("tags.tagKey", true, 1, 128, TEXT), &tag["tagKey"])?;
        check_string(&member("tags.tagValue", true, 0, 256, TEXT), &tag["tagValue"])?;
        let text = |name: &str| tag[name].as_str().unwrap_or_default().to_owned();
        if text("tagKey").starts_with("aws:") {
            return Err(refusal("InvalidInputException", "Tag keys starting with aws: are reserved."));
        }
        if tags.insert(text("tagKey"), text("tagValue")).is_some() {
            return Err(refusal("InvalidInputException", "Duplicate tag keys are not allowed."));
        }
    }
    if tags.len() > 50 {
        return Err(refusal(
            "TooManyTagsException",
            "You have exceeded the maximum number of tags you can apply to this resource.",
        ));
    }
    Ok(tags)
}
