//! ARNs of the service.

/// A parsed `arn:{partition}:personalize:{region}:{account}:{resource}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arn {
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub(crate) partition: String,
    /// For example `eu-west-1`.
    pub(crate) region: String,
    /// Twelve digits.
    pub(crate) account: String,
    /// For example `dataset/shop/INTERACTIONS`.
    pub(crate) resource: String,
}

impl Arn {
    /// Parses an ARN of the service `personalize`; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        (arn == "arn" && service == "personalize").then(|| Self {
            partition: partition.to_owned(),
            region: region.to_owned(),
            account: account.to_owned(),
            resource: resource.to_owned(),
        })
    }

    /// The ARN of the import job with this name.
    pub(crate) fn import_job(region: &str, account: &str, name: &str) -> String {
        format!("arn:{}:personalize:{region}:{account}:dataset-import-job/{name}", partition(region))
    }

    /// The ARN of the data deletion job with this name.
    pub(crate) fn deletion_job(region: &str, account: &str, name: &str) -> String {
        format!("arn:{}:personalize:{region}:{account}:data-deletion-job/{name}", partition(region))
    }

    /// The ARN of the dataset group of a dataset: `dataset/shop/ITEMS` belongs to `dataset-group/shop`.
    pub(crate) fn group(&self) -> String {
        let Self { partition, region, account, resource } = self;
        let group = resource.split('/').nth(1).unwrap_or_default();
        format!("arn:{partition}:personalize:{region}:{account}:dataset-group/{group}")
    }
}

/// The partition of a region, by the region's prefix.
fn partition(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    }
}

#[cfg(test)]
mod tests {
    use super::Arn;

    #[test]
    fn personalize_arn_is_parsed_and_other_services_are_not() {
        let arn = Arn::parse("arn:aws:personalize:eu-west-1:111122223333:dataset/shop/ITEMS").unwrap();
        assert_eq!((arn.region.as_str(), arn.account.as_str()), ("eu-west-1", "111122223333"));
        assert_eq!(arn.resource, "dataset/shop/ITEMS");
        assert_eq!(Arn::parse("arn:aws:s3:::bucket"), None);
    }

    #[test]
    fn job_arn_has_the_partition_of_its_region() {
        assert!(Arn::import_job("cn-north-1", "1", "a").starts_with("arn:aws-cn:"));
    }
}
