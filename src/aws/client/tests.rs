//! Sessions against a fake of STS and of the services.

use super::*;
use crate::accounts::Accounts;
use crate::personalize::{DatasetArn, Personalize};
use crate::redact::sanitize;
use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_sdk_personalize::config::Credentials;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn what_is_in_use_is_kept_however_many_others_there_are() {
    let recent: Recent<usize, usize> = Recent::new();
    let (used, unused) = (recent.get(&0, || 0), recent.get(&1, || 1));
    for i in 2..2 * MAX_KEPT.get() {
        recent.get(&i, || i);
        assert!(Arc::ptr_eq(&used, &recent.get(&0, || 0)));
    }
    assert!(!Arc::ptr_eq(&unused, &recent.get(&1, || 1)), "the least recently used one is dropped");
    assert_eq!(recent.0.lock().unwrap().len(), MAX_KEPT.get());
}

/// Answers every call, and counts how often a role was assumed.
#[derive(Debug, Clone, Default)]
struct Fake(Arc<AtomicUsize>);

impl Fake {
    fn assumed(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn http_client(&self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_, _| connector.clone())
    }
}

impl HttpConnector for Fake {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        let answer = if body.contains("Action=AssumeRole&") {
            let n = self.0.fetch_add(1, Ordering::Relaxed);
            format!(
                "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>key-{n}</AccessKeyId>\
                 <SecretAccessKey>{}</SecretAccessKey><SessionToken>the-token-of-session-{n}</SessionToken>\
                 <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
                secret(n)
            )
        } else if request.uri().contains(".s3.") {
            "<ListBucketResult></ListBucketResult>".to_owned()
        } else {
            "{}".to_owned()
        };
        HttpConnectorFuture::ready(Ok(HttpResponse::new(200.try_into().unwrap(), answer.into())))
    }
}

fn secret(n: usize) -> String {
    format!("the-secret-key-of-session-{n}-")
}

/// Counts how often the operator's own credentials were provided.
async fn aws(fake: &Fake, roles: impl IntoIterator<Item = (String, String)>) -> (Aws, Arc<AtomicUsize>) {
    let provided = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&provided);
    let own = provide_credentials_fn(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let own = Credentials::builder().provider_name("test").access_key_id("own").secret_access_key("own");
        async move { Ok(own.account_id("123456789012").build()) }
    });
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .retry_config(RetryConfig::disabled())
        .credentials_provider(own)
        .http_client(fake.http_client())
        .load()
        .await;
    let accounts = Accounts::new(roles.into_iter().collect(), None);
    (Aws::from_config(config, accounts, RateLimits::default()), provided)
}

fn dataset(account: &str) -> DatasetArn {
    DatasetArn::parse(&format!("arn:aws:personalize:eu-west-1:{account}:dataset/shop/ITEMS")).unwrap()
}

#[tokio::test]
async fn each_of_many_sessions_assumes_its_role_once_and_its_secrets_stay_redacted() {
    let (fake, caller) = (Fake::default(), Caller::default());
    let accounts: Vec<String> = (1..=80).map(|n| format!("{n:012}")).collect();
    let roles = accounts.iter().map(|account| (account.clone(), format!("arn:aws:iam::{account}:role/Importer")));
    let (aws, _) = aws(&fake, roles).await;
    for _ in 0..3 {
        for account in &accounts {
            aws.list_jobs_of_account(&caller, &dataset(account)).await.unwrap();
            aws.list_objects(&caller, &dataset(account), "bucket", "prefix", None).await.unwrap();
        }
    }
    assert_eq!(fake.assumed(), accounts.len());
    for n in 0..accounts.len() {
        assert_eq!(sanitize(&secret(n)), "[redacted]", "session {n}");
    }
}

#[tokio::test]
async fn renewed_session_asks_for_credentials_again_even_without_a_role() {
    let (fake, caller, dataset) = (Fake::default(), Caller::default(), dataset("123456789012"));
    let (aws, provided) = aws(&fake, []).await;
    let asked = async || {
        let before = provided.load(Ordering::Relaxed);
        aws.list_jobs_of_account(&caller, &dataset).await.unwrap();
        provided.load(Ordering::Relaxed) - before
    };
    assert!(asked().await > 0);
    assert_eq!(asked().await, 0, "they are cached");
    aws.session(&caller, dataset.account_region()).await.unwrap().0.renew();
    assert_eq!(asked().await, 1);
}
