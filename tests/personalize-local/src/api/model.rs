//! The operations and their members, constraints and errors, as botocore's service model has them.
//! `tests/service_model.rs` compares this table with that model.

use serde::Serialize;

/// What a member holds.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A string: shortest, longest, pattern (empty if it has none), and whether it is sensitive.
    Text {
        /// Fewest characters.
        min: usize,
        /// Most characters.
        max: usize,
        /// The pattern that the whole string matches.
        pattern: &'static str,
        /// Whether an error message keeps quiet about the value.
        sensitive: bool,
    },
    /// A string without limits.
    Words,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// A boolean.
    Flag,
    /// A time, as seconds since the epoch with a fraction.
    Time,
    /// An integer between these bounds, both included.
    Count {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A structure.
    Structure(&'static [Member]),
    /// A list of at most so many.
    List {
        /// Most elements.
        max: usize,
        /// What each element is.
        of: &'static Kind,
    },
}

/// A member of a structure.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Member {
    /// Its name on the wire.
    pub name: &'static str,
    /// Whether a request without it is refused.
    pub required: bool,
    /// What it holds.
    pub kind: Kind,
}

/// An operation of the service.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Operation {
    /// Its name, as in `X-Amz-Target`.
    pub name: &'static str,
    /// The members of a request.
    pub input: &'static [Member],
    /// The members of an answer.
    pub output: &'static [Member],
    /// The errors that the model declares.
    pub errors: &'static [&'static str],
}

const NAME: Kind = text(1, 63, r"^[a-zA-Z0-9][a-zA-Z0-9\-_]*");
const ARN: Kind = text(0, 256, r"arn:([a-z\d-]+):personalize:.*:.*:.+");
const ROLE: Kind = text(0, 256, r"arn:([a-z\d-]+):iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+");
const LOCATION: Kind = text(0, 256, "(s3|http|https)://.+");
const TOKEN: Kind = text(0, 1500, r"\p{ASCII}{0,1500}");
const TAG_PATTERN: &str = r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$";
const TAG_KEY: Kind = Kind::Text { min: 1, max: 128, pattern: TAG_PATTERN, sensitive: true };
const TAG_VALUE: Kind = Kind::Text { min: 0, max: 256, pattern: TAG_PATTERN, sensitive: true };
const TAG: Kind = Kind::Structure(&[required("tagKey", TAG_KEY), required("tagValue", TAG_VALUE)]);
const TAGS: Kind = Kind::List { max: 200, of: &TAG };
const STATUS: Kind = text(0, 256, "");
const MODE: Kind = Kind::Choice(&["FULL", "INCREMENTAL"]);
const DATASET_TYPE: Kind = text(0, 256, "^[A-Za-z_]+$");
const SOURCE: Kind = Kind::Structure(&[optional("dataLocation", LOCATION)]);
const DOMAIN: Member = optional("domain", Kind::Choice(&["ECOMMERCE", "VIDEO_ON_DEMAND"]));
const CREATED: Member = optional("creationDateTime", Kind::Time);
const UPDATED: Member = optional("lastUpdatedDateTime", Kind::Time);
const PAGE_SIZE: Kind = Kind::Count { min: 1, max: 100 };

const fn text(min: usize, max: usize, pattern: &'static str) -> Kind {
    Kind::Text { min, max, pattern, sensitive: false }
}

const fn required(name: &'static str, kind: Kind) -> Member {
    Member { name, required: true, kind }
}

const fn optional(name: &'static str, kind: Kind) -> Member {
    Member { name, required: false, kind }
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
    optional("failureReason", Kind::Words),
    optional("importMode", MODE),
    optional("publishAttributionMetricsToS3", Kind::Flag),
];
const JOB_SUMMARY: Kind = Kind::Structure(&[
    optional("datasetImportJobArn", ARN),
    optional("jobName", NAME),
    optional("status", STATUS),
    CREATED,
    UPDATED,
    optional("failureReason", Kind::Words),
    optional("importMode", MODE),
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
        Kind::Structure(&[
            optional("schemaArn", ARN),
            optional("status", STATUS),
            optional("failureReason", Kind::Words),
            CREATED,
            UPDATED,
        ]),
    ),
    optional("trackingId", text(0, 256, "")),
];
const DATASET_SUMMARY: Kind = Kind::Structure(&[
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
    optional("schema", text(0, 20_000, "")),
    CREATED,
    UPDATED,
    DOMAIN,
];
const SCHEMA_SUMMARY: Kind =
    Kind::Structure(&[optional("name", NAME), optional("schemaArn", ARN), CREATED, UPDATED, DOMAIN]);
const NEXT: Member = optional("nextToken", TOKEN);

const INVALID: &str = "InvalidInputException";
const NOT_FOUND: &str = "ResourceNotFoundException";
const BAD_TOKEN: &str = "InvalidNextTokenException";
const IN_USE: &str = "ResourceInUseException";
const LIMIT: &str = "LimitExceededException";
const TOO_MANY_TAGS: &str = "TooManyTagsException";

/// The operations of the service that the stand-in answers.
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
            optional("publishAttributionMetricsToS3", Kind::Flag),
        ],
        output: &[optional("datasetImportJobArn", ARN)],
        errors: &[INVALID, NOT_FOUND, "ResourceAlreadyExistsException", LIMIT, IN_USE, TOO_MANY_TAGS],
    },
    Operation {
        name: "DescribeDatasetImportJob",
        input: &[required("datasetImportJobArn", ARN)],
        output: &[optional("datasetImportJob", Kind::Structure(JOB))],
        errors: &[INVALID, NOT_FOUND],
    },
    Operation {
        name: "ListDatasetImportJobs",
        input: &[optional("datasetArn", ARN), NEXT, optional("maxResults", PAGE_SIZE)],
        output: &[optional("datasetImportJobs", Kind::List { max: 100, of: &JOB_SUMMARY }), NEXT],
        errors: &[INVALID, BAD_TOKEN],
    },
    Operation {
        name: "DescribeDataset",
        input: &[required("datasetArn", ARN)],
        output: &[optional("dataset", Kind::Structure(DATASET))],
        errors: &[INVALID, NOT_FOUND],
    },
    Operation {
        name: "ListDatasets",
        input: &[optional("datasetGroupArn", ARN), NEXT, optional("maxResults", PAGE_SIZE)],
        output: &[optional("datasets", Kind::List { max: 100, of: &DATASET_SUMMARY }), NEXT],
        errors: &[INVALID, BAD_TOKEN],
    },
    Operation {
        name: "DescribeSchema",
        input: &[required("schemaArn", ARN)],
        output: &[optional("schema", Kind::Structure(SCHEMA))],
        errors: &[INVALID, NOT_FOUND],
    },
    Operation {
        name: "ListSchemas",
        input: &[NEXT, optional("maxResults", PAGE_SIZE)],
        output: &[optional("schemas", Kind::List { max: 100, of: &SCHEMA_SUMMARY }), NEXT],
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
        input: &[required("resourceArn", ARN), required("tagKeys", Kind::List { max: 200, of: &TAG_KEY })],
        output: &[],
        errors: &[INVALID, NOT_FOUND, "TooManyTagKeysException", IN_USE],
    },
    Operation {
        name: "ListTagsForResource",
        input: &[required("resourceArn", ARN)],
        output: &[optional("tags", TAGS)],
        errors: &[INVALID, NOT_FOUND, IN_USE],
    },
];

impl Operation {
    /// The operation of this name, if the stand-in has it.
    pub fn named(name: &str) -> Option<&'static Self> {
        OPERATIONS.iter().find(|operation| operation.name == name)
    }
}
