//! JSON documents made from the bytes of a fuzzer.

use personalize_operator::testing::strategies::SECRET;
use serde_json::{Value, json};

/// The input itself if it starts like a JSON object. Otherwise the template with some values replaced: of each pair of
/// bytes, the first chooses the value and the second its replacement.
pub(crate) fn document(template: &Value, input: &[u8]) -> Vec<u8> {
    if input.first() == Some(&b'{') {
        return input.to_vec();
    }
    let mut document = template.clone();
    for pair in input.chunks_exact(2).take(8) {
        let mut pointers = Vec::new();
        list_pointers(&document, &mut String::new(), &mut pointers);
        let mut replacements = replacements();
        let pointer = usize::from(pair[0]) % pointers.len();
        let replacement = usize::from(pair[1]) % replacements.len();
        if let Some(value) = document.pointer_mut(&pointers[pointer]) {
            *value = replacements.swap_remove(replacement);
        }
    }
    document.to_string().into_bytes()
}

/// Adds the JSON pointers of a value and of all values in it.
fn list_pointers(value: &Value, pointer: &mut String, pointers: &mut Vec<String>) {
    pointers.push(pointer.clone());
    let length = pointer.len();
    let mut enter = |key: &str, value: &Value| {
        pointer.push('/');
        pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
        list_pointers(value, pointer, pointers);
        pointer.truncate(length);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| enter(key, value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, value)| enter(&i.to_string(), value)),
        _ => {}
    }
}

/// Whether the text contains the secret as a whole word: inside a longer word its start and end are unknown.
pub(crate) fn contains_secret(text: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '/' || c == '+')).any(|part| part == SECRET)
}

/// Values at the limits of their types, and values that mean something elsewhere in a document.
fn replacements() -> Vec<Value> {
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
