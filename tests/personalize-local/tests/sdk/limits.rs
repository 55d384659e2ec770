//! Rules that the library's handle helps to provoke: quotas, rates, other people's jobs.

use aws_sdk_personalize::config::Credentials;
use personalize_local::{Dataset, Outcome, Seed, SeedJob, Service, Throttle};

use crate::{arn, bed, client, client_of, code, create};

#[tokio::test]
async fn others_use_the_same_quota_and_a_dataset_can_be_away() {
    let bed = bed::start().await;
    let (client, service) = (client(&bed.service.url()), &bed.service);
    for number in 0..5 {
        let mut job = SeedJob::new(format!("theirs-{number}"), bed::DATASET);
        (job.status, job.hold) = ("CREATE IN_PROGRESS".to_owned(), true);
        service.start_job(&job).unwrap();
    }
    assert_eq!(create(&client, "mine").await, Err("LimitExceededException".to_owned()));
    assert!(service.finish("theirs-0", Outcome::Failed("gone".to_owned())));
    assert!(service.set_dataset_status(bed::DATASET, "DELETE PENDING"));
    assert_eq!(create(&client, "mine").await, Err("ResourceInUseException".to_owned()));
    service.add_dataset(&Dataset::new(bed::DATASET)).unwrap();
    assert_eq!(create(&client, "mine").await, Ok(Some(arn("mine"))));
}

#[tokio::test]
async fn too_many_requests_are_throttled_per_account() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = bed::config(dir.path());
    // So slow that the test can't see a second token.
    config.seed.throttle = Some(Throttle { per_second: 0.000_1, burst: 3.0, code: "ThrottlingException".to_owned() });
    let service = Service::start(config).await.unwrap();
    let ours = client(&service.url());
    for _ in 0..3 {
        assert_eq!(code(ours.list_schemas().send().await), "no error");
    }
    let error = ours.list_schemas().send().await.unwrap_err();
    assert_eq!(aws_sdk_personalize::error::ProvideErrorMetadata::code(&error), Some("ThrottlingException"));
    assert_eq!(aws_sdk_personalize::error::ProvideErrorMetadata::message(&error), Some("Rate exceeded"));
    let theirs = client_of(&service.url(), Credentials::new("AKIAOTHERS", "other-secret", None, None, "test"));
    assert_eq!(code(theirs.list_schemas().send().await), "no error");
}

#[test]
fn a_seed_with_a_schema_that_the_service_would_refuse_is_refused() {
    let seed = |schema: &str| {
        let arn = bed::DATASET;
        let accounts = "accounts: [{id: '111122223333'}]";
        Seed::from_yaml(&format!("{accounts}\ndatasets: [{{arn: '{arn}', schema: {schema}}}]")).map(|_| ())
    };
    let record = |fields: &str| format!("{{type: record, name: I, fields: [{fields}]}}");
    let (user, item) = ("{name: USER_ID, type: string}", "{name: ITEM_ID, type: string}");
    assert!(seed(&record(&format!("{user}, {item}, {{name: TIMESTAMP, type: long}}"))).is_ok());
    let why = seed(&record(&format!("{user}, {item}"))).unwrap_err().to_string();
    assert!(why.contains("must have the field TIMESTAMP") && why.contains(bed::DATASET), "{why}");
}
