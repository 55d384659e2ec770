//! Every operation and every declared error of the service model.

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

use crate::{
    CREATE, ROLE, client, client_with, config_builder, create, env, error_code, job_arn, status, wait_until_finished,
};

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().tag_key(key).tag_value(value).build().unwrap()
}

async fn tags(client: &Client, arn: &str) -> Vec<(String, String)> {
    let tags = client.list_tags_for_resource().resource_arn(arn).send().await.unwrap().tags.unwrap();
    tags.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect()
}

/// The SDK converts the float in the response to nanoseconds and rounds down, so round to milliseconds.
fn millis(time: Option<DateTime>) -> i64 {
    (time.unwrap().as_nanos() as f64 / 1e6).round() as i64
}

async fn set_durations(env: &env::TestEnv, pending: u64, in_progress: u64) {
    let body = format!(r#"{{"pendingMs": {pending}, "inProgressMs": {in_progress}}}"#);
    assert_eq!(env::http("POST", &format!("{}/_local/durations", env.service.url()), &body).await.0, 204);
}

#[tokio::test]
async fn import_goes_from_pending_to_in_progress_to_active() {
    let env = env::start().await;
    let client = client(&env.service.url());
    env.service.hold("a");
    assert_eq!(create(&client, "a").await, Ok(Some(job_arn("a"))));
    assert_eq!(status(&client, "a").await.unwrap(), "CREATE PENDING");
    // With durations of zero or an hour, no status can be missed.
    set_durations(&env, 0, 3_600_000).await;
    env.service.release("a");
    assert_eq!(status(&client, "a").await.unwrap(), "CREATE IN_PROGRESS");
    set_durations(&env, 0, 0).await;
    assert_eq!(wait_until_finished(&client, "a").await.0, "ACTIVE");
    assert_eq!(env.service.ledger()[0].dataset_import_job_arn, Some(job_arn("a")));
}

#[tokio::test]
async fn every_operation_succeeds_and_every_declared_error_occurs() {
    let env = env::start().await;
    let client = client(&env.service.url());
    check_success(&client, &env).await;
    check_create_errors(&client, &env).await;
    check_read_errors(&client).await;
    check_tag_errors(&client, &env).await;
    check_deletions(&client, &env).await;
    assert_eq!(env::uncovered(&env.service), Vec::<String>::new());
}

async fn check_success(client: &Client, env: &env::TestEnv) {
    let source = DataSource::builder().data_location("s3://bucket/folder/").build();
    let request =
        client.create_dataset_import_job().job_name("full").dataset_arn(env::DATASET).data_source(source.clone());
    let request = request.role_arn(ROLE).tags(tag("a", "b")).publish_attribution_metrics_to_s3(true);
    assert_eq!(request.send().await.unwrap().dataset_import_job_arn, Some(job_arn("full")));
    assert_eq!(wait_until_finished(client, "full").await.0, "ACTIVE");
    let request = client.create_dataset_import_job().job_name("more").dataset_arn(env::DATASET).data_source(source);
    request.import_mode(ImportMode::Incremental).send().await.unwrap();
    assert_eq!(wait_until_finished(client, "more").await.0, "ACTIVE");
    // What the SDK parses equals what the stand-in stores.
    for stored in env.service.jobs() {
        let output = client.describe_dataset_import_job().dataset_import_job_arn(&stored.arn).send().await.unwrap();
        let job = output.dataset_import_job.unwrap();
        assert_eq!(job.job_name, Some(stored.name));
        assert_eq!((job.dataset_import_job_arn, job.dataset_arn), (Some(stored.arn.clone()), Some(stored.dataset_arn)));
        assert_eq!(job.data_source.unwrap().data_location, Some(stored.data_location));
        assert_eq!((job.role_arn, job.failure_reason), (stored.role_arn, stored.failure_reason));
        assert_eq!(job.status, Some(stored.status));
        assert_eq!(millis(job.creation_date_time), stored.created_ms);
        assert_eq!(millis(job.last_updated_date_time), stored.updated_ms);
        assert_eq!(job.import_mode.unwrap().as_str(), stored.import_mode);
        assert_eq!(job.publish_attribution_metrics_to_s3, Some(stored.publish_attribution_metrics_to_s3));
        let stored_tags: Vec<_> = stored.tags.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect();
        assert_eq!(tags(client, &stored.arn).await, stored_tags);
    }
    client.tag_resource().resource_arn(job_arn("full")).tags(tag("a", "c")).tags(tag("d", "")).send().await.unwrap();
    client.untag_resource().resource_arn(job_arn("full")).tag_keys("a").send().await.unwrap();
    assert_eq!(tags(client, &job_arn("full")).await, [("d".to_owned(), String::new())]);
    let jobs = client.list_dataset_import_jobs().dataset_arn(env::DATASET).max_results(1).into_paginator();
    let jobs: Vec<_> = jobs.items().send().collect::<Result<_, _>>().await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.job_name.as_deref().unwrap()).collect::<Vec<_>>(), ["full", "more"]);
    let dataset = client.describe_dataset().dataset_arn(env::DATASET).send().await.unwrap().dataset.unwrap();
    let datasets = client.list_datasets().max_results(1).into_paginator();
    let datasets: Vec<_> = datasets.items().send().collect::<Result<_, _>>().await.unwrap();
    assert_eq!((datasets.len(), &datasets[0].dataset_arn), (2, &dataset.dataset_arn));
    let schema = dataset.schema_arn.unwrap();
    let described = client.describe_schema().schema_arn(&schema).send().await.unwrap().schema.unwrap();
    assert!(described.schema.unwrap().contains("USER_ID"));
    let schemas = client.list_schemas().into_paginator().items().send().collect::<Result<Vec<_>, _>>().await.unwrap();
    assert!(schemas.iter().any(|listed| listed.schema_arn.as_ref() == Some(&schema)));
}

async fn check_create_errors(client: &Client, env: &env::TestEnv) {
    let create_error = async |name: &str| create(client, name).await.unwrap_err();
    assert_eq!(create_error("-").await, "ValidationException");
    assert_eq!(create_error("full").await, "ResourceAlreadyExistsException");
    let request = client.create_dataset_import_job().job_name("new").role_arn(ROLE);
    let request = request.data_source(DataSource::builder().data_location("s3://bucket/interactions.csv").build());
    let create_for = |dataset: &str| request.clone().dataset_arn(dataset).send();
    assert_eq!(error_code(create_for(&env::DATASET.replace("shop", "missing")).await), "ResourceNotFoundException");
    assert_eq!(
        error_code(
            create_for(&env::DATASET.replace("1111", "4444").replace("2222", "5555").replace("3333", "6666")).await
        ),
        "AccessDeniedException"
    );
    assert_eq!(error_code(create_for(&env::DATASET.replace("eu-west-1", "us-east-1")).await), "InvalidInputException");
    let many = (0..51).fold(request.clone(), |request, number| request.tags(tag(&number.to_string(), "")));
    let error = many.dataset_arn(env::DATASET).send().await.unwrap_err().into_service_error();
    assert!(error.is_too_many_tags_exception(), "{error}");
    env.service.set_dataset_status(env::DATASET, "CREATE IN_PROGRESS");
    assert_eq!(create_error("new").await, "ResourceInUseException");
    env.service.set_dataset_status(env::DATASET, "ACTIVE");
    env.service.hold("held");
    for number in 0..5 {
        create(client, &format!("held-{number}")).await.unwrap();
    }
    let error = create_for(env::DATASET).await.unwrap_err().into_service_error();
    assert!(error.is_limit_exceeded_exception());
    assert_eq!(error.message(), Some("More than 5 resources with PENDING or IN_PROGRESS status."));
    env.service.release("held");
}

async fn check_read_errors(client: &Client) {
    let job = |arn: &str| client.describe_dataset_import_job().dataset_import_job_arn(arn).send();
    assert_eq!(error_code(job(env::DATASET).await), "InvalidInputException");
    assert!(job(&job_arn("missing")).await.unwrap_err().into_service_error().is_resource_not_found_exception());
    let dataset = |arn: &str| client.describe_dataset().dataset_arn(arn).send();
    assert_eq!(error_code(dataset(&job_arn("full")).await), "InvalidInputException");
    assert_eq!(error_code(dataset(&env::DATASET.replace("shop", "missing")).await), "ResourceNotFoundException");
    let schema = |arn: &str| client.describe_schema().schema_arn(arn).send();
    assert_eq!(error_code(schema(env::DATASET).await), "InvalidInputException");
    assert_eq!(error_code(schema(&env::DATASET.replace("dataset/", "schema/")).await), "ResourceNotFoundException");
    assert_eq!(
        error_code(client.list_dataset_import_jobs().dataset_arn(job_arn("full")).send().await),
        "InvalidInputException"
    );
    assert_eq!(
        error_code(client.list_datasets().dataset_group_arn(env::DATASET).send().await),
        "InvalidInputException"
    );
    let jobs = client.list_dataset_import_jobs().next_token("invalid").send().await;
    assert!(jobs.unwrap_err().into_service_error().is_invalid_next_token_exception());
    assert_eq!(error_code(client.list_datasets().next_token("invalid").send().await), "InvalidNextTokenException");
    assert_eq!(error_code(client.list_schemas().next_token("invalid").send().await), "InvalidNextTokenException");
    assert_eq!(error_code(client.list_schemas().max_results(101).send().await), "ValidationException");
    assert_eq!(error_code(client.list_solutions().send().await), "UnknownOperationException");
}

async fn check_tag_errors(client: &Client, env: &env::TestEnv) {
    let missing = env::DATASET.replace("shop", "missing");
    let add = |arn: &str| client.tag_resource().resource_arn(arn).tags(tag("a", "")).send();
    let remove = |arn: &str| client.untag_resource().resource_arn(arn).tag_keys("a").send();
    let list = |arn: &str| client.list_tags_for_resource().resource_arn(arn).send();
    for (arn, expected) in [
        (missing.clone(), "ResourceNotFoundException"),
        (missing.replace("eu-west-1", "us-east-1"), "InvalidInputException"),
    ] {
        assert_eq!(error_code(add(&arn).await), expected);
        assert_eq!(error_code(remove(&arn).await), expected);
        assert_eq!(error_code(list(&arn).await), expected);
    }
    let many = (0..51).fold(client.tag_resource(), |request, number| request.tags(tag(&number.to_string(), "")));
    assert_eq!(error_code(many.resource_arn(env::DATASET).send().await), "TooManyTagsException");
    let many = (0..51).fold(client.untag_resource(), |request, number| request.tag_keys(number.to_string()));
    assert_eq!(error_code(many.resource_arn(env::DATASET).send().await), "TooManyTagKeysException");
    let fail_next = |operation: &str, code: &str| {
        let action = Action::Error { code: code.to_owned(), message: String::new(), status: 400 };
        env.service.add_fault(Fault::on(operation, action));
    };
    fail_next("TagResource", "ResourceInUseException");
    assert!(add(env::DATASET).await.unwrap_err().into_service_error().is_resource_in_use_exception());
    fail_next("TagResource", "LimitExceededException");
    assert!(add(env::DATASET).await.unwrap_err().into_service_error().is_limit_exceeded_exception());
    fail_next("UntagResource", "ResourceInUseException");
    assert!(remove(env::DATASET).await.unwrap_err().into_service_error().is_resource_in_use_exception());
    fail_next("ListTagsForResource", "ResourceInUseException");
    assert!(list(env::DATASET).await.unwrap_err().into_service_error().is_resource_in_use_exception());
}

async fn check_deletions(client: &Client, env: &env::TestEnv) {
    let group = env::DATASET.replace("dataset/shop/INTERACTIONS", "dataset-group/shop");
    let arn = |name: &str| job_arn(name).replace("dataset-import-job", "data-deletion-job");
    let request = |name: &str| {
        let source = DataSource::builder().data_location("s3://bucket/users.csv").build();
        let request = client.create_data_deletion_job().job_name(name).dataset_group_arn(&group);
        request.data_source(source).role_arn(ROLE)
    };
    env.service.hold("delete");
    assert_eq!(request("delete").send().await.unwrap().data_deletion_job_arn, Some(arn("delete")));
    let describe = |arn: String| client.describe_data_deletion_job().data_deletion_job_arn(arn).send();
    let status = async || describe(arn("delete")).await.unwrap().data_deletion_job.unwrap().status.unwrap();
    assert_eq!(status().await, "PENDING");
    set_durations(env, 0, 3_600_000).await;
    env.service.release("delete");
    assert_eq!(status().await, "IN_PROGRESS");
    set_durations(env, 0, 0).await;
    assert_eq!(status().await, "COMPLETED");
    let listed = client.list_data_deletion_jobs().dataset_group_arn(&group).send().await.unwrap();
    let listed = listed.data_deletion_jobs.unwrap();
    assert_eq!((listed.len(), listed[0].status.as_deref()), (1, Some("COMPLETED")));
    let no_location = request("a").data_source(DataSource::builder().build());
    assert_eq!(error_code(no_location.send().await), "InvalidInputException");
    let missing = request("a").dataset_group_arn(format!("{group}s"));
    assert_eq!(error_code(missing.send().await), "ResourceNotFoundException");
    assert_eq!(error_code(request("delete").send().await), "ResourceAlreadyExistsException");
    let many = (0..51).fold(request("a"), |request, number| request.tags(tag(&number.to_string(), "")));
    assert_eq!(error_code(many.send().await), "TooManyTagsException");
    for code in ["ResourceInUseException", "LimitExceededException"] {
        let action = Action::Error { code: code.to_owned(), message: String::new(), status: 400 };
        env.service.add_fault(Fault::on("CreateDataDeletionJob", action));
        assert_eq!(error_code(request("a").send().await), code);
    }
    assert_eq!(error_code(describe(env::DATASET.to_owned()).await), "InvalidInputException");
    assert_eq!(error_code(describe(arn("a")).await), "ResourceNotFoundException");
    let list = client.list_data_deletion_jobs();
    assert_eq!(error_code(list.clone().dataset_group_arn(env::DATASET).send().await), "InvalidInputException");
    assert_eq!(error_code(list.next_token("invalid").send().await), "InvalidNextTokenException");
}

#[tokio::test]
async fn invalid_credentials_or_clock_skew_are_rejected_with_the_reason() {
    let env = env::start().await;
    let url = env.service.url();
    let list_error = async |key: &str, secret: &str, token: Option<&str>| {
        let credentials = Credentials::new(key, secret, token.map(str::to_owned), None, "test");
        error_code(client_with(&url, credentials).list_schemas().send().await)
    };
    assert_eq!(list_error("AKIALOCAL", "local-secret", None).await, "no error");
    assert_eq!(list_error("AKIANOBODY", "local-secret", None).await, "UnrecognizedClientException");
    assert_eq!(list_error("AKIALOCAL", "wrong", None).await, "InvalidSignatureException");
    assert_eq!(list_error("ASIALOCAL", "temporary", Some("session")).await, "no error");
    assert_eq!(list_error("ASIALOCAL", "temporary", None).await, "UnrecognizedClientException");
    assert_eq!(list_error("ASIAEXPIRED", "temporary", Some("old")).await, "ExpiredTokenException");
    for minutes in [-6, 6] {
        let now = SystemTime::now();
        let skew = Duration::from_secs(60 * 6);
        let clock = StaticTimeSource::new(if minutes < 0 { now - skew } else { now + skew });
        let credentials = Credentials::new("AKIALOCAL", "local-secret", None, None, "test");
        let client = Client::from_conf(config_builder(&url, credentials).time_source(clock).build());
        let error = client.list_schemas().send().await.unwrap_err();
        assert_eq!(error.code(), Some("InvalidSignatureException"));
        let message = if minutes < 0 { "Signature expired" } else { "Signature not yet current" };
        assert!(error.message().unwrap().starts_with(message), "{error:?}");
    }
}

#[tokio::test]
async fn sdk_retries_recover_from_transient_errors() {
    let env = env::start().await;
    let credentials = Credentials::new("AKIALOCAL", "local-secret", None, None, "test");
    let retry = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(10));
    let client = Client::from_conf(config_builder(&env.service.url(), credentials).retry_config(retry).build());
    let error = |code: &str, status| Action::Error { code: code.to_owned(), message: String::new(), status };
    for action in [error("ThrottlingException", 400), error("InternalServerException", 500), Action::ResetBefore] {
        env.service.add_fault(Fault::on("ListSchemas", action));
    }
    assert!(client.list_schemas().send().await.is_ok());
    assert_eq!(env.service.ledger().len(), 4);
    // After a lost response the SDK retries the create, which finds the job that it created.
    env.service.add_fault(Fault::on(CREATE, Action::ResetAfter));
    assert_eq!(create(&client, "lost").await.unwrap_err(), "ResourceAlreadyExistsException");
}
