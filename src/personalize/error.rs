//! What can go wrong with a call, by what the operator should do about it.

use crate::redact::sanitize;
use strum::IntoStaticStr;
use thiserror::Error;

/// What a failure means for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
pub enum ErrorKind {
    /// The request is wrong as it stands (InvalidInputException, ValidationException and other
    /// refusals): nothing was made.
    InvalidInput,
    /// The caller may not do this, or may not pass the role: nothing was made.
    AccessDenied,
    /// TooManyTagsException: nothing was made.
    TooManyTags,
    /// LimitExceededException for the quota of running imports: nothing was made.
    QuotaExceeded,
    /// Too many requests: nothing was made.
    Throttled,
    /// ResourceAlreadyExistsException: a job of this name exists.
    AlreadyExists,
    /// ResourceNotFoundException.
    NotFound,
    /// ResourceInUseException: nothing was made.
    InUse,
    /// No credentials, or expired or unknown ones, or a clock too skewed to sign with: nothing was
    /// made.
    Credentials,
    /// No answer, or none that can be read: whether the call took effect is unknown.
    // The label predates the name; dashboards query it.
    #[strum(serialize = "InDoubt")]
    Indeterminate,
}

impl ErrorKind {
    /// A static name, fit for a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.into()
    }

    /// The class of an error code of the service and its message.
    ///
    /// `status` is the HTTP status: a 5xx never proves that nothing was made.
    #[must_use]
    pub fn of(code: &str, message: &str, status: u16) -> Self {
        if status >= 500 {
            return match code {
                // The front door's own refusals: the request never reached the service.
                "ThrottlingException" | "Throttling" | "SlowDown" => Self::Throttled,
                _ => Self::Indeterminate,
            };
        }
        match code {
            "LimitExceededException" if message.contains("PENDING or IN_PROGRESS") => Self::QuotaExceeded,
            "LimitExceededException"
            | "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "SlowDown" => Self::Throttled,
            "ResourceAlreadyExistsException" => Self::AlreadyExists,
            "ResourceNotFoundException" => Self::NotFound,
            "ResourceInUseException" => Self::InUse,
            "TooManyTagsException" | "TooManyTagKeysException" => Self::TooManyTags,
            "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => Self::AccessDenied,
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "OptInRequired" => Self::Credentials,
            "RequestTimeout"
            | "RequestTimeoutException"
            | "InternalFailure"
            | "InternalServerError"
            | "InternalServerException"
            | "ServiceUnavailable"
            | "ServiceUnavailableException" => Self::Indeterminate,
            _ => Self::InvalidInput,
        }
    }
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
#[error("{code}: {message}")]
pub struct ServiceError {
    /// What it means.
    pub kind: ErrorKind,
    /// The service's error code, or a CamelCase word of ours where there was no answer.
    pub code: String,
    /// What the service said, sanitised.
    pub message: String,
}

/// The code of a failure to become the role that is configured for an account.
pub(crate) const ROLE_NOT_ASSUMED: &str = "RoleNotAssumed";

impl ServiceError {
    /// A failure that the service answered.
    #[must_use]
    pub fn answered(code: &str, message: &str, status: u16) -> Self {
        Self { kind: ErrorKind::of(code, message, status), code: sanitize(code), message: sanitize(message) }
    }

    /// A failure without a readable answer.
    #[must_use]
    pub fn unanswered(kind: ErrorKind, code: &str, message: &str) -> Self {
        Self { kind, code: code.into(), message: sanitize(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_service_has_a_class() {
        let quota = "More than 5 resources with PENDING or IN_PROGRESS status.";
        for (code, message, status, class) in [
            ("InvalidInputException", "", 400, ErrorKind::InvalidInput),
            ("ValidationException", "1 validation error detected", 400, ErrorKind::InvalidInput),
            ("LimitExceededException", quota, 400, ErrorKind::QuotaExceeded),
            ("LimitExceededException", "Rate exceeded", 400, ErrorKind::Throttled),
            ("ThrottlingException", "Rate exceeded", 400, ErrorKind::Throttled),
            ("ResourceAlreadyExistsException", "", 400, ErrorKind::AlreadyExists),
            ("ResourceNotFoundException", "", 400, ErrorKind::NotFound),
            ("ResourceInUseException", "", 400, ErrorKind::InUse),
            ("TooManyTagsException", "", 400, ErrorKind::TooManyTags),
            ("AccessDeniedException", "not authorized to perform: iam:PassRole", 400, ErrorKind::AccessDenied),
            ("ExpiredTokenException", "", 403, ErrorKind::Credentials),
            ("UnrecognizedClientException", "", 403, ErrorKind::Credentials),
            ("InvalidSignatureException", "Signature expired", 403, ErrorKind::Credentials),
            ("SomethingNew", "", 400, ErrorKind::InvalidInput),
        ] {
            assert_eq!(ErrorKind::of(code, message, status), class, "{code}");
        }
    }

    #[test]
    fn a_server_error_never_proves_that_nothing_was_made() {
        for status in [500, 502, 503, 504] {
            assert_eq!(ErrorKind::of("InternalFailure", "", status), ErrorKind::Indeterminate);
            assert_eq!(ErrorKind::of("ResourceNotFoundException", "", status), ErrorKind::Indeterminate);
        }
    }

    #[test]
    fn labels_are_the_names_that_dashboards_query() {
        assert_eq!(ErrorKind::QuotaExceeded.label(), "QuotaExceeded");
        assert_eq!(ErrorKind::Indeterminate.label(), "InDoubt");
    }

    #[test]
    fn a_failure_carries_no_secret() {
        let failure = ServiceError::answered("X", "secretAccessKey=abc\r\n", 400);
        assert_eq!(failure.message, "secretAccessKey=[redacted]");
    }
}
