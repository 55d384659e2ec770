//! The operations with their members, constraints and errors, copied from the service model in botocore.
//! `tests/service_model.rs` compares this table with that model.

use serde::Serialize;

/// The type of a member, with its constraints.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Shape {
    /// A string.
    String {
        /// Minimum characters.
        min: usize,
        /// Maximum characters.
        max: usize,
        /// The pattern that the whole string must match; empty if there is none.
        pattern: &'static str,
        /// Whether error messages omit the value.
        sensitive: bool,
    },
    /// A string without constraints.
    AnyString,
    /// One of these strings.
    Enum(&'static [&'static str]),
    /// A boolean.
    Boolean,
    /// A time, in seconds since the epoch, with a fraction.
    Timestamp,
    /// An integer without constraints.
    AnyInteger,
    /// An integer.
    Integer {
        /// Minimum value.
        min: i64,
        /// Maximum value.
        max: i64,
    },
    /// A structure.
    Structure(&'static [Member]),
    /// A list.
    List {
        /// Maximum elements.
        max: usize,
        /// The type of the elements.
        member: &'static Shape,
    },
}

/// A member of a structure.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Member {
    /// The name in JSON.
    pub name: &'static str,
    /// Whether a request without it is rejected.
    pub required: bool,
    /// Its type.
    pub shape: Shape,
}

/// An operation of the service.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Operation {
    /// The name in `X-Amz-Target`.
    pub name: &'static str,
    /// The members of a request.
    pub input: &'static [Member],
    /// The members of a response.
    pub output: &'static [Member],
    /// The errors that the model declares.
    pub errors: &'static [&'static str],
}

const NAME: Shape = string(1, 63, r"^[a-zA-Z0-9][a-zA-Z0-9\-_]*");
const ARN: Shape = string(0, 256, r"arn:([a-z\d-]+):personalize:.*:.*:.+");
const ROLE: Shape = string(0, 256, r"arn:([a-z\d-]+):iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+");
const LOCATION: Shape = string(0, 256, "(s3|http|https)://.+");
const TOKEN: Shape = string(0, 1500, r"\p{ASCII}{0,1500}");
const TAG_PATTERN: &str = r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$";
const TAG_KEY: Shape = Shape::String { min: 1, max: 128, pattern: TAG_PATTERN, sensitive: true };
const TAG_VALUE: Shape = Shape::String { min: 0, max: 256, pattern: TAG_PATTERN, sensitive: true };
const TAG: Shape = Shape::Structure(&[required("tagKey", TAG_KEY), required("tagValue", TAG_VALUE)]);
const TAGS: Shape = Shape::List { max: 200, member: &TAG };
const STATUS: Shape = string(0, 256, "");
const MODE: Shape = Shape::Enum(&["FULL", "INCREMENTAL"]);
const DATASET_TYPE: Shape = string(0, 256, "^[A-Za-z_]+$");
const SOURCE: Shape = Shape::Structure(&[optional("dataLocation", LOCATION)]);
const DOMAIN: Member = optional("domain", Shape::Enum(&["ECOMMERCE", "VIDEO_ON_DEMAND"]));
const CREATED: Member = optional("creationDateTime", Shape::Timestamp);
const UPDATED: Member = optional("lastUpdatedDateTime", Shape::Timestamp);
const PAGE_SIZE: Shape = Shape::Integer { min: 1, max: 100 };

const fn string(min: usize, max: usize, pattern: &'static str) -> Shape {
    Shape::String { min, max, pattern, sensitive: false }
}

const fn required(name: &'static str, shape: Shape) -> Member {
    Member { name, required: true, shape }
}

const fn optional(name: &'static str, shape: Shape) -> Member {
    Member { name, required: false, shape }
}

const JOB: &[Member] = &[
    optional("jobName", NAME),
    optional("datasetImportJobArn", ARN),
    optional("datasetArn", ARN),
    optional("dataSource", SOURCE),
    optional("roleArn", ARN),
    optional("status", STATUS),
    CREATED,
    UPDATED,
    optional("failureReason", Shape::AnyString),
    optional("importMode", MODE),
    optional("publishAttributionMetricsToS3", Shape::Boolean),
];
const JOB_SUMMARY: Shape = Shape::Structure(&[
    optional("datasetImportJobArn", ARN),
    optional("jobName", NAME),
    optional("status", STATUS),
    CREATED,
    UPDATED,
    optional("failureReason", Shape::AnyString),
    optional("importMode", MODE),
]);
const DELETION: &[Member] = &[
    optional("jobName", NAME),
    optional("dataDeletionJobArn", ARN),
    optional("datasetGroupArn", ARN),
    optional("dataSource", SOURCE),
    optional("roleArn", ROLE),
    optional("status", STATUS),
    optional("numDeleted", Shape::AnyInteger),
    CREATED,
    UPDATED,
    optional("failureReason", Shape::AnyString),
];
const DELETION_SUMMARY: Shape = Shape::Structure(&[
    optional("dataDeletionJobArn", ARN),
    optional("datasetGroupArn", ARN),
    optional("jobName", NAME),
    optional("status", STATUS),
    CREATED,
    UPDATED,
    optional("failureReason", Shape::AnyString),
]);
const DATASET: &[Member] = &[
    optional("name", NAME),
    optional("datasetArn", ARN),
    optional("datasetGroupArn", ARN),
    optional("datasetType", DATASET_TYPE),
    optional("schemaArn", ARN),
    optional("status", STATUS),
    CREATED,
    UPDATED,
    optional(
        "latestDatasetUpdate",
        Shape::Structure(&[
            optional("schemaArn", ARN),
            optional("status", STATUS),
            optional("failureReason", Shape::AnyString),
            CREATED,
            UPDATED,
        ]),
    ),
    optional("trackingId", string(0, 256, "")),
];
const DATASET_SUMMARY: Shape = Shape::Structure(&[
    optional("name", NAME),
    optional("datasetArn", ARN),
    optional("datasetType", DATASET_TYPE),
    optional("status", STATUS),
    CREATED,
    UPDATED,
]);
const SCHEMA: &[Member] = &[
    optional("name", NAME),
    optional("schemaArn", ARN),
    optional("schema", string(0, 20_000, "")),
    CREATED,
    UPDATED,
    DOMAIN,
];
const SCHEMA_SUMMARY: Shape =
    Shape::Structure(&[optional("name", NAME), optional("schemaArn", ARN), CREATED, UPDATED, DOMAIN]);
const NEXT: Member = optional("nextToken", TOKEN);

const INVALID: &str = "InvalidInputException";
const NOT_FOUND: &str = "ResourceNotFoundException";
const BAD_TOKEN: &str = "InvalidNextTokenException";
const IN_USE: &str = "ResourceInUseException";
const LIMIT: &str = "LimitExceededException";
const TOO_MANY_TAGS: &str = "TooManyTagsException";

/// The operations that the stand-in implements.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "CreateDatasetImportJob",
        input: &[
            required("jobName", NAME),
            required("datasetArn", ARN),
            required("dataSource", SOURCE),
            optional("roleArn", ROLE),
            optional("tags", TAGS),
            optional("importMode", MODE),
            optional("publishAttributionMetricsToS3", Shape::Boolean),
        ],
        output: &[optional("datasetImportJobArn", ARN)],
        errors: &[INVALID, NOT_FOUND, "ResourceAlreadyExistsException", LIMIT, IN_USE, TOO_MANY_TAGS],
    },
    Operation {
        name: "DescribeDatasetImportJob",
        input: &[required("datasetImportJobArn", ARN)],
        output: &[optional("datasetImportJob", Shape::Structure(JOB))],
        errors: &[INVALID, NOT_FOUND],
    },
    Operation {
        name: "ListDatasetImportJobs",
        input: &[optional("datasetArn", ARN), NEXT, optional("maxResults", PAGE_SIZE)],
        output: &[optional("datasetImportJobs", Shape::List { max: 100, member: &JOB_SUMMARY }), NEXT],
        errors: &[INVALID, BAD_TOKEN],
    },
    Operation {
        name: "DescribeDataset",
        input: &[required("datasetArn", ARN)],
        output: &[optional("dataset", Shape::Structure(DATASET))],
        errors: &[INVALID, NOT_FOUND],
    },
    Operation {
        name: "ListDatasets",
        input: &[optional("datasetGroupArn", ARN), NEXT, optional("maxResults", PAGE_SIZE)],
        output: &[optional("datasets", Shape::List { max: 100, member: &DATASET_SUMMARY }), NEXT],
        errors: &[INVALID, BAD_TOKEN],
    },
    Operation {
        name: "DescribeSchema",
        input: &[required("schemaArn", ARN)],
        output: &[optional("schema", Shape::Structure(SCHEMA))],
        errors: &[INVALID, NOT_FOUND],
    },
    Operation {
        name: "ListSchemas",
        input: &[NEXT, optional("maxResults", PAGE_SIZE)],
        output: &[optional("schemas", Shape::List { max: 100, member: &SCHEMA_SUMMARY }), NEXT],
        errors: &[BAD_TOKEN],
    },
    Operation {
        name: "TagResource",
        input: &[required("resourceArn", ARN), required("tags", TAGS)],
        output: &[],
        errors: &[INVALID, NOT_FOUND, TOO_MANY_TAGS, IN_USE, LIMIT],
    },
    Operation {
        name: "UntagResource",
        input: &[required("resourceArn", ARN), required("tagKeys", Shape::List { max: 200, member: &TAG_KEY })],
        output: &[],
        errors: &[INVALID, NOT_FOUND, "TooManyTagKeysException", IN_USE],
    },
    Operation {
        name: "ListTagsForResource",
        input: &[required("resourceArn", ARN)],
        output: &[optional("tags", TAGS)],
        errors: &[INVALID, NOT_FOUND, IN_USE],
    },
    Operation {
        name: "CreateDataDeletionJob",
        input: &[
            required("jobName", NAME),
            required("datasetGroupArn", ARN),
            required("dataSource", SOURCE),
            required("roleArn", ROLE),
            optional("tags", TAGS),
        ],
        output: &[optional("dataDeletionJobArn", ARN)],
        errors: &[INVALID, NOT_FOUND, "ResourceAlreadyExistsException", LIMIT, IN_USE, TOO_MANY_TAGS],
    },
    Operation {
        name: "DescribeDataDeletionJob",
        input: &[required("dataDeletionJobArn", ARN)],
        output: &[optional("dataDeletionJob", Shape::Structure(DELETION))],
        errors: &[INVALID, NOT_FOUND],
    },
    Operation {
        name: "ListDataDeletionJobs",
        input: &[optional("datasetGroupArn", ARN), NEXT, optional("maxResults", PAGE_SIZE)],
        output: &[optional("dataDeletionJobs", Shape::List { max: 100, member: &DELETION_SUMMARY }), NEXT],
        errors: &[INVALID, BAD_TOKEN],
    },
];

impl Operation {
    /// Finds an operation by name.
    pub fn find(name: &str) -> Option<&'static Self> {
        OPERATIONS.iter().find(|operation| operation.name == name)
    }
}
