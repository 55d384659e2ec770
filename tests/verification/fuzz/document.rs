//! JSON documents from the bytes of a fuzzer.

use serde_json::{Value, json};

/// The bytes themselves if they start like a document; otherwise the template with some values replaced. Each pair of bytes
/// says which value, and by what.
pub(crate) fn document(template: &Value, input: &[u8]) -> Vec<u8> {
    if input.first() == Some(&b'{') {
        return input.to_vec();
    }
    let mut document = template.clone();
    for pair in input.chunks_exact(2).take(8) {
        let mut places = Vec::new();
        list(&document, &mut String::new(), &mut places);
        let mut odd = odd_values();
        let (place, with) = (usize::from(pair[0]) % places.len(), usize::from(pair[1]) % odd.len());
        if let Some(part) = document.pointer_mut(&places[place]) {
            *part = odd.swap_remove(with);
        }
    }
    document.to_string().into_bytes()
}

fn list(value: &Value, at: &mut String, places: &mut Vec<String>) {
    places.push(at.clone());
    let length = at.len();
    let mut enter = |key: &str, value: &Value| {
        at.push('/');
        at.push_str(&key.replace('~', "~0").replace('/', "~1"));
        list(value, at, places);
        at.truncate(length);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| enter(key, value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, value)| enter(&i.to_string(), value)),
        _ => {}
    }
}

/// A secret that no output may contain.
pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE1";

/// Whether the text contains the secret as a word of its own: within a longer run of such characters nobody can tell where it
/// starts and ends.
pub(crate) fn contains_secret(text: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '/' || c == '+')).any(|part| part == SECRET)
}

fn odd_values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(i32::MAX),
        json!(i32::MIN),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(0.5),
        json!(1_542_392_161.837),
        json!(-62_135_596_801_i64),
        json!(253_402_300_800_i64),
        json!(-377_705_023_201_i64),
        json!(""),
        json!("ACTIVE"),
        json!("CREATE FAILED"),
        json!("CREATE PENDING"),
        json!("CREATE IN_PROGRESS"),
        json!("SOMETHING NEW"),
        json!("FULL"),
        json!("true"),
        json!("-000001-01-01T00:00:00Z"),
        json!("9999-12-30T22:00:00Z"),
        json!("2026-02-30T25:61:61Z"),
        json!("1970-01-01T00:00:00Z"),
        json!("line\r\nbreak \u{1b}[31m\u{202e}\u{2028}\0"),
        json!(format!("aws_secret_access_key={SECRET}")),
        json!(format!("\"Authorization\": \"Bearer {SECRET}\"")),
        json!(SECRET),
        json!("x".repeat(5000)),
        json!("é—\u{10ffff}".repeat(600)),
        json!([]),
        json!({}),
        json!([1, "two", null]),
        json!("arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS"),
        json!("arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/nightly-ad41abc7ef6ae4fb"),
        json!("arn:aws:personalize:::dataset/"),
        json!("ResourceNotFoundException"),
        json!("ResourceAlreadyExistsException"),
        json!("LimitExceededException"),
        json!("ThrottlingException"),
        json!("More than 5 resources with PENDING or IN_PROGRESS status."),
    ]
}
