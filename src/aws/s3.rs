//! [`Objects`] with the AWS SDK: listings and ranged reads. The futures of the SDK are large, so they are on the heap.

use super::error::service_error;
use crate::personalize::{ErrorKind, ServiceError};
use crate::preflight::{Object, Objects, Page, Piece};
use aws_config::SdkConfig;
use aws_sdk_personalize::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::Client;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::ops::Range;

/// S3 in one account and region.
#[derive(Debug, Clone)]
pub struct S3(Client);

impl S3 {
    /// S3 with this configuration. Its endpoint comes from `AWS_ENDPOINT_URL_S3`, if that is set.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self(Client::new(config))
    }
}

impl Objects for S3 {
    async fn list(&self, bucket: &str, prefix: &str, token: Option<&str>) -> Result<Page, ServiceError> {
        let list = self.0.list_objects_v2().bucket(bucket).prefix(prefix).delimiter("/");
        let list = list.set_continuation_token(token.map(String::from));
        let page = Box::pin(list.send()).await.map_err(|e| error(&e))?;
        let objects = page.contents.unwrap_or_default().into_iter().map(|object| Object {
            key: object.key.unwrap_or_default(),
            size: object.size.and_then(|size| size.try_into().ok()).unwrap_or(0),
            etag: object.e_tag.unwrap_or_default(),
        });
        Ok(Page {
            objects: objects.collect(),
            folders: page.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix).collect(),
            next: page.next_continuation_token.filter(|token| !token.is_empty()),
        })
    }

    async fn read(&self, bucket: &str, object: &Object, range: Range<u64>) -> Result<Piece, ServiceError> {
        let get = self.0.get_object().bucket(bucket).key(&object.key).if_match(&object.etag);
        let range_header = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let answer = Box::pin(get.range(range_header).send()).await.map_err(|e| error(&e))?;
        let kms = answer.server_side_encryption.is_some_and(|algorithm| algorithm.as_str().starts_with("aws:kms"));
        let mut body = answer.body;
        let size = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(size);
        while let Some(part) = body.next().await {
            let part = part.map_err(|error| changed(&DisplayErrorContext(error).to_string()))?;
            // A server that ignores the range must not fill the memory.
            if bytes.len() + part.len() > size {
                return Err(changed("the answer is longer than the range that was asked for"));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Piece { bytes, kms })
    }
}

fn changed(message: &str) -> ServiceError {
    ServiceError::unanswered(ErrorKind::Indeterminate, "ObjectChanged", message)
}

fn error<E>(error: &SdkError<E, HttpResponse>) -> ServiceError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let mapped = service_error(error);
    match mapped.code.as_str() {
        "PreconditionFailed" | "NoSuchKey" | "InvalidRange" => changed("the object was replaced or deleted meanwhile"),
        "InvalidAccessKeyId" | "InvalidToken" => ServiceError { kind: ErrorKind::Credentials, ..mapped },
        _ => mapped,
    }
}
