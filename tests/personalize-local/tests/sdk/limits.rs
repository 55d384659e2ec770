//! Quota, throttling and schemas, set up with the library's handle.

use aws_sdk_personalize::config::Credentials;
use personalize_local::{Dataset, Outcome, Seed, SeedJob, Service, Throttle};

use crate::{client, client_with, create, env, error_code, job_arn};

#[tokio::test]
async fn create_fails_while_other_jobs_use_the_quota_or_the_dataset_is_not_active() {
    let env = env::start().await;
    let (client, service) = (client(&env.service.url()), &env.service);
    for number in 0..5 {
        let mut job = SeedJob::new(format!("other-{number}"), env::DATASET);
        (job.status, job.hold) = ("CREATE IN_PROGRESS".to_owned(), true);
        service.start_job(&job).unwrap();
    }
    assert_eq!(create(&client, "mine").await, Err("LimitExceededException".to_owned()));
    assert!(service.finish("other-0", Outcome::Failed("gone".to_owned())));
    assert!(service.set_dataset_status(env::DATASET, "DELETE PENDING"));
    assert_eq!(create(&client, "mine").await, Err("ResourceInUseException".to_owned()));
    service.add_dataset(&Dataset::new(env::DATASET)).unwrap();
    assert_eq!(create(&client, "mine").await, Ok(Some(job_arn("mine"))));
}

#[tokio::test]
async fn requests_over_the_rate_are_throttled_per_account() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = env::config(dir.path());
    // The rate is so low that no new token appears during the test.
    config.seed.throttle = Some(Throttle { per_second: 0.000_1, burst: 3.0, code: "ThrottlingException".to_owned() });
    let service = Service::start(config).await.unwrap();
    let client = client(&service.url());
    for _ in 0..3 {
        assert_eq!(error_code(client.list_schemas().send().await), "no error");
    }
    let error = client.list_schemas().send().await.unwrap_err();
    assert_eq!(aws_sdk_personalize::error::ProvideErrorMetadata::code(&error), Some("ThrottlingException"));
    assert_eq!(aws_sdk_personalize::error::ProvideErrorMetadata::message(&error), Some("Rate exceeded"));
    let other = client_with(&service.url(), Credentials::new("AKIAOTHERS", "other-secret", None, None, "test"));
    assert_eq!(error_code(other.list_schemas().send().await), "no error");
}

#[test]
fn seed_with_invalid_schema_is_rejected() {
    let seed = |schema: &str| {
        let arn = env::DATASET;
        let accounts = "accounts: [{id: '111122223333'}]";
        Seed::from_yaml(&format!("{accounts}\ndatasets: [{{arn: '{arn}', schema: {schema}}}]")).map(|_| ())
    };
    let record = |fields: &str| format!("{{type: record, name: I, fields: [{fields}]}}");
    let (user, item) = ("{name: USER_ID, type: string}", "{name: ITEM_ID, type: string}");
    assert!(seed(&record(&format!("{user}, {item}, {{name: TIMESTAMP, type: long}}"))).is_ok());
    let error = seed(&record(&format!("{user}, {item}"))).unwrap_err().to_string();
    assert!(error.contains("must have the field TIMESTAMP") && error.contains(env::DATASET), "{error}");
}
