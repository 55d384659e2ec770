//! Errors of the service, classified by what the operator does about them.

use crate::redact::sanitize;
use strum::{EnumMessage, IntoStaticStr, VariantArray};
use thiserror::Error;

/// The kind of an error. All but [`ErrorKind::Indeterminate`] prove that a create made no job. A variant's documentation is
/// the sentence in docs/metrics.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumMessage, IntoStaticStr, VariantArray)]
pub enum ErrorKind {
    /// The service rejects the request: InvalidInputException, ValidationException and every unknown code below 500.
    InvalidInput,
    /// The operator may not make this call, or may not pass the role.
    AccessDenied,
    /// TooManyTagsException.
    TooManyTags,
    /// LimitExceededException for the quota of running imports.
    QuotaExceeded,
    /// Too many requests.
    Throttled,
    /// ResourceAlreadyExistsException: a job of this name exists.
    AlreadyExists,
    /// ResourceNotFoundException.
    NotFound,
    /// ResourceInUseException.
    InUse,
    /// The credentials are missing, expired or unknown, or the clock is too wrong to sign requests.
    Credentials,
    /// There is no response, or a malformed one: whether the call took effect is unknown.
    // Dashboards query this label, which is older than the name.
    #[strum(serialize = "InDoubt")]
    Indeterminate,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// A sentence about the kind, for the documentation.
    #[must_use]
    pub fn describe(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// The name in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.into()
    }

    /// The kind of an error response: its code, message and HTTP status. A status from 500 on never proves that the
    /// call had no effect.
    #[must_use]
    pub fn of(code: &str, message: &str, status: u16) -> Self {
        if status >= 500 {
            return match code {
                // The gateway throttled the request before it reached the service.
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
    /// The kind.
    pub kind: ErrorKind,
    /// The error code of the service; without a response, a CamelCase word of the operator.
    pub code: String,
    /// The message of the service, sanitised.
    pub message: String,
    /// No request was sent: the service would throttle or refuse it.
    pub unsent: bool,
    /// The ARN of the role that signs the call, if the account has one.
    pub role: Option<String>,
}

impl ServiceError {
    /// Whether a read is refused for good, so that repeating it does not help: the permission is missing, or the service
    /// does not know the operation or the resource.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.kind, ErrorKind::AccessDenied | ErrorKind::InvalidInput | ErrorKind::NotFound)
    }
}

/// The code of a failure to assume the role that is configured for an account.
pub(crate) const ROLE_NOT_ASSUMED: &str = "RoleNotAssumed";

/// The code of a call that the service refuses although the role was assumed.
pub(crate) const SESSION_REFUSED: &str = "SessionRefused";

/// The code of a call that is not sent, because it is not known yet with which role.
pub(crate) const ACCOUNTS_NOT_READ: &str = "AccountsNotRead";

/// The code of a call to a host that DNS does not know, such as the endpoint of a region that does not exist.
pub(crate) const HOST_NOT_FOUND: &str = "HostNotFound";

impl ServiceError {
    /// An error response of the service.
    #[must_use]
    pub fn answered(code: &str, message: &str, status: u16) -> Self {
        Self {
            kind: ErrorKind::of(code, message, status),
            code: sanitize(code),
            message: sanitize(message),
            unsent: false,
            role: None,
        }
    }

    /// An error without a valid response.
    #[must_use]
    pub fn unanswered(kind: ErrorKind, code: &str, message: &str) -> Self {
        Self { kind, code: code.into(), message: sanitize(message), unsent: false, role: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_of_the_service_map_to_kinds() {
        let quota = "More than 5 resources with PENDING or IN_PROGRESS status.";
        for (code, message, status, kind) in [
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
            assert_eq!(ErrorKind::of(code, message, status), kind, "{code}");
        }
    }

    #[test]
    fn server_error_is_always_indeterminate() {
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
    fn error_message_contains_no_secret() {
        let error = ServiceError::answered("X", "secretAccessKey=abc\r\n", 400);
        assert_eq!(error.message, "secretAccessKey=[redacted]");
    }
}
