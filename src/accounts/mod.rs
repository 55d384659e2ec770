//! With which role the calls for an account are signed: the active configuration, from a ConfigMap and from flags.

mod config;

pub use config::{AccountsConfig, AssumedRole, InvalidAccounts, Session};

use crate::personalize::{ACCOUNTS_NOT_READ, AccountRegion, Caller, ErrorKind, ServiceError};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::{Receiver, Sender};
use tokio::time::timeout;

/// The active configuration. Clones share it.
#[derive(Debug, Clone)]
pub struct Accounts(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The roles that flags give to accounts.
    roles: HashMap<String, String>,
    /// The ConfigMap, as `namespace/name`.
    config_map: Option<String>,
    state: Sender<State>,
}

/// What was read of the ConfigMap.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The last valid configuration.
    active: Option<Arc<AccountsConfig>>,
    /// Why the current content of the ConfigMap is not active.
    errors: Vec<String>,
}

impl Accounts {
    /// Only the roles that flags give to accounts, or also a ConfigMap, as `namespace/name`. Nothing is active until that
    /// is read: a call must not be made with other credentials than those that it names.
    #[must_use]
    pub fn new(roles: HashMap<String, String>, config_map: Option<String>) -> Self {
        let active = config_map.is_none().then(|| Arc::new(AccountsConfig::default().with_roles(&roles)));
        let state = Sender::new(State { active, errors: Vec::new() });
        Self(Arc::new(Shared { roles, config_map, state }))
    }

    /// The ConfigMap, as `namespace/name`.
    pub(crate) fn config_map(&self) -> Option<&str> {
        self.0.config_map.as_deref()
    }

    #[cfg(test)]
    pub(crate) fn roles(&self) -> &HashMap<String, String> {
        &self.0.roles
    }

    /// The state and its changes.
    pub(crate) fn subscribe(&self) -> Receiver<State> {
        self.0.state.subscribe()
    }

    /// Takes what was read of the ConfigMap. An invalid configuration leaves the last valid one active. Returns whether
    /// anything changed.
    pub(crate) fn set(&self, read: Result<AccountsConfig, InvalidAccounts>) -> bool {
        self.0.state.send_if_modified(|state| match read {
            Ok(config) => {
                let config = config.with_roles(&self.0.roles);
                let was_refused = !std::mem::take(&mut state.errors).is_empty();
                if state.active.as_deref() == Some(&config) {
                    return was_refused;
                }
                state.active = Some(Arc::new(config));
                true
            }
            Err(InvalidAccounts(errors)) => {
                let changed = state.errors != errors;
                state.errors = errors;
                changed
            }
        })
    }

    /// The ConfigMap can't be read. That matters only until a configuration is active. Returns whether it matters.
    pub(crate) fn set_unreadable(&self, why: &str) -> bool {
        let matters = self.0.state.borrow().active.is_none();
        if matters {
            self.set(Err(InvalidAccounts(vec![format!("it can't be read: {why}")])));
        }
        matters
    }

    /// The active configuration. Waits this long for the first one.
    ///
    /// # Errors
    /// While there is none.
    pub(crate) async fn active(&self, account: &str, wait: Duration) -> Result<Arc<AccountsConfig>, ServiceError> {
        let mut state = self.subscribe();
        let read = state.wait_for(|state| state.active.is_some() || !state.errors.is_empty());
        // The state drops its lock before the message is made.
        let active = timeout(wait, read).await.ok().and_then(Result::ok).and_then(|state| state.active.clone());
        active.ok_or_else(|| {
            let name = self.config_map().unwrap_or_default();
            let why = self.errors_for(account).unwrap_or_else(|| "it has not been read yet".into());
            let message =
                format!("no role is known yet, because the ConfigMap {name} with the roles can't be used: {why}");
            let error = ServiceError::unanswered(ErrorKind::Credentials, ACCOUNTS_NOT_READ, &message);
            ServiceError { unsent: true, ..error }
        })
    }

    /// A number that changes with how the calls of a caller are signed.
    pub(crate) fn version(&self, at: &AccountRegion, caller: &Caller) -> u64 {
        let state = self.0.state.borrow();
        hash(&state.active.as_ref().map(|config| config.session(at, caller)))
    }

    /// A number that changes with what an account says of one of its regions. Under a role of a Namespace, calls depend on
    /// settings that no other session has.
    pub(crate) fn settings_version(&self, at: &AccountRegion) -> u64 {
        let state = self.0.state.borrow();
        hash(&state.active.as_ref().map(|config| config.settings(at)))
    }

    /// A number that changes with [`Self::refusal`].
    pub(crate) fn refusal_version(&self, account: &str) -> u64 {
        hash(&self.refusal(account))
    }

    /// That the current content of the ConfigMap is not active, and why, as far as it concerns this account.
    pub(crate) fn refusal(&self, account: &str) -> Option<String> {
        let (name, why) = (self.config_map()?, self.errors_for(account)?);
        Some(format!("the ConfigMap {name} is refused ({why}), so an earlier configuration is active"))
    }

    /// What is wrong with the ConfigMap. Other accounts stay private.
    fn errors_for(&self, account: &str) -> Option<String> {
        let state = self.0.state.borrow();
        if state.errors.is_empty() {
            return None;
        }
        let concerns = |error: &&String| !error.starts_with("accounts") || error.contains(account);
        let own: Vec<&str> = state.errors.iter().filter(concerns).map(String::as_str).collect();
        Some(if own.is_empty() { "its events say why".to_owned() } else { own.join("; ") })
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "210987654321";

    fn at(account: &str) -> AccountRegion {
        AccountRegion { partition: "aws".into(), account: account.into(), region: "eu-west-1".into() }
    }

    fn parse(settings: &str) -> Result<AccountsConfig, InvalidAccounts> {
        AccountsConfig::parse(&format!("accounts: {{'{ACCOUNT}': {settings}}}"))
    }

    fn version(accounts: &Accounts, account: &str) -> u64 {
        accounts.version(&at(account), &Caller::default())
    }

    #[tokio::test]
    async fn invalid_configuration_leaves_the_last_valid_one_active() {
        let accounts = Accounts::new(HashMap::new(), Some("ops/accounts".into()));
        assert!(accounts.active(ACCOUNT, Duration::ZERO).await.is_err(), "nothing is read yet");
        accounts.set(parse("{roleArn: x}"));
        let error = accounts.active(ACCOUNT, Duration::from_secs(60)).await.unwrap_err();
        assert!(error.unsent && error.message.contains("the ConfigMap ops/accounts"), "{error}");
        assert!(error.message.contains("roleArn: \"x\" must be the ARN"), "{error}");
        accounts.set(parse("{endpoint: 'https://a'}"));
        let valid = accounts.active(ACCOUNT, Duration::ZERO).await.unwrap();
        assert_eq!(accounts.refusal(ACCOUNT), None);
        let versions = || {
            let settings = (version(&accounts, ACCOUNT), accounts.settings_version(&at(ACCOUNT)));
            (settings, accounts.refusal_version(ACCOUNT))
        };
        let before = versions();
        accounts.set(parse("{roleArn: x}"));
        assert_eq!(accounts.active(ACCOUNT, Duration::ZERO).await.unwrap(), valid);
        assert_eq!(versions().0, before.0, "calls are signed as before");
        assert_ne!(versions().1, before.1, "a denied import says why");
        let refusal = accounts.refusal(ACCOUNT).unwrap();
        assert!(refusal.contains("accounts.210987654321.roleArn: \"x\" must be"), "{refusal}");
        let refusal = accounts.refusal("111122223333").unwrap();
        assert!(refusal.contains("its events say why") && !refusal.contains(ACCOUNT), "{refusal}");
    }

    #[test]
    fn version_changes_only_for_the_account_that_is_changed() {
        let accounts = Accounts::new(HashMap::new(), Some("ops/accounts".into()));
        accounts.set(parse("{}"));
        let mut changes = accounts.subscribe();
        let (before, other) = (version(&accounts, ACCOUNT), version(&accounts, "111122223333"));
        accounts.set(parse("{}"));
        assert!(!changes.has_changed().unwrap());
        accounts.set(parse("{endpoint: 'https://a'}"));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_ne!(version(&accounts, ACCOUNT), before);
        assert_eq!(version(&accounts, "111122223333"), other);
    }

    #[test]
    fn settings_without_a_role_count_because_a_namespace_may_name_one() {
        let accounts = Accounts::new(HashMap::new(), Some("ops/accounts".into()));
        let versions = || [ACCOUNT, "111122223333"].map(|account| accounts.settings_version(&at(account)));
        let mut before = versions();
        for settings in [
            "{externalId: shop-42}",
            "{externalId: shop-43}",
            "{externalId: shop-43, tagNamespace: true}",
            "{sessionName: imports}",
            "{sessionTags: {team: data}}",
            "{endpoint: 'https://a'}",
            "{regions: {eu-west-1: {externalId: shop-42}}}",
        ] {
            accounts.set(parse(settings));
            let after = versions();
            assert_ne!(after[0], before[0], "{settings}");
            before = after;
        }
        let elsewhere = "{regions: {eu-west-1: {externalId: shop-42}, us-east-1: {externalId: shop-44}}}";
        accounts.set(parse(elsewhere));
        assert_eq!(versions(), before, "another region");
        accounts.set(parse("{}"));
        assert_eq!(versions()[1], before[1], "another account");
    }
}
