//! The annotations that users set on a resource.
//!
//! ```
//! use personalize_operator::api::{DatasetImportJob, SUSPEND, suspended_by};
//!
//! let mut resource: DatasetImportJob = serde_json::from_value(serde_json::json!({
//!     "apiVersion": "personalize-operator.io/v1alpha1", "kind": "DatasetImportJob", "metadata": { "name": "nightly" },
//!     "spec": {
//!         "datasetArn": "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS",
//!         "dataSource": { "dataLocation": "s3://shop-data/interactions.csv" },
//!         "roleArn": "arn:aws:iam::123456789012:role/PersonalizeRead",
//!     },
//! }))?;
//! assert_eq!(suspended_by(&resource), None);
//! resource.metadata.annotations.get_or_insert_default().insert(SUSPEND.into(), "true".into());
//! assert_eq!(suspended_by(&resource), Some("the annotation personalize-operator.io/suspend"));
//! # Ok::<(), serde_json::Error>(())
//! ```

use super::DatasetImportJob;
use jiff::{Span, SpanRelativeTo};
use kube::ResourceExt;
use std::time::Duration;

/// `"true"` adopts an existing job that does not carry this resource's ownership tags.
pub const ADOPT: &str = "personalize-operator.io/adopt";

/// `"true"` suspends the import like `spec.suspend`, for tools that must not change what Git tracks.
pub const SUSPEND: &str = "personalize-operator.io/suspend";

/// A new value polls the service and retries a rejected import now.
pub const RECONCILE_REQUESTED_AT: &str = "personalize-operator.io/reconcile-requested-at";

/// A new value grants one more attempt after CREATE FAILED.
pub const RETRY_REQUESTED_AT: &str = "personalize-operator.io/retry-requested-at";

/// How old the data of the dataset may get, such as `26h` or `8d`, before an alert fires.
pub const MAX_DATA_AGE: &str = "personalize-operator.io/max-data-age";

/// The fingerprint of data that spec.guard holds: this data is imported all the same, and no other.
pub const RELEASE_GUARD: &str = "personalize-operator.io/release-guard";

/// The annotations of a resource that the operator reads.
pub const ANNOTATIONS: [&str; 6] =
    [ADOPT, SUSPEND, RECONCILE_REQUESTED_AT, RETRY_REQUESTED_AT, MAX_DATA_AGE, RELEASE_GUARD];

/// What the operator reads of the value of an annotation, which can be as long as 256 KiB: 256 characters.
pub(crate) fn truncate(value: &str) -> String {
    value.chars().take(256).collect()
}

/// How old the data may get; `None` if the annotation is missing or invalid.
#[must_use]
pub(crate) fn max_data_age(resource: &DatasetImportJob) -> Option<Duration> {
    let span: Span = resource.annotations().get(MAX_DATA_AGE)?.parse().ok()?;
    let age = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(age).ok().filter(|age| !age.is_zero())
}

/// The field or annotation that suspends the import; `None` if none does. It only has an effect before the submission.
#[must_use]
pub fn suspended_by(resource: &DatasetImportJob) -> Option<&'static str> {
    let annotated = resource.annotations().get(SUSPEND).is_some_and(|value| value == "true");
    match (resource.spec.suspend, annotated) {
        (true, _) => Some("spec.suspend"),
        (false, true) => Some("the annotation personalize-operator.io/suspend"),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{resource, spec};

    #[test]
    fn max_data_age_is_a_positive_duration_in_hours_days_or_weeks() {
        let hours = |value: &str| {
            let mut resource = resource(spec());
            resource.annotations_mut().insert(MAX_DATA_AGE.into(), value.into());
            max_data_age(&resource).map(|age| age.as_secs_f64() / 3600.0)
        };
        for (value, expected) in [("26h", 26.0), ("8d", 192.0), ("1w", 168.0), ("90m", 1.5), ("1d12h", 36.0)] {
            assert_eq!(hours(value), Some(expected), "{value}");
        }
        for value in ["", "0h", "-1h", "26", "a day", "1mo", "9999999999999999999h"] {
            assert_eq!(hours(value), None, "{value}");
        }
        assert_eq!(max_data_age(&resource(spec())), None);
    }
}
