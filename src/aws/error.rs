//! Maps errors of the AWS SDK to [`ServiceError`].

use crate::personalize::{ErrorKind, HOST_NOT_FOUND, ServiceError};
use crate::redact::sanitize_display;
use aws_sdk_personalize::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// The code of a call that could not be signed.
pub(super) const NO_CREDENTIALS: &str = "NoCredentials";

/// The code of a response that could not be understood.
const MALFORMED_RESPONSE: &str = "MalformedResponse";

/// The error codes of STS that a status may show.
const STS_CODES: [&str; 8] = [
    "AccessDenied",
    "ExpiredToken",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "RegionDisabledException",
    "MalformedPolicyDocument",
    "ValidationError",
    "Throttling",
];

/// Whether the service refuses the credentials of a call, so that new ones may help. A refused signature is different: the
/// clock may be wrong, and the client corrects its next signature by the time of the response.
pub(super) fn are_credentials_refused<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(
        error.code(),
        Some("ExpiredToken" | "ExpiredTokenException" | "InvalidClientTokenId" | "UnrecognizedClientException")
    )
}

/// The error of a failed call.
pub(super) fn service_error<E>(error: &SdkError<E, HttpResponse>) -> ServiceError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let text = sanitize_display(&DisplayErrorContext(error));
    let indeterminate = |code, message: &str| ServiceError::unanswered(ErrorKind::Indeterminate, code, message);
    match error {
        SdkError::ServiceError(response) => {
            let status = response.raw().status().as_u16();
            match response.err().code() {
                Some(code) => ServiceError::answered(code, response.err().message().unwrap_or_default(), status),
                // Without a code it is unknown who responded and whether the call took effect.
                None => indeterminate(MALFORMED_RESPONSE, &format!("HTTP status {status}")),
            }
        }
        // The request could not be built or signed, so it was not sent.
        SdkError::ConstructionFailure(_) if text.contains("credential") || text.contains("identity") => {
            ServiceError::unanswered(ErrorKind::Credentials, NO_CREDENTIALS, &text)
        }
        SdkError::ConstructionFailure(_) => {
            ServiceError::unanswered(ErrorKind::InvalidInput, "UnsendableRequest", &text)
        }
        SdkError::TimeoutError(_) => indeterminate("Timeout", &text),
        SdkError::ResponseError(_) => indeterminate(MALFORMED_RESPONSE, &text),
        // The SDK reports a missing or failing credentials provider as a dispatch failure, too.
        SdkError::DispatchFailure(_)
            if text.to_ascii_lowercase().contains("credential") || text.contains("identity") =>
        {
            ServiceError::unanswered(ErrorKind::Credentials, NO_CREDENTIALS, &text)
        }
        SdkError::DispatchFailure(_) if text.contains("dns error") => indeterminate(HOST_NOT_FOUND, &text),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => indeterminate("ConnectTimeout", &text),
        SdkError::DispatchFailure(_) => indeterminate("NoConnection", &text),
        _ => indeterminate("Unknown", &text),
    }
}

/// A response that lacks a required field.
pub(super) fn malformed_response() -> ServiceError {
    ServiceError::unanswered(ErrorKind::Indeterminate, MALFORMED_RESPONSE, "the response lacks a required field")
}

/// A listing that exceeds a limit.
pub(super) fn listing_limit_error(limit: &str) -> ServiceError {
    let message = format!("the listing of jobs does not end within {limit}");
    ServiceError::unanswered(ErrorKind::Indeterminate, "ListingTooLong", &message)
}

/// The error code of STS in an error, or that there is none.
pub(super) fn sts_code<E>(error: &SdkError<E, HttpResponse>) -> &'static str
where
    E: std::error::Error + 'static,
{
    let text = DisplayErrorContext(error).to_string();
    STS_CODES.into_iter().find(|code| text.contains(code)).unwrap_or("no readable answer")
}
