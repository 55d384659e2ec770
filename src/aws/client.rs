//! The clients of the AWS SDK, one per account and region, and the credentials that they use.

use super::Aws;
use super::credentials::redacted;
use super::error::{NO_CREDENTIALS, service_error, sts_code};
use crate::personalize::{AccountRegion, ErrorKind, ROLE_NOT_ASSUMED, ServiceError};
use aws_config::Region;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_personalize::Client;
use aws_sdk_personalize::config::ProvideCredentials;
use aws_sdk_personalize::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use tokio::time::timeout;

/// The maximum number of cached clients. Users choose the accounts and regions.
const MAX_CLIENTS: usize = 1000;

/// The session name in assumed roles, as CloudTrail shows it.
const SESSION_NAME: &str = "personalize-operator";

impl Aws {
    /// The client for an account and region, created on first use.
    pub(super) async fn client(&self, account_region: &AccountRegion) -> Result<Client, ServiceError> {
        if let Some(client) = self.clients().get(account_region) {
            return Ok(client.clone());
        }
        // The lock is not held while credentials are resolved, so a slow provider delays no other account.
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
        let client = Client::from_conf(config.build());
        let mut clients = self.clients();
        if clients.len() >= MAX_CLIENTS {
            // They are created again on their next use.
            clients.clear();
        }
        Ok(clients.entry(account_region.clone()).or_insert(client).clone())
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<AccountRegion, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
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
