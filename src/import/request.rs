//! The import that a resource asks for: its hash, the derived job name, and the tags that prove ownership.
//!
//! Nothing here depends on a UID or a clock. A resource that is restored from a backup or applied to a rebuilt cluster
//! derives the same name and finds its job.
//!
//! ```
//! use personalize_operator::api::DatasetImportJobSpec;
//! use personalize_operator::import::ImportRequest;
//!
//! let spec: DatasetImportJobSpec = serde_json::from_value(serde_json::json!({
//!     "datasetArn": "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS",
//!     "dataSource": { "dataLocation": "s3://shop-data/interactions.csv" },
//!     "roleArn": "arn:aws:iam::123456789012:role/PersonalizeRead",
//! }))?;
//! let request = ImportRequest::new("shop", "nightly", &spec)?;
//! let first = request.job_name(1);
//! assert_eq!(first, format!("nightly-{}", &request.hash()[..16]));
//! assert_eq!(request.job_name(2), format!("{first}-2"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::api::conditions::whole_seconds;
use crate::api::{DatasetImportJob, DatasetImportJobSpec, ImportMode, ImportedData, Tag};
use crate::personalize::{CreateJobInput, DatasetArn, InvalidDatasetArn, JobArn, MAX_TAGS};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::json;
use sha2::{Digest, Sha256};

/// How far the clocks of AWS and the cluster may differ.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(15);

/// The longest job name that the service accepts, in characters.
const MAX_NAME_LENGTH: usize = 63;

/// The hex digits of the hash in a derived name: 64 bits.
const HASH_IN_NAME: usize = 16;

/// The tag that holds the resource's namespace.
pub const TAG_NAMESPACE: &str = "personalize-operator.io/namespace";
/// The tag that holds the resource's name.
pub const TAG_NAME: &str = "personalize-operator.io/name";
/// The tag that holds the request hash.
pub const TAG_REQUEST_HASH: &str = "personalize-operator.io/request-hash";
/// The tag that holds when the resource was created (RFC 3339). It orders imports even after their resources are
/// deleted.
pub const TAG_REQUESTED_AT: &str = "personalize-operator.io/requested-at";

/// The tag that holds the size and the fingerprint of the imported data. A job that has 50 tags without it lacks it.
pub const TAG_DATA: &str = "personalize-operator.io/data";

/// The import that one resource asks for, validated and ready to submit.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportRequest {
    /// The resource's namespace.
    pub namespace: String,
    /// The resource's name.
    pub name: String,
    /// The dataset that receives the data.
    pub dataset: DatasetArn,
    /// The S3 location of the data.
    pub data_location: String,
    /// The role with which the service reads the data.
    pub role_arn: String,
    /// `spec.jobName`: the fixed job name, if there is one.
    pub job_name: Option<String>,
    /// FULL or INCREMENTAL.
    pub import_mode: ImportMode,
    /// Whether attribution metrics are published; `None` leaves it to the service.
    pub publish_attribution_metrics_to_s3: Option<bool>,
    /// The user's tags, without the ones that the operator adds.
    pub tags: Vec<Tag>,
    /// When the resource was created, if known.
    pub requested_at: Option<Timestamp>,
}

impl ImportRequest {
    /// The request of a resource.
    ///
    /// # Errors
    /// As [`ImportRequest::new`].
    pub fn of(resource: &DatasetImportJob) -> Result<Self, InvalidDatasetArn> {
        let request = Self::new(&resource.namespace().unwrap_or_default(), &resource.name_any(), &resource.spec)?;
        Ok(Self { requested_at: resource.creation_timestamp().map(|at| at.0), ..request })
    }

    /// The request of a spec.
    ///
    /// # Errors
    /// When the dataset's ARN is invalid. The current CRD rejects such a spec; an older one accepted it.
    pub fn new(namespace: &str, name: &str, spec: &DatasetImportJobSpec) -> Result<Self, InvalidDatasetArn> {
        // No `..`, so that a new field of the spec forces the decision whether it is part of the request.
        let DatasetImportJobSpec {
            dataset_arn,
            data_source,
            role_arn,
            job_name,
            import_mode,
            publish_attribution_metrics_to_s3,
            tags,
            suspend: _,
            backoff_limit: _,
            preflight: _,
            guard: _,
        } = spec;
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
            dataset: DatasetArn::parse(dataset_arn)?,
            data_location: data_source.data_location.clone(),
            role_arn: role_arn.clone(),
            job_name: job_name.clone(),
            import_mode: *import_mode,
            publish_attribution_metrics_to_s3: *publish_attribution_metrics_to_s3,
            tags: tags.clone().unwrap_or_default(),
            requested_at: None,
        })
    }

    /// The SHA-256, in hex, over the namespace, the name and every field that defines the import.
    ///
    /// A missing field hashes like its default. Tags are left out: they label a job and don't change what it imports.
    #[must_use]
    pub fn hash(&self) -> String {
        let canonical = json!([
            "v1",
            self.namespace,
            self.name,
            self.dataset.as_str(),
            self.data_location,
            self.role_arn,
            self.job_name,
            self.import_mode.as_str(),
            self.publish_attribution_metrics_to_s3.unwrap_or(false),
        ]);
        let digest = Sha256::digest(canonical.to_string());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The name of the job of this attempt (from 1): 1 to 63 letters, digits, `-` and `_`.
    #[must_use]
    pub fn job_name(&self, attempt: i32) -> String {
        if let Some(fixed) = &self.job_name {
            return fixed.clone();
        }
        let hash = self.hash();
        let mut suffix = format!("-{}", &hash[..HASH_IN_NAME]);
        if attempt > 1 {
            suffix.push_str(&format!("-{attempt}"));
        }
        let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        // A resource's name starts with a letter or digit, as a job's name must.
        let head: String = self.name.chars().map(allowed).take(MAX_NAME_LENGTH - suffix.len()).collect();
        format!("{head}{suffix}")
    }

    /// The ARN of the job of this attempt.
    #[must_use]
    pub fn job_arn(&self, attempt: i32) -> JobArn {
        self.dataset.job(&self.job_name(attempt))
    }

    /// The input of CreateDatasetImportJob for this attempt, which imports this data, if it was listed.
    #[must_use]
    pub fn create_input(&self, attempt: i32, data: Option<&ImportedData>) -> CreateJobInput {
        let mut tags: Vec<Tag> = self.tags.iter().cloned().chain(self.own_tags()).collect();
        tags.extend(data.filter(|_| tags.len() < MAX_TAGS).map(data_tag));
        CreateJobInput {
            job_name: self.job_name(attempt),
            dataset: self.dataset.clone(),
            data_location: self.data_location.clone(),
            role_arn: self.role_arn.clone(),
            import_mode: self.import_mode,
            publish_attribution_metrics_to_s3: self.publish_attribution_metrics_to_s3,
            tags,
        }
    }

    /// Whether a further attempt gets a new name. A fixed name is used once.
    #[must_use]
    pub(crate) fn can_retry(&self) -> bool {
        self.job_name.is_none()
    }

    /// The tags that the operator adds: three prove ownership, one holds the age of the import.
    #[must_use]
    pub fn own_tags(&self) -> Vec<Tag> {
        let tag = |key: &str, value: &str| Tag { tag_key: key.into(), tag_value: value.into() };
        let mut tags =
            vec![tag(TAG_NAMESPACE, &self.namespace), tag(TAG_NAME, &self.name), tag(TAG_REQUEST_HASH, &self.hash())];
        tags.extend(self.requested_at.map(|at| tag(TAG_REQUESTED_AT, &whole_seconds(at).0.to_string())));
        tags
    }
}

/// When the resource of the job with these tags was created, if a tag says so.
#[must_use]
pub fn requested_at(tags: &[Tag]) -> Option<Timestamp> {
    tags.iter().find(|tag| tag.tag_key == TAG_REQUESTED_AT)?.tag_value.parse().ok()
}

/// A job that was not created after this moment belongs to no resource that is newer than one of this age, even if the
/// clocks of AWS and the cluster differ.
#[must_use]
pub(crate) fn newer_jobs_after(requested_at: Timestamp) -> Timestamp {
    requested_at.checked_sub(CLOCK_SKEW).unwrap_or(Timestamp::MIN)
}

/// The tag of a job that imports this data.
fn data_tag(ImportedData { files, bytes, fingerprint }: &ImportedData) -> Tag {
    let tag_value = format!("bytes={bytes} files={files} fingerprint={fingerprint}");
    Tag { tag_key: TAG_DATA.into(), tag_value }
}

/// The data that the job with these tags has imported, if a tag says so.
#[must_use]
pub fn imported_data(tags: &[Tag]) -> Option<ImportedData> {
    let value = &tags.iter().find(|tag| tag.tag_key == TAG_DATA)?.tag_value;
    let field = |name| value.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let number = |name| field(name)?.parse().ok().filter(|number| *number >= 0);
    let (files, bytes) = (number("files")?, number("bytes")?);
    Some(ImportedData { files, bytes, fingerprint: field("fingerprint")?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;
    use proptest::prelude::*;

    fn request(namespace: &str, name: &str) -> ImportRequest {
        ImportRequest::new(namespace, name, &spec()).unwrap()
    }

    #[test]
    fn request_hash_never_changes() {
        // A change here makes every existing manifest import again. Never update this value.
        assert_eq!(
            request("shop", "nightly").hash(),
            "8f1ba9c618943263a98667ac7ec11e8409f4546e99cbc271a6f8b5998a34df68"
        );
    }

    #[test]
    fn explicit_default_hashes_like_a_missing_field() {
        let mut written = spec();
        written.publish_attribution_metrics_to_s3 = Some(false);
        written.suspend = true;
        written.backoff_limit = 3;
        written.tags = Some(vec![Tag { tag_key: "team".into(), tag_value: "a".into() }]);
        let written = ImportRequest::new("shop", "nightly", &written).unwrap();
        assert_eq!(written.hash(), request("shop", "nightly").hash());
    }

    #[test]
    fn every_field_that_defines_the_import_changes_the_hash() {
        let base = request("shop", "nightly").hash();
        let change = |edit: fn(&mut DatasetImportJobSpec)| {
            let mut changed = spec();
            edit(&mut changed);
            ImportRequest::new("shop", "nightly", &changed).unwrap().hash()
        };
        let hashes = [
            change(|s| s.dataset_arn.push('2')),
            change(|s| s.data_source.data_location.push('2')),
            change(|s| s.role_arn.push('2')),
            change(|s| s.job_name = Some("fixed".into())),
            change(|s| s.import_mode = ImportMode::Incremental),
            change(|s| s.publish_attribution_metrics_to_s3 = Some(true)),
            request("shop2", "nightly").hash(),
            request("shop", "nightly2").hash(),
        ];
        for (i, hash) in hashes.iter().enumerate() {
            assert_ne!(*hash, base, "change {i}");
            assert!(!hashes[..i].contains(hash), "change {i}");
        }
    }

    #[test]
    fn fixed_job_name_is_used_as_it_is() {
        let mut fixed = spec();
        fixed.job_name = Some("mine".into());
        let request = ImportRequest::new("shop", "nightly", &fixed).unwrap();
        assert_eq!(request.job_name(1), "mine");
        assert_eq!(request.job_name(2), "mine");
        assert!(!request.can_retry());
    }

    proptest! {
        #[test]
        fn derived_names_are_valid_stable_and_distinct(
            name in "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?",
            other in "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?",
            attempt in 1..i32::MAX,
        ) {
            let job = request("ns", &name).job_name(attempt);
            prop_assert!((1..=63).contains(&job.len()));
            prop_assert!(job.as_bytes()[0].is_ascii_alphanumeric());
            prop_assert!(job.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(&job, &request("ns", &name).job_name(attempt));
            prop_assert_ne!(&job, &request("ns", &name).job_name(if attempt == 1 { 2 } else { attempt - 1 }));
            if name != other {
                prop_assert_ne!(job, request("ns", &other).job_name(attempt));
            }
        }
    }
}
