//! What the operator keeps: for each account and region the rate limiter, and for each session in it the client of the
//! AWS SDK, with the credentials that it uses.

use super::credentials::redacted;
use super::error::{NO_CREDENTIALS, service_error, sts_code};
use super::rate_limiter::{Gate, Permit, RateLimiter, RateLimits};
use super::{Aws, S3};
use crate::accounts::{AccountsConfig, AssumedRole, Session};
use crate::personalize::{
    AccountRegion, Caller, ErrorKind, Priority, ROLE_NOT_ASSUMED, RoleArn, SESSION_REFUSED, ServiceError,
};
use crate::redact::MAX_IN_USE;
use aws_config::Region;
use aws_config::identity::IdentityCache;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_personalize::Client;
use aws_sdk_personalize::config::ProvideCredentials;
use aws_sdk_personalize::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use lru::LruCache;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// How many accounts and regions, and how many sessions, are kept: users choose them. A call keeps its session until it
/// ends. The next call of a session that was dropped gets new credentials.
const MAX_KEPT: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// Of each session two secrets are in use: its secret key and its token. Those that it had before stay valid for a while.
const _: () = assert!(MAX_IN_USE >= 4 * MAX_KEPT.get());

/// What was used last.
#[derive(Debug)]
struct Recent<K: Hash + Eq, V>(Mutex<LruCache<K, Arc<V>>>);

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    fn new() -> Self {
        Self(Mutex::new(LruCache::new(MAX_KEPT)))
    }

    fn get(&self, key: &K, new: impl FnOnce() -> V) -> Arc<V> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(recent.get_or_insert_ref(key, || Arc::new(new())))
    }
}

/// A session in an account and region. A session that the configuration no longer has is not used any more.
type SessionKey = (AccountRegion, Session);

/// The client of a session.
#[derive(Debug)]
pub struct SessionClient {
    key: SessionKey,
    client: Mutex<Arc<OnceCell<(Client, S3)>>>,
    /// Closed while the service refuses the credentials of this session.
    gate: Arc<Mutex<Gate>>,
}

impl SessionClient {
    fn new(key: SessionKey) -> Self {
        Self { key, client: Mutex::default(), gate: Arc::default() }
    }

    /// The error of a call in this session, with its role.
    fn name_role(&self, error: ServiceError) -> ServiceError {
        ServiceError { role: self.key.1.role.as_ref().map(|role| role.arn.clone()), ..error }
    }

    /// The next call gets new credentials: those of the client were refused before they expired.
    pub(super) fn renew(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }
}

/// The accounts and regions, and the sessions, that were used last.
#[derive(Debug)]
pub(super) struct Clients {
    limits: RateLimits,
    limiters: Recent<AccountRegion, RateLimiter>,
    sessions: Recent<SessionKey, SessionClient>,
}

impl Clients {
    pub(super) fn new(limits: RateLimits) -> Self {
        Self { limits, limiters: Recent::new(), sessions: Recent::new() }
    }
}

/// The right to send one call in a session.
#[derive(Debug)]
pub struct SessionPermit {
    pub(super) permit: Permit,
    pub(super) session: Arc<SessionClient>,
    pub(super) config: Arc<AccountsConfig>,
}

impl Aws {
    /// Waits until a call of this caller may be sent.
    pub(super) async fn permit(
        &self,
        caller: &Caller,
        at: &AccountRegion,
        priority: Priority,
    ) -> Result<SessionPermit, ServiceError> {
        let (session, config) = self.session(caller, at).await?;
        let limiter = self.clients.limiters.get(at, || RateLimiter::new(self.clients.limits.clone()));
        let permit = limiter.acquire(&session.gate, priority).await.map_err(|error| session.name_role(error))?;
        Ok(SessionPermit { permit, session, config })
    }

    /// The session of this caller.
    async fn session(
        &self,
        caller: &Caller,
        at: &AccountRegion,
    ) -> Result<(Arc<SessionClient>, Arc<AccountsConfig>), ServiceError> {
        let config = self.accounts.active(&at.account, self.credentials_timeout).await?;
        let denied = |why: String| {
            let error = ServiceError::unanswered(ErrorKind::AccessDenied, "NoRoleForNamespace", &why);
            ServiceError { unsent: true, ..error }
        };
        let key = (at.clone(), config.session(at, caller).map_err(denied)?);
        Ok((self.clients.sessions.get(&key, || SessionClient::new(key.clone())), config))
    }

    /// The client of a session, created on first use.
    pub(super) async fn client(&self, session: &SessionClient) -> Result<Client, ServiceError> {
        Ok(self.clients_of(session).await?.0)
    }

    /// S3 in the session of this caller. Its calls pass no rate limiter: the check bounds them.
    pub(super) async fn s3(&self, caller: &Caller, at: &AccountRegion) -> Result<S3, ServiceError> {
        let (session, _) = self.session(caller, at).await?;
        Ok(Box::pin(self.clients_of(&session)).await?.1)
    }

    async fn clients_of(&self, session: &SessionClient) -> Result<(Client, S3), ServiceError> {
        let clients = Arc::clone(&session.client.lock().unwrap_or_else(PoisonError::into_inner));
        clients.get_or_try_init(|| self.new_clients(&session.key)).await.cloned()
    }

    async fn new_clients(&self, (at, session): &SessionKey) -> Result<(Client, S3), ServiceError> {
        let region = Region::new(at.region.clone());
        // The cache of the base configuration holds 64 credentials for all sessions, and it would give a renewed session
        // the refused ones.
        let own_cache = IdentityCache::lazy().build();
        let mut config = self.base.to_builder().region(region.clone()).identity_cache(own_cache);
        if let Some(role) = &session.role {
            check_partition(role, at)?;
            let mut provider = AssumeRoleProvider::builder(&role.arn)
                .configure(&self.base)
                .region(region)
                .session_name(&role.session_name);
            if let Some(external_id) = &role.external_id {
                provider = provider.external_id(external_id);
            }
            if !role.tags.is_empty() {
                provider = provider.tags(&role.tags);
            }
            config = config.credentials_provider(redacted(provider.build().await));
        } else if let Some(own) = self.own_account().await.filter(|own| *own != at.account) {
            // The service has no access across accounts, so the call can't succeed.
            let message =
                format!("the operator's credentials are of account {own}: {}", self.no_role_message(&at.account));
            return Err(ServiceError::unanswered(ErrorKind::AccessDenied, "NoRoleForAccount", &message));
        }
        let config = config.build();
        let mut personalize = aws_sdk_personalize::config::Builder::from(&config);
        if let Some(endpoint) = &session.endpoint {
            personalize = personalize.endpoint_url(endpoint);
        }
        Ok((Client::from_conf(personalize.build()), S3::new(&config)))
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
    pub(super) fn error<E>(&self, session: &SessionClient, error: &SdkError<E, HttpResponse>) -> ServiceError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mapped = session.name_role(service_error(error));
        let (at, session) = &session.key;
        let refused = |code, message| {
            ServiceError::unanswered(ErrorKind::Credentials, code, &self.with_refusal(&at.account, message))
        };
        match (&session.role, mapped.kind) {
            (Some(role), ErrorKind::Credentials) if mapped.code == NO_CREDENTIALS => {
                let (code, arn) = (sts_code(error), &role.arn);
                let advice = trust_advice(code, role);
                refused(ROLE_NOT_ASSUMED, format!("the role {arn} for {at} can't be assumed ({code}{advice})"))
            }
            (Some(role), ErrorKind::Credentials) => {
                let (code, arn) = (&mapped.code, &role.arn);
                refused(SESSION_REFUSED, format!("the session of the role {arn} for {at} is refused ({code})"))
            }
            (Some(role), ErrorKind::AccessDenied) => {
                let message = format!("{} (called with the role {} for {at})", mapped.message, role.arn);
                ServiceError { message: self.with_refusal(&at.account, message), ..mapped }
            }
            (None, ErrorKind::AccessDenied)
                if self.own_account.get() != Some(&at.account) && may_lack_role(&at.account, &mapped.message) =>
            {
                ServiceError {
                    message: format!("{} ({})", mapped.message, self.no_role_message(&at.account)),
                    ..mapped
                }
            }
            _ => mapped,
        }
    }

    fn no_role_message(&self, account: &str) -> String {
        let place = match self.accounts.config_map() {
            Some(name) => format!("to the ConfigMap {name}"),
            None => "with --account-roles".to_owned(),
        };
        let message =
            format!("no role is configured for account {account}; if it is not the operator's own, add one {place}");
        self.with_refusal(account, message)
    }

    /// The message, and that the current content of the ConfigMap is not active.
    fn with_refusal(&self, account: &str, message: String) -> String {
        match self.accounts.refusal(account) {
            Some(refusal) => format!("{message}; {refusal}"),
            None => message,
        }
    }
}

/// Credentials of one partition are not valid in another.
fn check_partition(role: &AssumedRole, at: &AccountRegion) -> Result<(), ServiceError> {
    if RoleArn::parse(&role.arn).is_none_or(|role| role.partition == at.partition) {
        return Ok(());
    }
    let message = format!("the role {} for {at} is not of the dataset's partition {}", role.arn, at.partition);
    Err(ServiceError::unanswered(ErrorKind::AccessDenied, "RoleOfOtherPartition", &message))
}

/// What the trust policy of a role has to allow, if STS denies the call.
fn trust_advice(code: &str, role: &AssumedRole) -> String {
    if code != "AccessDenied" {
        return String::new();
    }
    let external_id = if role.external_id.is_some() { " with the configured external ID" } else { "" };
    let tags = if role.tags.is_empty() { "" } else { " and sts:TagSession" };
    format!("; its trust policy must allow the operator sts:AssumeRole{tags}{external_id}")
}

/// Whether a denied call may lack a role for this account. The service names the caller: `User: arn:aws:sts::…`. If it is
/// of the account, a permission is missing.
fn may_lack_role(account: &str, message: &str) -> bool {
    let caller = message.split_once("User: arn:").and_then(|(_, arn)| arn.split(':').nth(3));
    let is_pass_role = message.contains("iam:PassRole") || message.contains("pass role");
    caller != Some(account) && !is_pass_role
}

#[cfg(test)]
mod tests;
