//! The check of the data right before an import is submitted.

use super::context::Context;
use super::reconciler::Error;
use super::workers::Workers;
use crate::api::{DatasetImportJobSpec, ImportedData, Preflight};
use crate::import::{DataCheck, ImportRequest, Key};
use crate::personalize::{AccountRegion, Caller, Dataset, DatasetArn, ErrorKind, Personalize, ServiceError};
use crate::preflight::{
    DatasetType, Depth, Domain, Expected, Finding, Location, Object, Objects, Page, Piece, Report, Schema, inspect,
    list,
};
use jiff::Timestamp;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;
use tracing::{info, warn};

/// How long a check may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How many checks run at once. Each takes at most 8 MiB: four files with a piece and an incomplete line, of at most 1 MiB
/// each. So all of them take at most 128 MiB of the 512 MiB that the chart allows, whatever the number of accounts and
/// regions. The operator itself and 30,000 waiting resources take about 265 MiB.
const AT_ONCE: u16 = 16;

/// How many schemas, and accounts and regions, are remembered: users choose them.
const MAX_KEPT: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// A schema with the domain of its dataset group.
type Described = (Schema, Option<Domain>);

/// The ARN of a schema, and when the dataset was created that has it: a schema never changes, but when its datasets are
/// deleted, another one can get its name.
type SchemaKey = (String, Option<Timestamp>);

/// What the checks of all resources share.
pub(crate) struct DataChecks {
    /// What counts for a resource that says nothing.
    default: Preflight,
    /// The schemas that were read.
    schemas: Mutex<LruCache<SchemaKey, Arc<Described>>>,
    /// One for each check that runs. An account and region whose reads are slow leaves half of them to the others.
    workers: Workers,
    /// Where it was said that data can't be read.
    unreadable: Mutex<LruCache<AccountRegion, ()>>,
}

impl DataChecks {
    pub(crate) fn new(default: Preflight) -> Self {
        let (schemas, unreadable) = (LruCache::new(MAX_KEPT), LruCache::new(MAX_KEPT));
        let workers = Workers::new(AT_ONCE);
        Self { default, schemas: Mutex::new(schemas), workers, unreadable: Mutex::new(unreadable) }
    }

    /// Ends the waiting of checks that have not begun.
    pub(crate) fn close(&self) {
        self.workers.close();
    }
}

impl<P: Personalize> Context<P> {
    /// Reads the data of a request, if the check or the guard wants it. `dataset` is the dataset as it is now.
    ///
    /// # Errors
    /// [`Error::NotLeading`] if a shutdown begins before the check does.
    pub(crate) async fn check_data(
        &self,
        caller: &Caller,
        request: &ImportRequest,
        spec: &DatasetImportJobSpec,
        dataset: Option<&Dataset>,
    ) -> Result<Option<DataCheck>, Error> {
        let wanted = spec.preflight.unwrap_or(self.data_checks.default);
        if wanted == Preflight::Off {
            if spec.guard.is_none() {
                return Ok(None);
            }
            return Ok(Some(DataCheck { enforced: false, data: self.list_data(caller, request).await, report: None }));
        }
        // The wait is no part of the check's time. Meanwhile the resource keeps the worker of its reconcile, but it also holds
        // a slot of the queue: polls of its account and region have the workers of the other slots.
        let resource = Key { namespace: request.namespace.clone(), name: request.name.clone() };
        let worker = self.data_checks.workers.acquire_shared(request.dataset.account_region(), &resource).await;
        let Some(worker) = worker else { return Err(Error::NotLeading) };
        let report = within_time(self.inspect(caller, request, dataset)).await;
        drop(worker);
        match &report {
            Ok(report) => info!(
                findings = report.findings.len(),
                files = report.data.files,
                bytes = report.data.bytes,
                records = report.records,
                complete = report.complete,
                "the data is checked"
            ),
            Err(error) => self.report_unreadable(request.dataset.account_region(), error),
        }
        let data = match &report {
            Ok(report) if report.data != ImportedData::default() => Ok(report.data.clone()),
            Err(error) if spec.guard.is_none() => Err(error.clone()),
            // The check can't list what is not in S3, and can't read without a schema what can be listed.
            _ => self.list_data(caller, request).await,
        };
        Ok(Some(DataCheck { enforced: wanted == Preflight::Enforce, data, report: Some(report) }))
    }

    /// Lists the data of a request.
    pub(crate) async fn list_data(
        &self,
        caller: &Caller,
        request: &ImportRequest,
    ) -> Result<ImportedData, ServiceError> {
        let location = Location::parse(&request.data_location).ok_or_else(|| {
            ServiceError::unanswered(ErrorKind::InvalidInput, "NotInS3", "the location does not start with s3://")
        })?;
        let data = Data { context: self, caller, dataset: &request.dataset };
        within_time(list(&data, &location)).await
    }

    async fn inspect(
        &self,
        caller: &Caller,
        request: &ImportRequest,
        dataset: Option<&Dataset>,
    ) -> Result<Report, ServiceError> {
        let Some(location) = Location::parse(&request.data_location) else {
            return Ok(Report::of(vec![Finding::not_in_s3()]));
        };
        let described = self.schema(caller, &request.dataset, dataset).await?;
        let (schema, domain) = described.as_ref();
        let expected = Expected { schema, domain: *domain, mode: request.import_mode };
        let data = Data { context: self, caller, dataset: &request.dataset };
        inspect(&data, &location, &expected, Depth::Sample, |_| {}).await
    }

    async fn schema(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
        described: Option<&Dataset>,
    ) -> Result<Arc<Described>, ServiceError> {
        let unusable = |why: &str| ServiceError::unanswered(ErrorKind::InvalidInput, "SchemaNotUnderstood", why);
        let (arn, created) = described.map_or((None, None), |dataset| (dataset.schema_arn.as_deref(), dataset.created));
        let arn = arn.ok_or_else(|| unusable("the dataset has no schema"))?;
        let key = (arn.to_owned(), created);
        let schemas = || self.data_checks.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = schemas().get(&key) {
            return Ok(Arc::clone(known));
        }
        let call = self.personalize.describe_schema(caller, dataset, arn);
        let described = self.counted("DescribeSchema", call).await?;
        let domain = described.domain.and_then(|domain| domain.parse().ok());
        let dataset_type = DatasetType::of(dataset.as_str());
        let schema = Schema::parse(&described.json, dataset_type, domain);
        let schema = schema.map_err(|errors| unusable(&Report::of(errors).summary()))?;
        let known = Arc::new((schema, domain));
        schemas().put(key, Arc::clone(&known));
        Ok(known)
    }

    /// Says once for each account and region that data can't be checked there.
    fn report_unreadable(&self, at: &AccountRegion, error: &ServiceError) {
        let mut reported = self.data_checks.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.put(at.clone(), ()).is_none() {
            let (account, region) = (&at.account, &at.region);
            warn!(
                account,
                region,
                %error,
                "data can't be checked before its import; this is logged once for each account and region"
            );
        }
    }
}

async fn within_time<T>(read: impl Future<Output = Result<T, ServiceError>>) -> Result<T, ServiceError> {
    let late =
        |_| Err(ServiceError::unanswered(ErrorKind::Indeterminate, "Timeout", "reading the data takes too long"));
    timeout(TIMEOUT, read).await.unwrap_or_else(late)
}

/// The data of a dataset, through calls that are counted.
struct Data<'a, P> {
    context: &'a Context<P>,
    caller: &'a Caller,
    dataset: &'a DatasetArn,
}

impl<P: Personalize> Objects for Data<'_, P> {
    async fn list(&self, bucket: &str, prefix: &str, token: Option<&str>) -> Result<Page, ServiceError> {
        let call = self.context.personalize.list_objects(self.caller, self.dataset, bucket, prefix, token);
        self.context.counted("ListObjectsV2", call).await
    }

    async fn read(&self, bucket: &str, object: &Object, range: Range<u64>) -> Result<Piece, ServiceError> {
        let call = self.context.personalize.get_object(self.caller, self.dataset, bucket, object, range);
        self.context.counted("GetObject", call).await
    }
}
