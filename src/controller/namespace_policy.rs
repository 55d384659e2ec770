//! What a namespace may import: allow-lists in annotations that only a cluster administrator can set.
//!
//! A list holds patterns, separated by commas or white space. In a pattern `*` matches any characters and every other
//! character matches itself; the whole value has to match. The chart's ValidatingAdmissionPolicy applies the same rule
//! at admission, where patterns become regular expressions, so a pattern with a character outside of
//! [`PATTERN_CHARACTERS`] matches nothing.

use crate::api::DatasetImportJobSpec;
use crate::redact::sanitize;
use std::collections::BTreeMap;

/// The dataset ARNs that a namespace may import into.
pub const ALLOWED_DATASET_ARNS: &str = "personalize-operator.io/allowed-dataset-arns";

/// The roles that a namespace may pass to the service.
pub const ALLOWED_ROLE_ARNS: &str = "personalize-operator.io/allowed-role-arns";

/// The S3 locations that a namespace may import from.
pub const ALLOWED_DATA_LOCATIONS: &str = "personalize-operator.io/allowed-data-locations";

/// How much of the quota a namespace gets with `--queue-order=namespaces-in-turn`: 1 to 100.
pub const QUEUE_WEIGHT: &str = "personalize-operator.io/queue-weight";

/// The characters of a pattern, in addition to ASCII letters and digits.
pub const PATTERN_CHARACTERS: &str = ":/_.=+@*-";

/// What a namespace without an allow-list may import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultPolicy {
    /// Everything.
    Allow,
    /// Nothing.
    Deny,
}

/// Why a namespace with these annotations may not make this import; `None` if it may.
#[must_use]
pub fn denial(
    annotations: &BTreeMap<String, String>,
    default_policy: DefaultPolicy,
    spec: &DatasetImportJobSpec,
) -> Option<String> {
    let rules = [
        ("datasetArn", ALLOWED_DATASET_ARNS, &spec.dataset_arn),
        ("roleArn", ALLOWED_ROLE_ARNS, &spec.role_arn),
        ("dataSource.dataLocation", ALLOWED_DATA_LOCATIONS, &spec.data_source.data_location),
    ];
    rules.into_iter().find_map(|(field, annotation, value)| {
        let why = match annotations.get(annotation) {
            None if default_policy == DefaultPolicy::Allow => return None,
            None => "is missing, and this cluster is closed to namespaces without it",
            Some(list) if permits(list, value) => return None,
            Some(_) => "does not list it",
        };
        Some(format!(
            "spec.{field} {:?} is not permitted in this namespace: the Namespace's annotation {annotation} {why}; a cluster administrator can change that",
            sanitize(value)
        ))
    })
}

fn permits(list: &str, value: &str) -> bool {
    list.split(|c: char| c == ',' || c.is_ascii_whitespace()).any(|pattern| matches(pattern, value))
}

/// Whether a pattern covers the whole value.
fn matches(pattern: &str, value: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || PATTERN_CHARACTERS.contains(c);
    if pattern.is_empty() || !pattern.chars().all(allowed) {
        return false;
    }
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == value };
    let Some(mut value) = value.strip_prefix(head) else { return false };
    // Between two stars the first match is enough: a later one leaves less of the value for the rest.
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = value.find(part) else { return false };
        value = &value[at + part.len()..];
    }
    value.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;
    use proptest::prelude::*;

    #[test]
    fn pattern_matches_the_whole_value() {
        for (pattern, value, expected) in [
            ("arn:a", "arn:a", true),
            ("arn:a", "arn:ab", false),
            ("arn:*", "arn:", true),
            ("*", "anything", true),
            ("s3://a/*", "s3://a/b/c.csv", true),
            ("s3://a/*", "s3://ab/c.csv", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*bb*c", "a-b-c", false),
            ("a*a", "a", false),
            ("", "", false),
            ("a.c", "abc", false),
            ("a[bc]", "a[bc]", false),
        ] {
            assert_eq!(matches(pattern, value), expected, "{pattern} {value}");
        }
    }

    proptest! {
        #[test]
        fn pattern_matches_like_the_regular_expression_that_admission_derives_from_it(
            pattern in "[ab.*+]{0,8}", value in "[ab.+]{0,8}"
        ) {
            let expression = format!("^{}$", pattern.replace('.', "\\.").replace('+', "\\+").replace('*', ".*"));
            let expected = !pattern.is_empty() && regex::Regex::new(&expression).unwrap().is_match(&value);
            prop_assert_eq!(matches(&pattern, &value), expected);
        }
    }

    #[test]
    fn each_field_is_checked_against_its_own_list_or_the_default_policy() {
        let spec = spec();
        let all = BTreeMap::from([
            (ALLOWED_DATASET_ARNS.to_owned(), format!("other, {}", spec.dataset_arn)),
            (ALLOWED_ROLE_ARNS.to_owned(), "arn:aws:iam::*:role/*\n".to_owned()),
            (ALLOWED_DATA_LOCATIONS.to_owned(), "s3://*".to_owned()),
        ]);
        for default_policy in [DefaultPolicy::Allow, DefaultPolicy::Deny] {
            assert_eq!(denial(&all, default_policy, &spec), None);
        }
        assert_eq!(denial(&BTreeMap::new(), DefaultPolicy::Allow, &spec), None);
        for annotation in all.keys() {
            let mut without = all.clone();
            without.remove(annotation);
            assert_eq!(denial(&without, DefaultPolicy::Allow, &spec), None);
            let why = denial(&without, DefaultPolicy::Deny, &spec).unwrap();
            assert!(why.contains(annotation) && why.contains("missing"), "{why}");
            without.insert(annotation.clone(), String::new());
            let why = denial(&without, DefaultPolicy::Allow, &spec).unwrap();
            assert!(why.contains(annotation) && why.contains("does not list"), "{why}");
        }
    }
}
