//! The document in the ConfigMap of accounts.
//!
//! ```
//! use personalize_operator::accounts::AccountsConfig;
//! use personalize_operator::personalize::{AccountRegion, Caller};
//!
//! let config = AccountsConfig::parse(
//!     r#"
//!     accounts:
//!       "210987654321":
//!         roleArn: arn:aws:iam::210987654321:role/PersonalizeImporter
//!         externalId: shop-42
//!         tagNamespace: true
//!         regions:
//!           us-east-1: { endpoint: "https://vpce-1.personalize.us-east-1.vpce.amazonaws.com" }
//!     defaultTags: { costCenter: "42" }
//!     "#,
//! )?;
//! let caller = Caller { namespace: "shop".into(), ..Caller::default() };
//! let at = AccountRegion { partition: "aws".into(), account: "210987654321".into(), region: "eu-west-1".into() };
//! let role = config.session(&at, &caller)?.role.unwrap();
//! assert_eq!(role.external_id.as_deref(), Some("shop-42"));
//! assert_eq!(role.tags["personalize-operator.io/namespace"], "shop");
//!
//! let misspelt = "accounts: { '210987654321': { role: arn:aws:iam::210987654321:role/PersonalizeImporter } }";
//! let errors = AccountsConfig::parse(misspelt).unwrap_err();
//! assert!(errors.to_string().starts_with("accounts.210987654321: unknown field `role`, expected one of `roleArn`"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::import::request::TAG_NAMESPACE;
use crate::personalize::{AccountRegion, Caller, CallerRole, RoleArn};
use crate::redact::sanitize;
use http::Uri;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;

/// The session name in assumed roles, as CloudTrail shows it, unless the configuration has another.
const SESSION_NAME: &str = "personalize-operator";

/// The most session tags that STS takes, without that of the namespace.
const MAX_SESSION_TAGS: usize = 49;

/// The most default tags of jobs. A job takes 50 tags, and four are the operator's.
const MAX_DEFAULT_TAGS: usize = 46;

/// What is wrong with a document, each with the path of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAccounts(pub Vec<String>);

impl fmt::Display for InvalidAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for InvalidAccounts {}

/// The accounts, and the tags of every job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct AccountsConfig {
    #[serde(deserialize_with = "unique")]
    accounts: BTreeMap<String, Settings>,
    /// The tags that every job gets whose resource has no tag of this key.
    #[serde(deserialize_with = "unique")]
    pub(crate) default_tags: BTreeMap<String, String>,
}

/// The settings of an account, or what is different in one of its regions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Settings {
    role_arn: Option<String>,
    external_id: Option<String>,
    session_name: Option<String>,
    #[serde(deserialize_with = "optional_unique")]
    session_tags: Option<BTreeMap<String, String>>,
    tag_namespace: Option<bool>,
    endpoint: Option<String>,
    #[serde(deserialize_with = "unique")]
    regions: BTreeMap<String, Self>,
}

/// How calls are signed, and where they go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Session {
    /// The role to assume; `None` if the operator's own credentials are used.
    pub role: Option<AssumedRole>,
    /// The URL of the service, if it is not the public endpoint of the region.
    pub endpoint: Option<String>,
}

/// A role, and how it is assumed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssumedRole {
    /// Its ARN.
    pub arn: String,
    /// `ExternalId`.
    pub external_id: Option<String>,
    /// `RoleSessionName`.
    pub session_name: String,
    /// `Tags`.
    pub tags: BTreeMap<String, String>,
}

impl AccountsConfig {
    /// The configuration in a document.
    ///
    /// # Errors
    /// Everything that is wrong with the document; only the first, if it can't be read.
    pub fn parse(document: &str) -> Result<Self, InvalidAccounts> {
        let config: Self = match serde_yaml::from_str::<Option<Self>>(document) {
            Ok(config) => config.unwrap_or_default(),
            Err(error) => return Err(InvalidAccounts(vec![sanitize(&error.to_string())])),
        };
        let errors = config.errors();
        if errors.is_empty() { Ok(config) } else { Err(InvalidAccounts(errors)) }
    }

    /// Adds roles of accounts that the document does not name.
    #[must_use]
    pub(super) fn with_roles(mut self, roles: &HashMap<String, String>) -> Self {
        for (account, role) in roles {
            let settings = || Settings { role_arn: Some(role.clone()), ..Settings::default() };
            self.accounts.entry(account.clone()).or_insert_with(settings);
        }
        self
    }

    /// How the calls of a caller are signed, and where they go.
    ///
    /// # Errors
    /// Why the caller may make no call in this account.
    pub fn session(&self, at: &AccountRegion, caller: &Caller) -> Result<Session, String> {
        let settings = self.settings(at);
        let role = match &caller.role {
            CallerRole::OfAccount => settings.role_arn,
            CallerRole::Named(arn) => Some(arn.clone()),
            CallerRole::Denied(why) => return Err(why.clone()),
        };
        let mut tags = settings.session_tags.unwrap_or_default();
        if settings.tag_namespace.unwrap_or(false) {
            tags.insert(TAG_NAMESPACE.into(), caller.namespace.clone());
        }
        let role = role.map(|arn| AssumedRole {
            arn,
            external_id: settings.external_id,
            session_name: settings.session_name.unwrap_or_else(|| SESSION_NAME.into()),
            tags,
        });
        Ok(Session { role, endpoint: settings.endpoint })
    }

    /// What an account says of one of its regions.
    pub(super) fn settings(&self, at: &AccountRegion) -> Settings {
        let none = Settings::default();
        let account = self.accounts.get(&at.account).unwrap_or(&none);
        let region = account.regions.get(&at.region).unwrap_or(&none);
        let text = |of: fn(&Settings) -> &Option<String>| of(region).as_ref().or(of(account).as_ref()).cloned();
        Settings {
            role_arn: text(|settings| &settings.role_arn),
            external_id: text(|settings| &settings.external_id),
            session_name: text(|settings| &settings.session_name),
            session_tags: region.session_tags.as_ref().or(account.session_tags.as_ref()).cloned(),
            tag_namespace: region.tag_namespace.or(account.tag_namespace),
            endpoint: text(|settings| &settings.endpoint),
            regions: BTreeMap::new(),
        }
    }

    fn errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        for (account, settings) in &self.accounts {
            let path = format!("accounts.{}", sanitize(account));
            if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
                errors.push(format!("{path}: an account is 12 digits, such as \"123456789012\""));
            }
            settings.check(&path, account, &mut errors);
            for (region, settings) in &settings.regions {
                let path = format!("{path}.regions.{}", sanitize(region));
                if !region.contains('-') || !region.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
                    errors.push(format!("{path}: this is no region, such as eu-west-1"));
                }
                if !settings.regions.is_empty() {
                    errors.push(format!("{path}.regions: only an account has regions"));
                }
                settings.check(&path, account, &mut errors);
            }
        }
        check_tags("defaultTags", &self.default_tags, MAX_DEFAULT_TAGS, &mut errors);
        errors
    }
}

impl Settings {
    fn check(&self, path: &str, account: &str, errors: &mut Vec<String>) {
        let Self { role_arn, external_id, session_name, session_tags, tag_namespace: _, endpoint, regions: _ } = self;
        let consists_of = |text: &str, more: &str, lengths: std::ops::RangeInclusive<usize>| {
            lengths.contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let mut check = |key: &str, value: &Option<String>, is_valid: &dyn Fn(&str) -> bool, rule: &str| {
            if let Some(value) = value.as_deref().filter(|value| !is_valid(value)) {
                errors.push(format!("{path}.{key}: {:?} {rule}", sanitize(value)));
            }
        };
        let of_account = |arn: &str| RoleArn::parse(arn).is_some_and(|role| role.account == account);
        let rule = format!("must be the ARN of a role of this account, such as arn:aws:iam::{account}:role/Importer");
        check("roleArn", role_arn, &of_account, &rule);
        let rule = "must be 2 to 1224 letters, digits or any of _ + = , . @ : / -";
        check("externalId", external_id, &|id| consists_of(id, "_+=,.@:/-", 2..=1224), rule);
        let rule = "must be 2 to 64 letters, digits or any of _ + = , . @ -";
        check("sessionName", session_name, &|name| consists_of(name, "_+=,.@-", 2..=64), rule);
        let is_url = |url: &str| {
            let uri = url.parse::<Uri>().ok();
            uri.is_some_and(|uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")))
        };
        check("endpoint", endpoint, &is_url, "must be a URL, such as https://personalize.eu-west-1.amazonaws.com");
        if let Some(tags) = session_tags {
            check_tags(&format!("{path}.sessionTags"), tags, MAX_SESSION_TAGS, errors);
        }
    }
}

fn check_tags(path: &str, tags: &BTreeMap<String, String>, max: usize, errors: &mut Vec<String>) {
    if tags.len() > max {
        errors.push(format!("{path}: {} tags are too many, {max} is the maximum", tags.len()));
    }
    let is_valid = |text: &str, max: usize| {
        let allowed = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
        text.chars().count() <= max && text.chars().all(allowed)
    };
    for (key, value) in tags {
        let (lower, path) = (key.to_lowercase(), format!("{path}.{}", sanitize(key)));
        if key.is_empty() || !is_valid(key, 128) || !is_valid(value, 256) {
            errors.push(format!(
                "{path}: a tag has a key of 1 to 128 and a value of at most 256 letters, digits, spaces or any of _ . : / = + - @"
            ));
        } else if lower.starts_with("aws:") || lower.starts_with("personalize-operator.io/") {
            errors.push(format!("{path}: tags that begin with aws: or personalize-operator.io/ are reserved"));
        }
    }
}

/// A mapping in which each key is given once. Otherwise the last one would win silently.
fn unique<'de, D: Deserializer<'de>, V: Deserialize<'de>>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error> {
    Ok(optional_unique(deserializer)?.unwrap_or_default())
}

fn optional_unique<'de, D, V>(deserializer: D) -> Result<Option<BTreeMap<String, V>>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Unique<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
        type Value = Option<BTreeMap<String, V>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mapping")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut values = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, V>()? {
                if values.contains_key(&key) {
                    return Err(A::Error::custom(format!("{key} is given twice; remove one of them")));
                }
                values.insert(key, value);
            }
            Ok(Some(values))
        }
    }

    deserializer.deserialize_any(Unique(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "210987654321";

    fn at(region: &str) -> AccountRegion {
        AccountRegion { partition: "aws".into(), account: ACCOUNT.into(), region: region.into() }
    }

    fn errors(document: &str) -> String {
        AccountsConfig::parse(document).unwrap_err().to_string()
    }

    #[test]
    fn region_overrides_single_settings_of_its_account() {
        let config = AccountsConfig::parse(
            r#"
            accounts:
              210987654321:
                roleArn: arn:aws:iam::210987654321:role/path/Importer
                externalId: 12345
                sessionTags: { team: data }
                endpoint: http://localhost:8080
                regions:
                  us-east-1:
                    roleArn: arn:aws:iam::210987654321:role/Eastern
                    sessionName: east
                    sessionTags: {}
                    tagNamespace: true
            "#,
        )
        .unwrap();
        let caller = Caller { namespace: "shop".into(), ..Caller::default() };
        let west = config.session(&at("eu-west-1"), &caller).unwrap();
        let role = west.role.unwrap();
        assert_eq!(
            (role.arn.as_str(), role.session_name.as_str()),
            ("arn:aws:iam::210987654321:role/path/Importer", SESSION_NAME)
        );
        assert_eq!((role.external_id.as_deref(), role.tags), (Some("12345"), [("team".into(), "data".into())].into()));
        let east = config.session(&at("us-east-1"), &caller).unwrap();
        let role = east.role.unwrap();
        assert_eq!((role.arn.as_str(), role.session_name.as_str()), ("arn:aws:iam::210987654321:role/Eastern", "east"));
        assert_eq!(
            (role.external_id.as_deref(), role.tags),
            (Some("12345"), [(TAG_NAMESPACE.into(), "shop".into())].into())
        );
        assert_eq!((&east.endpoint, &east.endpoint), (&west.endpoint, &Some("http://localhost:8080".into())));
    }

    #[test]
    fn role_of_the_namespace_is_assumed_as_the_account_says() {
        let document =
            format!("accounts: {{'{ACCOUNT}': {{roleArn: 'arn:aws:iam::{ACCOUNT}:role/a', externalId: id}}}}");
        let config = AccountsConfig::parse(&document).unwrap();
        let caller = |role| Caller { namespace: "shop".into(), role };
        let named = CallerRole::Named(format!("arn:aws:iam::{ACCOUNT}:role/team"));
        let role = config.session(&at("eu-west-1"), &caller(named)).unwrap().role.unwrap();
        assert_eq!(
            (role.arn.as_str(), role.external_id.as_deref()),
            ("arn:aws:iam::210987654321:role/team", Some("id"))
        );
        let denied = config.session(&at("eu-west-1"), &caller(CallerRole::Denied("why".into())));
        assert_eq!(denied, Err("why".into()), "no other role takes its place");
    }

    #[test]
    fn flag_gives_a_role_only_to_an_account_that_the_document_does_not_name() {
        let role = |account: &str| format!("arn:aws:iam::{account}:role/flag");
        let roles = [ACCOUNT, "111122223333"].map(|account| (account.to_owned(), role(account))).into();
        let config = AccountsConfig::parse(&format!("accounts: {{'{ACCOUNT}': {{}}}}")).unwrap().with_roles(&roles);
        let session = |account: &str| {
            let at = AccountRegion { account: account.into(), ..at("eu-west-1") };
            config.session(&at, &Caller::default()).unwrap().role.map(|role| role.arn)
        };
        assert_eq!((session(ACCOUNT), session("111122223333")), (None, Some(role("111122223333"))));
        assert_eq!(session("444455556666"), None);
    }

    #[test]
    fn empty_document_has_no_accounts() {
        for document in ["", "{}", "accounts:", "accounts: {}\ndefaultTags:\n"] {
            assert_eq!(AccountsConfig::parse(document), Ok(AccountsConfig::default()), "{document:?}");
        }
    }

    #[test]
    fn document_that_can_not_be_read_is_refused_with_the_path_of_the_first_error() {
        let of_account = |settings: &str| format!("accounts: {{'{ACCOUNT}': {settings}}}");
        for (document, expected) in [
            ("acounts: {}".to_owned(), "unknown field `acounts`, expected `accounts` or `defaultTags`"),
            (of_account("{rolearn: x}"), "accounts.210987654321: unknown field `rolearn`, expected one of `roleArn`"),
            (of_account("{regions: {eu-west-1: {role: x}}}"), "regions.eu-west-1: unknown field `role`"),
            (of_account("{roleArn: [x]}"), "accounts.210987654321.roleArn: invalid type: sequence, expected a string"),
            (of_account("{tagNamespace: maybe}"), "accounts.210987654321.tagNamespace: invalid type"),
            (of_account("{sessionTags: {a: 1, a: 2}}"), "accounts.210987654321.sessionTags: a is given twice"),
            (of_account("x"), "accounts.210987654321: invalid type"),
            (format!("accounts:\n  {ACCOUNT}: {{}}\n  '{ACCOUNT}': {{}}"), "accounts: 210987654321 is given twice"),
            ("accounts: [a]".to_owned(), "accounts: invalid type: sequence, expected a mapping"),
            ("accounts: {".to_owned(), "did not find expected node content"),
        ] {
            let errors = errors(&document);
            assert!(errors.contains(expected), "{document}: {errors}");
        }
    }

    #[test]
    fn every_invalid_value_is_refused_with_its_path_and_the_way_out() {
        let errors = errors(
            r#"
            accounts:
              "12": {}
              "210987654321":
                roleArn: arn:aws:iam::111122223333:role/Other
                externalId: a b
                sessionName: a/b
                sessionTags: { aws:x: y, "a?": b }
                endpoint: personalize.example.org
                regions:
                  eu: { roleArn: Importer, regions: { us-east-1: {} } }
            defaultTags: { Personalize-Operator.io/x: y }
            "#,
        );
        for expected in [
            "accounts.12: an account is 12 digits",
            "accounts.210987654321.roleArn: \"arn:aws:iam::111122223333:role/Other\" must be the ARN of a role of this account, such as arn:aws:iam::210987654321:role/Importer",
            "accounts.210987654321.externalId: \"a b\" must be 2 to 1224",
            "accounts.210987654321.sessionName: \"a/b\" must be 2 to 64",
            "accounts.210987654321.sessionTags.aws:x: tags that begin with aws:",
            "accounts.210987654321.sessionTags.a?: a tag has a key",
            "accounts.210987654321.endpoint: \"personalize.example.org\" must be a URL",
            "accounts.210987654321.regions.eu: this is no region",
            "accounts.210987654321.regions.eu.regions: only an account has regions",
            "accounts.210987654321.regions.eu.roleArn: \"Importer\" must be the ARN",
            "defaultTags.Personalize-Operator.io/x: tags that begin with",
        ] {
            assert!(errors.contains(expected), "{expected}: {errors}");
        }
        assert_eq!(errors.split("; ").count(), 11, "{errors}");
    }
}
