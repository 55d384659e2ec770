//! The spec: the request of CreateDatasetImportJob in the API's own words, and four fields of ours.
//!
//! Lengths and patterns are those of the Personalize service model (2018-05-22); the rules that
//! say more than the model does (a region, an account, no control characters) are CEL, because
//! CEL can answer with a sentence.

#![allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "KubeSchema emits a second, private struct with the same visibility"
)]

use super::DatasetImportJobStatus;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Accepts text in which each character is visible or a space, and none changes the direction of writing.
const NOTHING_INVISIBLE: &str = r"self.matches('^[^\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}\\x{34f}\\x{115f}\\x{1160}\\x{17b4}\\x{17b5}\\x{180b}-\\x{180f}\\x{2065}\\x{2800}\\x{3164}\\x{fe00}-\\x{fe0f}\\x{ffa0}\\x{1bca0}-\\x{1bca3}\\x{1d173}-\\x{1d17a}\\x{e0000}-\\x{e0fff}]*$')";

/// The data that an Amazon Personalize dataset should hold.
///
/// The operator submits one dataset import job for each resource, follows it, and reports its
/// outcome in status. The fields that define the import can't be changed: for another import
/// create another resource.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "personalize-operator.io",
    version = "v1alpha1",
    kind = "DatasetImportJob",
    plural = "datasetimportjobs",
    singular = "datasetimportjob",
    shortname = "dij",
    category = "personalize",
    namespaced,
    status = "DatasetImportJobStatus",
    doc = "An import of CSV data from S3 into an Amazon Personalize dataset, submitted exactly once and followed to its end. See https://docs.aws.amazon.com/personalize/latest/dg/bulk-data-import-step.html for the service's own guide.",
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.status",
        description = "The status of the job as the service tells it"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why the import is in its state"
    ),
    printcolumn(
        name = "Started",
        type_ = "date",
        json_path = ".status.startTime",
        description = "When the service took the first job of this resource"
    ),
    printcolumn(
        name = "Finished",
        type_ = "date",
        json_path = ".status.completionTime",
        description = "When the import ended, either way"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Dataset", type_ = "string", json_path = ".spec.datasetArn", priority = 1),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "How far the import is, in one word",
        priority = 1
    ),
    printcolumn(
        name = "Current",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="DataCurrent")].status"#,
        description = "Whether the dataset holds the data of this import: it is as old as Finished says",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.datasetArn == oldSelf.datasetArn").message("datasetArn is immutable: to import into another dataset, create a DatasetImportJob with another name").field_path(".datasetArn"),
    validation = Rule::new("self.dataSource == oldSelf.dataSource").message("dataSource is immutable: to import other data, create a DatasetImportJob with another name").field_path(".dataSource"),
    validation = Rule::new("self.roleArn == oldSelf.roleArn").message("roleArn is immutable: to import with another role, delete this DatasetImportJob and create it anew").field_path(".roleArn"),
    validation = Rule::new("has(self.jobName) == has(oldSelf.jobName) && (!has(self.jobName) || self.jobName == oldSelf.jobName)").message("jobName is immutable: to import under another name, create a DatasetImportJob with another name"),
    validation = Rule::new("self.importMode == oldSelf.importMode").message("importMode is immutable: to import in another mode, create a DatasetImportJob with another name").field_path(".importMode"),
    validation = Rule::new("(has(self.publishAttributionMetricsToS3) && self.publishAttributionMetricsToS3) == (has(oldSelf.publishAttributionMetricsToS3) && oldSelf.publishAttributionMetricsToS3)").message("publishAttributionMetricsToS3 is immutable: to change it, create a DatasetImportJob with another name"),
    validation = Rule::new("has(self.tags) == has(oldSelf.tags) && (!has(self.tags) || self.tags == oldSelf.tags)").message("tags is immutable: the service takes them once, with the import; for other tags create a DatasetImportJob with another name"),
    validation = Rule::new("!has(self.jobName) || self.backoffLimit == 0").message("backoffLimit can't be used together with jobName: a failed job keeps its name, so it can't be retried; leave out one of them").field_path(".backoffLimit"),
    validation = Rule::new("self.roleArn.split(':')[4] == self.datasetArn.split(':')[4]").message("roleArn must be of the same account as datasetArn: a role can't be passed to the service in another account").field_path(".roleArn"),
    validation = Rule::new("self.roleArn.split(':')[1] == self.datasetArn.split(':')[1]").message("roleArn must be of the same partition as datasetArn, such as aws or aws-cn").field_path(".roleArn"),
    validation = Rule::new("!has(self.guard) || self.importMode == 'FULL'").message("guard can be used only with importMode FULL: another import replaces no data").field_path(".guard")
)]
pub struct DatasetImportJobSpec {
    /// The ARN of the dataset that receives the data, for example
    /// arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS. Its region and account are
    /// where the import is made. The dataset may be created later: the import waits until it is ACTIVE.
    /// Immutable.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^arn:([a-z\d-]+):personalize:.*:.*:.+$"))]
    #[x_kube(validation = Rule::new(r"self.matches('^arn:[a-z0-9-]+:personalize:[a-z]{2,}(-[a-z0-9]+)+:[0-9]{12}:dataset/[a-zA-Z0-9_/.-]+$')").message("datasetArn must be the ARN of a dataset with its region and 12-digit account, such as arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS"))]
    #[x_kube(validation = Rule::new("!self.matches('/(?i:(action[_-]?)?interactions?|users?|items?|actions?)$') || self.matches('/(INTERACTIONS|USERS|ITEMS|ACTIONS|ACTION_INTERACTIONS)$')").message("datasetArn must end with a type of dataset as the service spells it: INTERACTIONS, USERS, ITEMS, ACTIONS or ACTION_INTERACTIONS"))]
    pub dataset_arn: String,

    /// Where the data is. Immutable.
    pub data_source: DataSource,

    /// The ARN of the IAM role that Amazon Personalize takes to read the data, for example
    /// arn:aws:iam::123456789012:role/PersonalizeS3Read. It needs s3:GetObject and s3:ListBucket on the
    /// bucket, the bucket policy must let personalize.amazonaws.com in, and the operator needs
    /// iam:PassRole on the role. Immutable.
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^arn:([a-z\d-]+):iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+$")
    )]
    #[x_kube(validation = Rule::new(r"self.matches('^arn:[a-z0-9-]+:iam::[0-9]{12}:role/?[a-zA-Z0-9+=,.@_/-]+$')").message("roleArn must be the ARN of an IAM role with its 12-digit account, such as arn:aws:iam::123456789012:role/PersonalizeS3Read"))]
    pub role_arn: String,

    /// The name of the job in Amazon Personalize: 1 to 63 characters, letters, digits, - and _. Leave it
    /// out, and the operator derives one from this resource's namespace, name and request, so that the
    /// same manifest always finds its own job. A name given here is used as it is; since a failed job
    /// keeps its name, such an import can't be retried. It must not end like a derived name, in - and 16
    /// hexadecimal digits: it could take the name of another import. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9\-_]*$"))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-zA-Z0-9][a-zA-Z0-9_-]*$')").message("jobName must begin with a letter or digit and consist of letters, digits, - and _"))]
    #[x_kube(validation = Rule::new(r"!self.matches('-[0-9a-f]{16}(-[0-9]+)?$')").message("jobName must not end like the names that the operator derives, in - and 16 hexadecimal digits: it could take the name of another import"))]
    pub job_name: Option<String>,

    /// FULL replaces all bulk data of the dataset. INCREMENTAL adds to it and updates what is there; it
    /// needs an earlier FULL import and takes at most 1 GB. Immutable.
    #[serde(default)]
    pub import_mode: ImportMode,

    /// Whether the service publishes metrics for this import to the S3 location of the dataset group's
    /// metric attribution. Immutable.
    #[serde(default, rename = "publishAttributionMetricsToS3", skip_serializing_if = "Option::is_none")]
    pub publish_attribution_metrics_to_s3: Option<bool>,

    /// Tags for the job in AWS, each key once, at most 46: the service takes 50, and the operator adds
    /// four of its own. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 46))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["tagKey".into()]))]
    pub tags: Option<Vec<Tag>>,

    /// true holds the import back until it is set to false. It has no effect on an import that was
    /// submitted already: the service can't stop one.
    #[serde(default)]
    pub suspend: bool,

    /// How many more jobs to submit when one ends with CREATE FAILED. Each is billed. It can't be used
    /// together with jobName, because a failed job keeps its name.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: i32,

    /// Whether the data is checked before the import is submitted: "Off" (quoted, because YAML reads a plain Off as
    /// false), Warn or Enforce. Without it the operator's flag --preflight counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<Preflight>,

    /// Holds a FULL import whose data is suspiciously small, before it replaces good data: reason GuardTripped, until
    /// the data changes or a user releases it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
}

/// When a FULL import is held.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.minBytes) || has(self.maxShrinkPercent)").message("guard must have minBytes, maxShrinkPercent or both"))]
pub struct Guard {
    /// The least size of the data in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_bytes: Option<i64>,
    /// By how many percent the data may be smaller than that of the last FULL import into the dataset: 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_shrink_percent: Option<i32>,
}

/// Where the data of an import is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DataSource {
    /// One CSV file, such as s3://bucket/interactions.csv, or a folder, ending in /, that contains nothing
    /// but CSV files with the same header.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^(s3|http|https)://.+$"))]
    #[x_kube(validation = Rule::new(r"self.matches('^(s3|http|https)://.')").message("dataLocation must be where the CSV data is in S3, such as s3://bucket/interactions.csv, or s3://bucket/folder/ for all files in it"))]
    #[x_kube(validation = Rule::new(NOTHING_INVISIBLE).message("dataLocation must not contain control characters such as a line break, or invisible characters"))]
    #[x_kube(validation = Rule::new(r"self.matches('^[^\\p{Z}]+( [^\\p{Z}]+)*$')").message("dataLocation must not contain white space other than single spaces"))]
    #[x_kube(validation = Rule::new(r#"!self.matches('://([^/?#]*@|[^/?#]*:[^/?#]*[^0-9/?#].*@)|(^|[^A-Za-z0-9/+_.-])((IQoJb3JpZ2lu|AgoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz|AQoDYXdz)[A-Za-z0-9/+_.-]{8}|eyJ[A-Za-z0-9/+_.-]{17})|[ ?&,;"<>\\x27](.*[^A-Za-z0-9])?(AKIA|ASIA)[A-Z0-9]{16}([^A-Za-z0-9]|$)|[ ?&,;"<>\\x27](.*[^A-Za-z0-9/+])?[A-Za-z0-9/+]{40}([^A-Za-z0-9/+]|$)') && !self.lowerAscii().replace('-', '').replace('_', '').matches('[ ?&,;"<>\\x27].*(password|authorization|externalid|secretaccesskey|awssecretkey|secretkey|signature|token)[^a-z0-9/]*([=:]| (is )*[^ ]{16})')"#).message("dataLocation must not contain credentials, such as a user before @, a token, or the parameters of a signed URL: everybody who can read this resource could use them"))]
    pub data_location: String,
}

/// How an import treats the data that the dataset already holds.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ImportMode {
    /// Replaces all bulk data.
    #[default]
    #[serde(rename = "FULL")]
    Full,
    /// Adds to the data and updates it.
    #[serde(rename = "INCREMENTAL")]
    Incremental,
}

impl ImportMode {
    /// The API's own word for this mode.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Incremental => "INCREMENTAL",
        }
    }
}

/// Whether the data is checked before the import is submitted: "Off" (quoted, because YAML reads a plain Off as false),
/// Warn or Enforce. Without it the operator's flag --preflight counts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Preflight {
    /// It is not.
    Off,
    /// It is, and the import is submitted whatever the check finds: the condition DataChecked tells it.
    #[default]
    Warn,
    /// The import is not submitted while the data breaks a documented rule.
    Enforce,
}

/// A tag of the job in AWS.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct Tag {
    /// 1 to 128 letters, digits, spaces and any of _ . : / = + - @; not beginning with aws: or personalize-operator.io/.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$"))]
    #[x_kube(validation = Rule::new(r"self.matches('^[\\p{L}\\p{Z}\\p{N}_.:/=+@-]*$')").message("tagKey must consist of letters, digits, spaces and any of _ . : / = + - @"))]
    #[x_kube(validation = Rule::new(NOTHING_INVISIBLE).message("tagKey must not contain invisible characters"))]
    #[x_kube(validation = Rule::new("!self.startsWith('aws:') && !self.startsWith('personalize-operator.io/')").message("tagKey must not begin with aws: or personalize-operator.io/, which are reserved"))]
    pub tag_key: String,

    /// 0 to 256 letters, digits, spaces and any of _ . : / = + - @.
    #[schemars(length(max = 256), regex(pattern = r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$"))]
    #[x_kube(validation = Rule::new(r"self.matches('^[\\p{L}\\p{Z}\\p{N}_.:/=+@-]*$')").message("tagValue must consist of letters, digits, spaces and any of _ . : / = + - @"))]
    #[x_kube(validation = Rule::new(NOTHING_INVISIBLE).message("tagValue must not contain invisible characters"))]
    pub tag_value: String,
}
