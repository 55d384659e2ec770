//! Watches the ConfigMap of accounts. Each replica does, whether it leads or not, so that a new leader knows the last valid
//! configuration even if the current one is invalid.

use super::events::{EventPublisher, EventSpec};
use crate::accounts::{Accounts, AccountsConfig, InvalidAccounts};
use crate::redact::sanitize_display;
use crate::telemetry::metrics::Metrics;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use std::time::Duration;
use tokio::time::sleep;
use tracing::{info, warn};

/// The key in the ConfigMap that holds the document.
pub const ACCOUNTS_KEY: &str = "accounts.yaml";

/// The delay before a watch that failed starts over.
const RESTART: Duration = Duration::from_secs(5);

/// Keeps the active configuration up to date. Does not return.
pub(super) async fn watch(
    client: &Client,
    accounts: &Accounts,
    config: watcher::Config,
    metrics: &Metrics,
    events: &EventPublisher,
) {
    let Some((namespace, name)) = accounts.config_map().and_then(|name| name.split_once('/')) else {
        return std::future::pending().await;
    };
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let config = config.fields(&format!("metadata.name={name}"));
    let missing = || Err(InvalidAccounts(vec!["it does not exist".into()]));
    loop {
        let (mut changes, mut found) = (watcher(api.clone(), config.clone()).boxed(), false);
        while let Some(change) = changes.next().await {
            match change {
                Ok(Event::Init) => found = false,
                Ok(Event::InitApply(config_map) | Event::Apply(config_map)) => {
                    found = true;
                    take(accounts, parse(&config_map), Some((&config_map, events)), metrics);
                }
                Ok(Event::InitDone) if found => {}
                Ok(Event::InitDone | Event::Delete(_)) => take(accounts, missing(), None, metrics),
                Err(error) => {
                    let error = sanitize_display(&error);
                    warn!(name, error, "the ConfigMap of accounts can't be watched; retrying");
                    if accounts.set_unreadable(&error) {
                        metrics.set_accounts_valid(false);
                    }
                    break;
                }
            }
        }
        sleep(RESTART).await;
    }
}

fn parse(config_map: &ConfigMap) -> Result<AccountsConfig, InvalidAccounts> {
    let (text, binary) = (config_map.data.iter().flatten(), config_map.binary_data.iter().flatten());
    let keys = text.map(|(key, _)| key).chain(binary.map(|(key, _)| key));
    let unknown: Vec<String> = keys
        .filter(|key| *key != ACCOUNTS_KEY)
        .map(|key| format!("unknown key {key}, expected only {ACCOUNTS_KEY}"))
        .collect();
    if !unknown.is_empty() {
        return Err(InvalidAccounts(unknown));
    }
    let document = config_map.data.as_ref().and_then(|data| data.get(ACCOUNTS_KEY));
    let missing = || InvalidAccounts(vec![format!("the key {ACCOUNTS_KEY} is missing")]);
    AccountsConfig::parse(document.ok_or_else(missing)?)
}

/// Activates a configuration, or says why not: in the log, in a metric and, if the ConfigMap exists, in its events.
fn take(
    accounts: &Accounts,
    read: Result<AccountsConfig, InvalidAccounts>,
    about: Option<(&ConfigMap, &EventPublisher)>,
    metrics: &Metrics,
) {
    let name = accounts.config_map().unwrap_or_default();
    let error = read.as_ref().err().map(ToString::to_string);
    let changed = accounts.set(read);
    metrics.set_accounts_valid(error.is_none());
    if !changed {
        return;
    }
    let event = match &error {
        None => {
            info!(name, "the configuration of accounts is active");
            EventSpec::about_accounts("AccountsActive", "the configuration is active".into())
        }
        Some(error) => {
            warn!(name, error, "the configuration of accounts is refused; an earlier one stays active");
            let note = format!("refused, so that an earlier configuration stays active: {error}");
            EventSpec::about_accounts("AccountsRefused", note)
        }
    };
    if let Some((config_map, events)) = about {
        events.publish_about(config_map.object_ref(&()), &event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn config_map_holds_nothing_but_the_document() {
        let config_map = |data: serde_json::Value| serde_json::from_value::<ConfigMap>(json!({"data": data})).unwrap();
        assert_eq!(parse(&config_map(json!({ACCOUNTS_KEY: "accounts: {}"}))), Ok(AccountsConfig::default()));
        for (data, expected) in [
            (json!({}), "the key accounts.yaml is missing"),
            (json!({"accounts.yml": ""}), "unknown key accounts.yml, expected only accounts.yaml"),
            (json!({ACCOUNTS_KEY: "", "a": ""}), "unknown key a, expected only accounts.yaml"),
            (json!({ACCOUNTS_KEY: "account: {}"}), "unknown field `account`"),
        ] {
            let error = parse(&config_map(data)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
