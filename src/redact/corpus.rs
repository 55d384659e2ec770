//! Texts of the kinds that the operator shows, and secrets in the notations in which they are written. The rates at
//! which good text is changed and secrets are missed are measured on them.

use super::sanitize;
use crate::api::UNCHANGED;
use proptest::collection;
use proptest::prelude::*;
use proptest::sample::select;
use regex::Regex;
use std::sync::LazyLock;

/// Locations that people use.
const LOCATIONS: &[&str] = &[
    "s3://shop-data/Exports/2026/11/24/InteractionsFull",
    "s3://shop-data/exports/2026/11/24/interactions.csv",
    "s3://acme-personalize-eu-west-1/exports/dt=2026-11-24/part-00000-4f1c9a3e-7c7b-4b1f-9c6d-2a5b8e0f7d11-c000.csv",
    "s3://data-lake-123456789012-eu-central-1/curated/Interactions/year=2026/month=11/day=24/",
    "s3://my-bucket/DatasetExports/2026-11-24T03:15:00Z/Interactions.csv",
    "s3://aws-athena-query-results-123456789012-us-east-1/Unsaved/2026/11/24/3f0b8a62-9c7e-4d5b-8f1a-6e2d4c9b7a05.csv",
    "s3://warehouse/UNLOAD/InteractionsFullExport0001_part_00.csv",
    "s3://bkt/ProductionExports/PersonalizeInteractions2026Q4.csv",
    "s3://bkt/ASIA/2026/users.csv",
    "s3://bkt/ASIAPACIFICEXPORTS26/items.csv",
    "s3://bkt/session_token/users.csv",
    "s3://bkt/token=full/users.csv",
    "s3://bkt/Authorization/items.csv",
    "s3://bkt/secret-sauce/items/",
    "s3://bkt/secret=none/items/",
    "s3://bkt/password-resets/interactions.csv",
    "s3://bkt/da39a3ee5e6b4b0d3255bfef95601890afd80709/items.csv",
    "s3://bkt/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/",
    "s3://bkt/01HG7Z3Q9V5K8M2N4P6R8T0W1X/interactions.csv",
    "s3://bkt/run-1732418100123-part-r-00000",
    "s3://firehose-landing/2026/11/24/03/clickstream-1-2026-11-24-03-15-00-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9.csv",
    "s3://bkt/UsersExportDailySnapshotProduction2026v2",
    "s3://bkt/Users/Export/Daily/Snapshot/Production/v2",
    "s3://TeamA.Prod/CamelCaseFolder/AnotherCamelCaseFolder2/FinalFolder3/",
    "s3://bkt/spark-warehouse/RecommendationEvents/_temporary/0/",
    "s3://bkt/backups/2026W48/ItemMetadataFullReload/",
    "s3://bkt/k8s/jobs/nightly-28873215-x7k2p/users.csv",
    "s3://shop.example.com/feeds/items_2026-11-24.csv",
    "s3://bkt/Kunden/M\u{fc}nchen/Umsatz 2026/interaktionen.csv",
    "s3://bkt/\u{6570}\u{636e}/\u{4ea4}\u{4e92}/2026.csv",
    "s3://bkt/a+b=c/users(1).csv",
    "s3://bkt/bearer/users.csv",
    "s3://bkt/credential=prod/region=eu/users.csv",
    "s3://bkt/signature/2026/users.csv",
    "s3://bkt/AbCdEfGhIjKlMnOpQrStUvWxYz0123456789ABCD",
    "s3://bkt/tenants/9b2d7f60/ItemsV3FinalReviewedApprovedXYZ/",
];

/// What the service and the libraries say, and why jobs fail.
const MESSAGES: &[&str] = &[
    "More than 5 resources with PENDING or IN_PROGRESS status.",
    "Insufficient privileges for accessing data in S3. Please look at https://docs.aws.amazon.com/personalize/latest/dg/granting-personalize-s3-access.html#attach-bucket-policy and fix bucket policy on shop-data.",
    "Input csv is missing the following columns: [ITEM_ID]",
    "Input csv is missing the following columns: [SESSION_TOKEN, ACCESS_KEY, PASSWORD]",
    "Column SESSION_TOKEN has a null value",
    "Column PASSWORD: values must not be empty.",
    "Column TOKEN = string is not in the schema",
    "The field secret: string does not match the schema",
    "Length cannot be more than 1000 characters for ITEM_DESCRIPTION. Row 18273 has 1204.",
    "Invalid Data location.",
    "Invalid Data location: s3://shop-data/Exports/2026/11/24/InteractionsFull.",
    "Failed to create a data import job for Interactions dataset....Insufficient privileges for accessing data in Amazon S3.",
    "User: arn:aws:sts::123456789012:assumed-role/personalize-operator/aws-sdk-rust-1732418100123 is not authorized to perform: iam:PassRole on resource: arn:aws:iam::123456789012:role/PersonalizeS3AccessRoleForProduction",
    "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: personalize:CreateDatasetImportJob on resource: arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS because no identity-based policy allows the personalize:CreateDatasetImportJob action",
    "1 validation error detected: Value 'week 10' at 'jobName' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9][a-zA-Z0-9\\-_]*",
    "The security token included in the request is invalid.",
    "The security token included in the request is expired",
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
    "Signature expired: 20261124T031500Z is now earlier than 20261124T031501Z (20261124T032001Z - 5 min.)",
    "Missing Authentication Token",
    "Request is missing Authentication Token",
    "No credentials: the credential provider was not enabled",
    "Resource arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/week-48-5f1c9a3e7c7b4b1f does not exist.",
    "Another resource with Arn arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/nightly already exists.",
    "Resource arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab can't be used: kms:Decrypt is denied.",
    "Access Denied (Service: Amazon S3; Status Code: 403; Error Code: AccessDenied; Request ID: 4442587FB7D0A2F9; Proxy: null)",
    "Access Denied (Service: S3, Status Code: 403, Request ID: TX2V8N6Q4R1K9M3Z, Extended Request ID: x/JpQ8k4vWn0YcTQm3r7Lz2uGfHb5sEa9dXo1iVt6NwKyRjPqCgMhUlZx4B8DfOe7A=)",
    "dispatch failure: io error: error trying to connect: dns error: failed to lookup address information: Name or service not known",
    "The dataset is in CREATE FAILED: The schema arn:aws:personalize:eu-west-1:123456789012:schema/InteractionsSchemaProduction2026 is not valid.",
    "At least 1000 interaction records are required. Found 17 in s3://shop-data/exports/2026/11/24/interactions.csv",
    "Row 12: TIMESTAMP 2026-11-24T03:15:00Z is not a long (epoch seconds)",
    "The following users have too many events: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    "Items with id AKIA-100 and ASIA-7 have no category",
    "Insufficient privileges for role arn:aws:iam::123456789012:role/service-role/AmazonPersonalize-ExecutionRole-20261124T031500 to read s3://shop-data/exports/",
    "Basic authorization of the proxy failed",
    "Bearer tokens are not supported",
    "Rate exceeded",
    "The role has the wrong external ID in its trust policy.",
    "The CSV has a credential column: CREDENTIAL",
    "Value for key CATEGORY_L1|CATEGORY_L2 is longer than 1000 characters",
];

/// Secrets of the shapes that AWS documents, in text that a service, a proxy or a person may write. Each with the secret.
const SECRETS: &[(&str, &str)] = &[
    ("The access key AKIAIOSFODNN7EXAMPLE is not active", "AKIAIOSFODNN7EXAMPLE"),
    ("key=ASIAIOSFODNN7EXAMPLE;", "ASIAIOSFODNN7EXAMPLE"),
    ("(AKIAI44QH8DHBEXAMPLE)", "AKIAI44QH8DHBEXAMPLE"),
    ("AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ("aws_access_key_id = AKIAI44QH8DHBEXAMPLE", "AKIAI44QH8DHBEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ("aws_secret_access_key = je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY", "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY"),
    ("\"SecretAccessKey\": \"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\"", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    (
        "<SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY</SecretAccessKey>",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ),
    ("secretKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    ("can't sign with wJalrXUtnFEMI+K7MDENG+bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI+K7MDENG+bPxRfiCYEXAMPLEKEY"),
    ("can't sign with wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ("AWS_SESSION_TOKEN=AQoDYXdzEJr1K5VfaZHJ0OBwV3xPqQ==", "AQoDYXdzEJr1K5VfaZHJ0OBwV3xPqQ"),
    (
        "aws_session_token = IQoJb3JpZ2luX2VjEHYaCXVzLWVhc3QtMSJIMEYCIQDx9",
        "IQoJb3JpZ2luX2VjEHYaCXVzLWVhc3QtMSJIMEYCIQDx9",
    ),
    (
        "\"SessionToken\":\"AQoEXAMPLEH4aoAH0gNCAPyJxz4BlCFFxWNE1OPTgk5TthT+FvwqnKwRcOIfrRh3c\"",
        "AQoEXAMPLEH4aoAH0gNCAPyJxz4BlCFFxWNE1OPTgk5TthT",
    ),
    (
        "<SessionToken>AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQW</SessionToken>",
        "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQW",
    ),
    (
        "\"Token\" : \"IQoJb3JpZ2luX2VjEHYaCXVzLWVhc3QtMSJIMEYCIQDx9k2\"",
        "IQoJb3JpZ2luX2VjEHYaCXVzLWVhc3QtMSJIMEYCIQDx9k2",
    ),
    (
        "x-amz-security-token: FwoGZXIvYXdzEBYaDHZ5QmF6dVExampleTokenValue123",
        "FwoGZXIvYXdzEBYaDHZ5QmF6dVExampleTokenValue123",
    ),
    (
        "the token FwoGZXIvYXdzEBYaDHZ5QmF6dVEKampleToken4567890aBcDeFgHiJkLmNoPqRsTuVwXyZ is expired",
        "FwoGZXIvYXdzEBYaDHZ5QmF6dVEKampleToken4567890aBcDeFgHiJkLmNoPqRsTuVwXyZ",
    ),
    (
        "GET https://b.s3.amazonaws.com/k.csv?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20261124%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=20261124T031500Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024",
        "fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024",
    ),
    (
        "https://b.s3.amazonaws.com/k.csv?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20261124%2Feu-west-1%2Fs3%2Faws4_request",
        "AKIAIOSFODNN7EXAMPLE",
    ),
    (
        "https://b.s3.amazonaws.com/k.csv?X-Amz-Security-Token=IQoJb3JpZ2luX2VjEHYaCXVz%2FLWVhc3Qt",
        "IQoJb3JpZ2luX2VjEHYaCXVz",
    ),
    (
        "https://b.s3.amazonaws.com/k.csv?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D&Expires=1141889120",
        "vjbyPxybdZaNmGa%2ByT272YEAiv4",
    ),
    (
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20261124/eu-west-1/personalize/aws4_request, SignedHeaders=host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
    ),
    (
        "The Canonical String for this request should have been 'POST / host' with Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
    ),
    (
        "Authorization: Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl",
        "eyJzdWIiOiJzeXN0ZW0ifQ",
    ),
    ("Authorization: Basic YWxhZGRpbjpvcGVuc2VzYW1l", "YWxhZGRpbjpvcGVuc2VzYW1l"),
    ("Proxy-Authorization: Basic cHJveHk6aHVudGVyMg==", "cHJveHk6aHVudGVyMg"),
    ("authorization=AWS AKIAIOSFODNN7EXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg=", "frJIUN8DYpKDtOLCwo//yllqDzg"),
    (
        "web identity token eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJhdWQiOlsic3RzLmFtYXpvbmF3cy5jb20iXX0.dGVzdHNpZ25hdHVyZXZhbHVl was refused",
        "eyJhdWQiOlsic3RzLmFtYXpvbmF3cy5jb20iXX0",
    ),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN=v1.3f9a0c57e2d84b61", "v1.3f9a0c57e2d84b61"),
    ("sts:ExternalId = 8d3f6a2b-acme-prod-71c9", "8d3f6a2b-acme-prod-71c9"),
    ("AssumeRole failed: ExternalId: 'acme-prod-4417-Xy9'", "acme-prod-4417-Xy9"),
    ("{\"RoleArn\":\"arn:aws:iam::123456789012:role/x\",\"ExternalId\":\"tenant-5521-kq7w\"}", "tenant-5521-kq7w"),
    ("Condition StringEquals sts:ExternalId \"tenant-5521-kq7w\" is not met", "tenant-5521-kq7w"),
    ("connect to https://ci-user:hunter2hunter2@proxy.example.com:3128 failed", "hunter2hunter2"),
    ("AWS_BEARER_TOKEN_BEDROCK=bedrock-api-key-YmVkcm9jay5hbWF6b25hd3M", "YmVkcm9jay5hbWF6b25hd3M"),
    ("password=correct-horse-battery", "correct-horse-battery"),
    (
        "{\"from\":\"https://a.example.com/x\",\"to\":\"https://ci:hunter2hunter2@proxy.example.com/\"}",
        "hunter2hunter2",
    ),
];

/// The texts in which a location may appear.
fn texts_with(location: &str) -> [String; 4] {
    let path = location.trim_start_matches("s3://");
    [
        location.to_owned(),
        format!("Invalid Data location: {location}."),
        format!("(dataLocation={location})"),
        format!("no object {path} in the bucket"),
    ]
}

#[test]
fn good_text_survives_and_secrets_do_not() {
    let good: Vec<String> =
        LOCATIONS.iter().flat_map(|l| texts_with(l)).chain(MESSAGES.iter().map(|m| (*m).to_owned())).collect();
    let changed: Vec<String> = good.iter().filter(|text| sanitize(text) != **text).map(|text| sanitize(text)).collect();
    let missed: Vec<&str> =
        SECRETS.iter().filter(|(text, secret)| sanitize(text).contains(secret)).map(|(text, _)| *text).collect();
    println!("changed {} of {} good texts: {changed:#?}", changed.len(), good.len());
    println!("missed {} of {} secrets: {missed:#?}", missed.len(), SECRETS.len());
    // At most 1 % is changed: an upper-case name of a folder without its bucket, and the word after `PASSWORD:`. One
    // token is missed, of another service.
    assert!(changed.len() <= 2 && missed.len() <= 1);
}

/// Whether this pattern in a rule of the CRD for `dataLocation` accepts a location.
fn accepts(location: &str) -> bool {
    static PATTERNS: LazyLock<Vec<(bool, bool, Regex)>> = LazyLock::new(|| {
        let crd = serde_json::to_value(crate::api::crd()).unwrap();
        let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
        let rules = schema.pointer("/dataSource/properties/dataLocation/x-kubernetes-validations").unwrap();
        let rules = rules.as_array().unwrap().iter().map(|rule| rule["rule"].as_str().unwrap());
        let rules = rules.flat_map(|rule| rule.strip_prefix(UNCHANGED).unwrap().split(" && "));
        rules
            .filter_map(|term| {
                let (call, pattern) = term.split_once("matches('")?;
                let pattern = pattern.trim_end_matches("')").replace("\\\\", "\\");
                Some((!call.starts_with('!'), call.contains("lowerAscii"), Regex::new(&pattern).unwrap()))
            })
            .collect()
    });
    let plain = location.to_ascii_lowercase().replace(['-', '_'], "");
    location.chars().count() <= 256
        && PATTERNS
            .iter()
            .all(|(wanted, lower, pattern)| pattern.is_match(if *lower { &plain } else { location }) == *wanted)
}

#[test]
fn every_location_of_the_corpus_is_accepted_and_signed_urls_are_not() {
    let rejected: Vec<&&str> = LOCATIONS.iter().filter(|location| !accepts(location)).collect();
    assert_eq!(rejected, Vec::<&&str>::new());
    for (text, _) in SECRETS {
        let url = text.split(' ').find(|word| word.starts_with("https://"));
        assert!(url.is_none_or(|url| !accepts(url)), "{url:?}");
    }
}

proptest! {
    #[test]
    fn location_that_admission_accepts_survives(
        scheme in select(vec!["s3", "https"]),
        parts in collection::vec(prop_oneof![
            4 => select(SECRETS).prop_map(|(text, _)| text.to_owned()),
            4 => select(SECRETS).prop_map(|(_, secret)| secret.to_owned()),
            4 => select(LOCATIONS).prop_map(ToOwned::to_owned),
            4 => select(MESSAGES).prop_map(|text| text.split(' ').next().unwrap().to_owned()),
            8 => select(vec!["/", " ", "=", ":", "@", "?", "&", "\"", "'", "token", "PASSWORD", "secretKey", "x", "is", "Basic"])
                .prop_map(ToOwned::to_owned),
            2 => "[!-~]{1,8}",
            2 => "[ \\u{80}-\\u{10ffff}]{1,4}",
            1 => "[A-Za-z0-9/+]{40}",
        ], 1..6),
    ) {
        let location = format!("{scheme}://{}", parts.concat());
        if accepts(&location) {
            prop_assert_eq!(&sanitize(&location), &location);
            let message = format!("no data at {location} was found");
            prop_assert_eq!(sanitize(&message), message);
        }
    }
}
