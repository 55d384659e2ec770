//! Every operation and every error of the service model, as the SDK understands them.

use std::time::{Duration, SystemTime};

use aws_sdk_personalize::{
    Client,
    config::{Credentials, retry::RetryConfig},
    error::ProvideErrorMetadata,
    primitives::DateTime,
    types::{DataSource, ImportMode, Tag},
};
use aws_smithy_async::time::StaticTimeSource;
use personalize_local::{Action, Fault};

use crate::{CREATE, ROLE, arn, bed, client, client_of, code, create, ended, settings, status};

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().tag_key(key).tag_value(value).build().unwrap()
}

async fn tags(client: &Client, arn: &str) -> Vec<(String, String)> {
    let tags = client.list_tags_for_resource().resource_arn(arn).send().await.unwrap().tags.unwrap();
    tags.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect()
}

/// The SDK makes nanoseconds of the float on the wire and rounds down.
fn millis(time: Option<DateTime>) -> i64 {
    (time.unwrap().as_nanos() as f64 / 1e6).round() as i64
}

async fn durations(bed: &bed::Bed, pending: u64, in_progress: u64) {
    let body = format!(r#"{{"pendingMs": {pending}, "inProgressMs": {in_progress}}}"#);
    assert_eq!(bed::http("POST", &format!("{}/_local/durations", bed.service.url()), &body).await.0, 204);
}

#[tokio::test]
async fn an_import_passes_through_its_states() {
    let bed = bed::start().await;
    let client = client(&bed.service.url());
    bed.service.hold("a");
    assert_eq!(create(&client, "a").await, Ok(Some(arn("a"))));
    assert_eq!(status(&client, "a").await.unwrap(), "CREATE PENDING");
    // An hour and no time at all: no state can be missed.
    durations(&bed, 0, 3_600_000).await;
    bed.service.release("a");
    assert_eq!(status(&client, "a").await.unwrap(), "CREATE IN_PROGRESS");
    durations(&bed, 0, 0).await;
    assert_eq!(ended(&client, "a").await.0, "ACTIVE");
    assert_eq!(bed.service.ledger()[0].dataset_import_job_arn, Some(arn("a")));
}

#[tokio::test]
async fn every_operation_goes_well_and_every_declared_error_comes() {
    let bed = bed::start().await;
    let client = client(&bed.service.url());
    goes_well(&client, &bed).await;
    creating_is_refused(&client, &bed).await;
    reading_is_refused(&client).await;
    tagging_is_refused(&client, &bed).await;
    assert_eq!(bed::not_met(&bed.service), Vec::<String>::new());
}

async fn goes_well(client: &Client, bed: &bed::Bed) {
    let source = DataSource::builder().data_location("s3://bucket/folder/").build();
    let request =
        client.create_dataset_import_job().job_name("full").dataset_arn(bed::DATASET).data_source(source.clone());
    let request = request.role_arn(ROLE).tags(tag("a", "b")).publish_attribution_metrics_to_s3(true);
    assert_eq!(request.send().await.unwrap().dataset_import_job_arn, Some(arn("full")));
    assert_eq!(ended(client, "full").await.0, "ACTIVE");
    let request = client.create_dataset_import_job().job_name("more").dataset_arn(bed::DATASET).data_source(source);
    request.import_mode(ImportMode::Incremental).send().await.unwrap();
    assert_eq!(ended(client, "more").await.0, "ACTIVE");
    // What the SDK made of each answer is what the stand-in holds.
    for held in bed.service.jobs() {
        let answer = client.describe_dataset_import_job().dataset_import_job_arn(&held.arn).send().await.unwrap();
        let job = answer.dataset_import_job.unwrap();
        assert_eq!(job.job_name, Some(held.name));
        assert_eq!((job.dataset_import_job_arn, job.dataset_arn), (Some(held.arn.clone()), Some(held.dataset_arn)));
        assert_eq!(job.data_source.unwrap().data_location, Some(held.data_location));
        assert_eq!((job.role_arn, job.failure_reason), (held.role_arn, held.failure_reason));
        assert_eq!(job.status, Some(held.status));
        assert_eq!(millis(job.creation_date_time), held.created_ms);
        assert_eq!(millis(job.last_updated_date_time), held.updated_ms);
        assert_eq!(job.import_mode.unwrap().as_str(), held.import_mode);
        assert_eq!(job.publish_attribution_metrics_to_s3, Some(held.publish_attribution_metrics_to_s3));
        let kept: Vec<_> = held.tags.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect();
        assert_eq!(tags(client, &held.arn).await, kept);
    }
    client.tag_resource().resource_arn(arn("full")).tags(tag("a", "c")).tags(tag("d", "")).send().await.unwrap();
    client.untag_resource().resource_arn(arn("full")).tag_keys("a").send().await.unwrap();
    assert_eq!(tags(client, &arn("full")).await, [("d".to_owned(), String::new())]);
    let jobs = client.list_dataset_import_jobs().dataset_arn(bed::DATASET).max_results(1).into_paginator();
    let jobs: Vec<_> = jobs.items().send().collect::<Result<_, _>>().await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.job_name.as_deref().unwrap()).collect::<Vec<_>>(), ["full", "more"]);
    let dataset = client.describe_dataset().dataset_arn(bed::DATASET).send().await.unwrap().dataset.unwrap();
    let datasets = client.list_datasets().max_results(1).into_paginator();
    let datasets: Vec<_> = datasets.items().send().collect::<Result<_, _>>().await.unwrap();
    assert_eq!((datasets.len(), &datasets[0].dataset_arn), (2, &dataset.dataset_arn));
    let schema = dataset.schema_arn.unwrap();
    let described = client.describe_schema().schema_arn(&schema).send().await.unwrap().schema.unwrap();
    assert!(described.schema.unwrap().contains("USER_ID"));
    let schemas = client.list_schemas().into_paginator().items().send().collect::<Result<Vec<_>, _>>().await.unwrap();
    assert!(schemas.iter().any(|listed| listed.schema_arn.as_ref() == Some(&schema)));
}

async fn creating_is_refused(client: &Client, bed: &bed::Bed) {
    let refused = async |name: &str| create(client, name).await.unwrap_err();
    assert_eq!(refused("-").await, "ValidationException");
    assert_eq!(refused("full").await, "ResourceAlreadyExistsException");
    let request = client.create_dataset_import_job().job_name("new").role_arn(ROLE);
    let request = request.data_source(DataSource::builder().data_location("s3://bucket/interactions.csv").build());
    let of = |dataset: &str| request.clone().dataset_arn(dataset).send();
    assert_eq!(code(of(&bed::DATASET.replace("shop", "shut")).await), "ResourceNotFoundException");
    assert_eq!(
        code(of(&bed::DATASET.replace("1111", "4444").replace("2222", "5555").replace("3333", "6666")).await),
        "AccessDeniedException"
    );
    assert_eq!(code(of(&bed::DATASET.replace("eu-west-1", "us-east-1")).await), "InvalidInputException");
    let many = (0..51).fold(request.clone(), |request, number| request.tags(tag(&number.to_string(), "")));
    let error = many.dataset_arn(bed::DATASET).send().await.unwrap_err().into_service_error();
    assert!(error.is_too_many_tags_exception(), "{error}");
    bed.service.set_dataset_status(bed::DATASET, "CREATE IN_PROGRESS");
    assert_eq!(refused("new").await, "ResourceInUseException");
    bed.service.set_dataset_status(bed::DATASET, "ACTIVE");
    bed.service.hold("held");
    for number in 0..5 {
        create(client, &format!("held-{number}")).await.unwrap();
    }
    let error = of(bed::DATASET).await.unwrap_err().into_service_error();
    assert!(error.is_limit_exceeded_exception());
    assert_eq!(error.message(), Some("More than 5 resources with PENDING or IN_PROGRESS status."));
    bed.service.release("held");
}

async fn reading_is_refused(client: &Client) {
    let job = |arn: &str| client.describe_dataset_import_job().dataset_import_job_arn(arn).send();
    assert_eq!(code(job(bed::DATASET).await), "InvalidInputException");
    assert!(job(&arn("nobody")).await.unwrap_err().into_service_error().is_resource_not_found_exception());
    let dataset = |arn: &str| client.describe_dataset().dataset_arn(arn).send();
    assert_eq!(code(dataset(&arn("full")).await), "InvalidInputException");
    assert_eq!(code(dataset(&bed::DATASET.replace("shop", "shut")).await), "ResourceNotFoundException");
    let schema = |arn: &str| client.describe_schema().schema_arn(arn).send();
    assert_eq!(code(schema(bed::DATASET).await), "InvalidInputException");
    assert_eq!(code(schema(&bed::DATASET.replace("dataset/", "schema/")).await), "ResourceNotFoundException");
    assert_eq!(code(client.list_dataset_import_jobs().dataset_arn(arn("full")).send().await), "InvalidInputException");
    assert_eq!(code(client.list_datasets().dataset_group_arn(bed::DATASET).send().await), "InvalidInputException");
    let jobs = client.list_dataset_import_jobs().next_token("made-up").send().await;
    assert!(jobs.unwrap_err().into_service_error().is_invalid_next_token_exception());
    assert_eq!(code(client.list_datasets().next_token("made-up").send().await), "InvalidNextTokenException");
    assert_eq!(code(client.list_schemas().next_token("made-up").send().await), "InvalidNextTokenException");
    assert_eq!(code(client.list_schemas().max_results(101).send().await), "ValidationException");
    assert_eq!(code(client.list_solutions().send().await), "UnknownOperationException");
}

async fn tagging_is_refused(client: &Client, bed: &bed::Bed) {
    let nowhere = bed::DATASET.replace("shop", "shut");
    let add = |arn: &str| client.tag_resource().resource_arn(arn).tags(tag("a", "")).send();
    let remove = |arn: &str| client.untag_resource().resource_arn(arn).tag_keys("a").send();
    let list = |arn: &str| client.list_tags_for_resource().resource_arn(arn).send();
    for (place, expected) in [
        (nowhere.clone(), "ResourceNotFoundException"),
        (nowhere.replace("eu-west-1", "us-east-1"), "InvalidInputException"),
    ] {
        assert_eq!(code(add(&place).await), expected);
        assert_eq!(code(remove(&place).await), expected);
        assert_eq!(code(list(&place).await), expected);
    }
    let many = (0..51).fold(client.tag_resource(), |request, number| request.tags(tag(&number.to_string(), "")));
    assert_eq!(code(many.resource_arn(bed::DATASET).send().await), "TooManyTagsException");
    let many = (0..51).fold(client.untag_resource(), |request, number| request.tag_keys(number.to_string()));
    assert_eq!(code(many.resource_arn(bed::DATASET).send().await), "TooManyTagKeysException");
    let fault = |operation: &str, code: &str| {
        let action = Action::Error { code: code.to_owned(), message: String::new(), status: 400 };
        bed.service.add_fault(Fault::on(operation, action));
    };
    fault("TagResource", "ResourceInUseException");
    assert!(add(bed::DATASET).await.unwrap_err().into_service_error().is_resource_in_use_exception());
    fault("TagResource", "LimitExceededException");
    assert!(add(bed::DATASET).await.unwrap_err().into_service_error().is_limit_exceeded_exception());
    fault("UntagResource", "ResourceInUseException");
    assert!(remove(bed::DATASET).await.unwrap_err().into_service_error().is_resource_in_use_exception());
    fault("ListTagsForResource", "ResourceInUseException");
    assert!(list(bed::DATASET).await.unwrap_err().into_service_error().is_resource_in_use_exception());
}

#[tokio::test]
async fn whoever_signs_wrongly_is_told_why() {
    let bed = bed::start().await;
    let url = bed.service.url();
    let lists = async |key: &str, secret: &str, token: Option<&str>| {
        let credentials = Credentials::new(key, secret, token.map(str::to_owned), None, "test");
        code(client_of(&url, credentials).list_schemas().send().await)
    };
    assert_eq!(lists("AKIALOCAL", "local-secret", None).await, "no error");
    assert_eq!(lists("AKIANOBODY", "local-secret", None).await, "UnrecognizedClientException");
    assert_eq!(lists("AKIALOCAL", "wrong", None).await, "InvalidSignatureException");
    assert_eq!(lists("ASIALOCAL", "temporary", Some("session")).await, "no error");
    assert_eq!(lists("ASIALOCAL", "temporary", None).await, "UnrecognizedClientException");
    assert_eq!(lists("ASIAEXPIRED", "temporary", Some("old")).await, "ExpiredTokenException");
    for minutes in [-6, 6] {
        let now = SystemTime::now();
        let skew = Duration::from_secs(60 * 6);
        let clock = StaticTimeSource::new(if minutes < 0 { now - skew } else { now + skew });
        let credentials = Credentials::new("AKIALOCAL", "local-secret", None, None, "test");
        let client = Client::from_conf(settings(&url, credentials).time_source(clock).build());
        let error = client.list_schemas().send().await.unwrap_err();
        assert_eq!(error.code(), Some("InvalidSignatureException"));
        let words = if minutes < 0 { "Signature expired" } else { "Signature not yet current" };
        assert!(error.message().unwrap().starts_with(words), "{error:?}");
    }
}

#[tokio::test]
async fn the_sdks_own_retries_ride_out_a_bad_moment() {
    let bed = bed::start().await;
    let credentials = Credentials::new("AKIALOCAL", "local-secret", None, None, "test");
    let retry = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(10));
    let client = Client::from_conf(settings(&bed.service.url(), credentials).retry_config(retry).build());
    let error = |code: &str, status| Action::Error { code: code.to_owned(), message: String::new(), status };
    for action in [error("ThrottlingException", 400), error("InternalServerException", 500), Action::ResetBefore] {
        bed.service.add_fault(Fault::on("ListSchemas", action));
    }
    assert!(client.list_schemas().send().await.is_ok());
    assert_eq!(bed.service.ledger().len(), 4);
    // An answer that is lost makes the SDK send again, and meet its own job.
    bed.service.add_fault(Fault::on(CREATE, Action::ResetAfter));
    assert_eq!(create(&client, "lost").await.unwrap_err(), "ResourceAlreadyExistsException");
}
