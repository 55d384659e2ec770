//! What a namespace may import, and under which role: annotations that only a cluster administrator can set.
//!
//! A list holds patterns, separated by commas or white space. In a pattern `*` matches any characters and every other
//! character matches itself; the whole value has to match. The chart's ValidatingAdmissionPolicy applies the same rule
//! at admission, where patterns become regular expressions, so a pattern with a character outside of
//! [`PATTERN_CHARACTERS`] matches nothing.

use crate::api::DatasetImportJobSpec;
use crate::personalize::{AccountRegion, CallerRole, RoleArn};
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

/// The roles under which the operator makes the calls of a namespace, at most one for each account. Without the
/// annotation the configuration of the account decides.
pub const ASSUME_ROLE_ARN: &str = "personalize-operator.io/assume-role-arn";

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

/// The role that a namespace with these annotations has for an account. A namespace that names roles only for other
/// accounts may make no call in this one: the role of the account may have more permissions.
#[must_use]
pub fn caller_role(annotations: &BTreeMap<String, String>, at: &AccountRegion) -> CallerRole {
    match annotations.get(ASSUME_ROLE_ARN).map(|value| role_for(value, at)) {
        None => CallerRole::OfAccount,
        Some(Ok(role)) => CallerRole::Named(role),
        Some(Err(why)) => CallerRole::Denied(why),
    }
}

fn role_for(value: &str, at: &AccountRegion) -> Result<String, String> {
    let mut found = None;
    for arn in items(value) {
        let Some(role) = RoleArn::parse(arn) else {
            return Err(format!(
                "the Namespace's annotation {ASSUME_ROLE_ARN} contains {:?}, which is not the ARN of a role; a cluster administrator can change that",
                sanitize(arn)
            ));
        };
        if (role.partition, role.account) == (at.partition.as_str(), at.account.as_str())
            && let Some(other) = found.replace(arn)
        {
            return Err(format!(
                "the Namespace's annotation {ASSUME_ROLE_ARN} names two roles of account {}: {other} and {arn}; a cluster administrator can remove one",
                at.account
            ));
        }
    }
    let missing = || {
        format!(
            "the Namespace's annotation {ASSUME_ROLE_ARN} names no role of account {} in partition {}, so this namespace may not import there; a cluster administrator can add one",
            at.account, at.partition
        )
    };
    found.map(str::to_owned).ok_or_else(missing)
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|item| !item.is_empty())
}

fn permits(list: &str, value: &str) -> bool {
    items(list).any(|pattern| matches(pattern, value))
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
    fn role_of_a_namespace_is_the_one_of_the_account_or_the_import_is_denied() {
        let at = AccountRegion { partition: "aws".into(), account: "123456789012".into(), region: "eu-west-1".into() };
        let role = |value: &str| caller_role(&[(ASSUME_ROLE_ARN.to_owned(), value.to_owned())].into(), &at);
        let (own, other) = ("arn:aws:iam::123456789012:role/team/A", "arn:aws:iam::210987654321:role/B");
        assert_eq!(caller_role(&BTreeMap::new(), &at), CallerRole::OfAccount);
        for value in [own.to_owned(), format!("{other}, {own}"), format!("\n{own}\n{other}\n")] {
            assert_eq!(role(&value), CallerRole::Named(own.to_owned()), "{value}");
        }
        for (value, expected) in [
            (String::new(), "names no role of account 123456789012 in partition aws"),
            (other.to_owned(), "names no role of account 123456789012"),
            (own.replace(":aws:", ":aws-cn:"), "names no role of account 123456789012"),
            (format!("{own},arn:aws:iam::123456789012:role/C"), "names two roles of account 123456789012"),
            (format!("{own} *"), "contains \"*\", which is not the ARN of a role"),
        ] {
            let CallerRole::Denied(error) = role(&value) else { panic!("{value}") };
            assert!(error.contains(expected) && error.contains(ASSUME_ROLE_ARN), "{value}: {error}");
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
