//! What the operator keeps for each account and region: the client of the AWS SDK, with the credentials that it uses,
//! and the rate limiter.

use super::Aws;
use super::credentials::redacted;
use super::error::{NO_CREDENTIALS, service_error, sts_code};
use super::rate_limiter::{RateLimiter, RateLimits};
use crate::personalize::{AccountRegion, ErrorKind, ROLE_NOT_ASSUMED, ServiceError};
use aws_config::Region;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_personalize::Client;
use aws_sdk_personalize::config::ProvideCredentials;
use aws_sdk_personalize::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// How many accounts and regions are kept: users choose them. It is far more than can be in use at once, because the
/// workers are limited, so what is dropped is idle.
const MAX_ENDPOINTS: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// The session name in assumed roles, as CloudTrail shows it.
const SESSION_NAME: &str = "personalize-operator";

/// An account and region.
#[derive(Debug)]
pub(super) struct Endpoint {
    client: OnceCell<Client>,
    pub(super) limiter: Arc<RateLimiter>,
}

/// The accounts and regions that were used last.
#[derive(Debug)]
pub(super) struct Endpoints {
    limits: RateLimits,
    recent: Mutex<LruCache<AccountRegion, Arc<Endpoint>>>,
}

impl Endpoints {
    pub(super) fn new(limits: RateLimits) -> Self {
        Self { limits, recent: Mutex::new(LruCache::new(MAX_ENDPOINTS)) }
    }

    fn get(&self, account_region: &AccountRegion) -> Arc<Endpoint> {
        let new = || {
            let limiter = Arc::new(RateLimiter::new(self.limits.clone()));
            Arc::new(Endpoint { client: OnceCell::new(), limiter })
        };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(recent.get_or_insert_ref(account_region, new))
    }
}

impl Aws {
    pub(super) fn endpoint(&self, account_region: &AccountRegion) -> Arc<Endpoint> {
        self.endpoints.get(account_region)
    }

    /// The client for an account and region, created on first use.
    pub(super) async fn client(&self, account_region: &AccountRegion) -> Result<Client, ServiceError> {
        let endpoint = self.endpoint(account_region);
        endpoint.client.get_or_try_init(|| self.new_client(account_region)).await.cloned()
    }

    async fn new_client(&self, account_region: &AccountRegion) -> Result<Client, ServiceError> {
        let region = Region::new(account_region.region.clone());
        let mut config = aws_sdk_personalize::config::Builder::from(&self.base).region(region.clone());
        if let Some(role) = self.roles.get(&account_region.account) {
            let provider = AssumeRoleProvider::builder(role)
                .configure(&self.base)
                .region(region)
                .session_name(SESSION_NAME)
                .build()
                .await;
            config = config.credentials_provider(redacted(provider));
        } else if let Some(own) = self.own_account().await.filter(|own| *own != account_region.account) {
            // The service has no access across accounts, so the call can't succeed.
            return Err(ServiceError::unanswered(
                ErrorKind::AccessDenied,
                "NoRoleForAccount",
                &format!(
                    "the operator's credentials are of account {own}: {}",
                    no_role_message(&account_region.account)
                ),
            ));
        }
        Ok(Client::from_conf(config.build()))
    }

    /// The account of the default credentials, if the provider reports it in time. The result is cached once it is
    /// known.
    async fn own_account(&self) -> Option<String> {
        if let Some(account) = self.own_account.get() {
            return Some(account.clone());
        }
        let provider = self.base.credentials_provider()?;
        let credentials = timeout(self.credentials_timeout, provider.provide_credentials()).await.ok()?.ok()?;
        let account = credentials.account_id()?.as_str();
        Some(self.own_account.get_or_init(|| account.to_owned()).clone())
    }

    /// Maps the error of a failed call. The message says so if the account's role or credentials may be the cause.
    pub(super) fn error<E>(&self, account_region: &AccountRegion, error: &SdkError<E, HttpResponse>) -> ServiceError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let account = &account_region.account;
        let mapped = service_error(error);
        match (self.roles.get(account), mapped.kind) {
            (Some(role), ErrorKind::Credentials) if mapped.code == NO_CREDENTIALS => {
                let message = format!("the role {role} for account {account} can't be assumed ({})", sts_code(error));
                ServiceError::unanswered(ErrorKind::Credentials, ROLE_NOT_ASSUMED, &message)
            }
            (None, ErrorKind::AccessDenied)
                if self.own_account.get() != Some(account) && may_lack_role(account, &mapped.message) =>
            {
                ServiceError { message: format!("{} ({})", mapped.message, no_role_message(account)), ..mapped }
            }
            _ => mapped,
        }
    }
}

/// Whether a denied call may lack a role for this account. The service names the caller: `User: arn:aws:sts::…`. If it is
/// of the account, a permission is missing.
fn may_lack_role(account: &str, message: &str) -> bool {
    let caller = message.split_once("User: arn:").and_then(|(_, arn)| arn.split(':').nth(3));
    let is_pass_role = message.contains("iam:PassRole") || message.contains("pass role");
    caller != Some(account) && !is_pass_role
}

fn no_role_message(account: &str) -> String {
    format!(
        "no role is configured for account {account}; if it is not the operator's own, add one with --account-roles"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account_region(i: usize) -> AccountRegion {
        AccountRegion { partition: "aws".into(), account: format!("{i:012}"), region: "eu-west-1".into() }
    }

    #[test]
    fn account_and_region_in_use_is_kept_however_many_others_there_are() {
        let endpoints = Endpoints::new(RateLimits::default());
        let (used, unused) = (endpoints.get(&account_region(0)), endpoints.get(&account_region(1)));
        for i in 2..2 * MAX_ENDPOINTS.get() {
            endpoints.get(&account_region(i));
            assert!(Arc::ptr_eq(&used, &endpoints.get(&account_region(0))));
        }
        assert!(!Arc::ptr_eq(&unused, &endpoints.get(&account_region(1))), "the least recently used one is dropped");
        assert_eq!(endpoints.recent.lock().unwrap().len(), MAX_ENDPOINTS.get());
    }
}
