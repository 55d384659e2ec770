//! The ARNs of datasets and import jobs.

use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// A text that is not the ARN of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not the ARN of a Personalize dataset with a region and a 12-digit account")]
pub struct InvalidDatasetArn(String);

/// An account in a region: where a call goes, and what a quota applies to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountRegion {
    /// `aws`, `aws-cn`, …
    pub partition: String,
    /// Such as `eu-west-1`.
    pub region: String,
    /// 12 digits.
    pub account: String,
}

impl fmt::Display for AccountRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account {} in {}", self.account, self.region)
    }
}

/// The valid ARN of a dataset. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetArn {
    arn: Arc<str>,
    account_region: Arc<AccountRegion>,
}

impl DatasetArn {
    /// Parses `arn:{partition}:personalize:{region}:{account}:dataset/{name}`.
    ///
    /// # Errors
    /// When a part is missing or invalid.
    pub fn parse(arn: &str) -> Result<Self, InvalidDatasetArn> {
        let invalid = || InvalidDatasetArn(arn.chars().take(256).collect());
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let [scheme, partition, service, region, account, resource] = parts[..] else {
            return Err(invalid());
        };
        let account_ok = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let name = resource.strip_prefix("dataset/").unwrap_or_default();
        if scheme != "arn"
            || service != "personalize"
            || !plain(partition)
            || !plain(region)
            || !account_ok
            || name.is_empty()
            || name.chars().any(char::is_control)
        {
            return Err(invalid());
        }
        let account_region =
            AccountRegion { partition: partition.into(), region: region.into(), account: account.into() };
        Ok(Self { arn: arn.into(), account_region: Arc::new(account_region) })
    }

    /// The ARN as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.arn
    }

    /// The account and region of the dataset.
    #[must_use]
    pub fn account_region(&self) -> &AccountRegion {
        &self.account_region
    }

    /// The name of the dataset: `{group}/{type}`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.arn.split_once(":dataset/").map_or(&self.arn, |(_, name)| name)
    }

    /// The ARN of the dataset group: the first part of the dataset's name is that of its group.
    #[must_use]
    pub fn group(&self) -> String {
        let AccountRegion { partition, region, account } = self.account_region();
        let group = self.name().split('/').next().unwrap_or_default();
        format!("arn:{partition}:personalize:{region}:{account}:dataset-group/{group}")
    }

    /// The ARN of a job of this name in the same account and region. The service derives ARNs from names, so a job can
    /// be looked up by its name.
    #[must_use]
    pub fn job(&self, job_name: &str) -> JobArn {
        let AccountRegion { partition, region, account } = self.account_region();
        JobArn(format!("arn:{partition}:personalize:{region}:{account}:dataset-import-job/{job_name}"))
    }
}

/// The ARN of a dataset import job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobArn(pub String);

impl fmt::Display for JobArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The ARN of an IAM role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleArn<'a> {
    /// `aws`, `aws-cn`, …
    pub partition: &'a str,
    /// 12 digits.
    pub account: &'a str,
}

impl<'a> RoleArn<'a> {
    /// Parses `arn:{partition}:iam::{account}:role/{path and name}`; `None` for anything else.
    #[must_use]
    pub fn parse(arn: &'a str) -> Option<Self> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", partition, "iam", "", account, role] = parts[..] else { return None };
        let name = role.strip_prefix("role/")?;
        let valid = |text: &str, more: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let account_ok = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        let name_ok = valid(name, "+=,.@-_/") && !name.starts_with('/') && !name.ends_with('/');
        (arn.len() <= 256 && valid(partition, "-") && account_ok && name_ok).then_some(Self { partition, account })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_arn_has_partition_and_account() {
        let role = RoleArn::parse("arn:aws-cn:iam::123456789012:role/path/Importer");
        assert_eq!(role, Some(RoleArn { partition: "aws-cn", account: "123456789012" }));
        for arn in [
            "",
            "Importer",
            "arn:aws:iam::123456789012:user/Importer",
            "arn:aws:iam::1234:role/Importer",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/a b",
            "arn:aws:iam:eu-west-1:123456789012:role/Importer",
            "arn:aws:sts::123456789012:assumed-role/Importer/session",
        ] {
            assert_eq!(RoleArn::parse(arn), None, "{arn:?}");
        }
    }

    #[test]
    fn dataset_arn_contains_account_and_region() {
        let arn = DatasetArn::parse("arn:aws-cn:personalize:cn-north-1:123456789012:dataset/shop/ITEMS").unwrap();
        assert_eq!(arn.account_region().to_string(), "account 123456789012 in cn-north-1");
        assert_eq!(arn.group(), "arn:aws-cn:personalize:cn-north-1:123456789012:dataset-group/shop");
        assert_eq!(arn.job("nightly").0, "arn:aws-cn:personalize:cn-north-1:123456789012:dataset-import-job/nightly");
    }

    #[test]
    fn arn_without_region_account_or_name_is_rejected() {
        for arn in [
            "",
            "arn:aws:personalize:::dataset/a",
            "arn:aws:personalize:eu-west-1:1234:dataset/a",
            "arn:aws:personalize:eu-west-1:123456789012:dataset/",
            "arn:aws:personalize:eu-west-1:123456789012:schema/a",
            "arn:aws:s3:eu-west-1:123456789012:dataset/a",
            "arn:aws:personalize:eu-west-1:123456789012:dataset/a\r\n",
        ] {
            assert!(DatasetArn::parse(arn).is_err(), "{arn:?}");
        }
    }
}
