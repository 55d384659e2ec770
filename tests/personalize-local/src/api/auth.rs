//! Authentication with SigV4. The expected signature is computed with the signer of the AWS SDK.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::http::{HeaderMap, Method, Uri, header::AUTHORIZATION};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::error::ApiError;
use crate::store::{Principal, seed::AccessKey};

/// Maximum clock skew of a client, in either direction.
const MAX_SKEW_SECONDS: i64 = 5 * 60;

/// The authenticated caller and the region of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) account: String,
    pub(crate) region: String,
    /// The ARN in error messages.
    pub(crate) arn: String,
    /// The tags of the session.
    pub(crate) session_tags: BTreeMap<String, String>,
}

/// A request, as received.
pub(crate) struct SignedRequest<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// A parsed `Authorization` header.
struct Authorization<'a> {
    access_key_id: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    term: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

/// Authenticates a request. The order of the checks determines the error: header present, header complete, key known,
/// session token, expiry, clock skew, scope, signature.
pub(crate) fn authenticate(
    request: &SignedRequest<'_>,
    principals: &HashMap<String, Principal>,
    now: Timestamp,
) -> Result<Caller, ApiError> {
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
    let Some(text) = header(AUTHORIZATION.as_str()) else {
        return Err(ApiError::new("MissingAuthenticationTokenException", "Missing Authentication Token"));
    };
    let date = header("x-amz-date");
    let authorization =
        parse(text, date.is_some()).map_err(|message| ApiError::new("IncompleteSignatureException", message))?;
    let date = date.unwrap_or_default();
    let token = header("x-amz-security-token");
    let unknown =
        || ApiError::new("UnrecognizedClientException", "The security token included in the request is invalid.");
    let Principal { account, arn, key, session_tags, .. } =
        principals.get(authorization.access_key_id).ok_or_else(unknown)?;
    if key.session_token.as_deref() != token {
        return Err(unknown());
    }
    if key.expires_at.is_some_and(|expiry| expiry <= now) {
        return Err(ApiError::new("ExpiredTokenException", "The security token included in the request is expired"));
    }
    let time = signing_time(date)
        .ok_or_else(|| mismatch(&format!("Date must be in ISO-8601 'basic format'. Got '{date}'.")))?;
    check_clock(time, now, date)?;
    check_scope(&authorization, date)?;
    let expected = expected_signature(request, &authorization, key, time)
        .ok_or_else(|| mismatch("The request can't be canonicalised."))?;
    if expected != authorization.signature {
        return Err(mismatch(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        ));
    }
    Ok(Caller {
        account: account.clone(),
        region: authorization.region.to_owned(),
        arn: arn.clone(),
        session_tags: session_tags.clone(),
    })
}

/// The access key ID in an `Authorization` header.
pub(crate) fn access_key_id(header: &str) -> Option<&str> {
    parse(header, true).ok().map(|authorization| authorization.access_key_id)
}

fn mismatch(message: &str) -> ApiError {
    ApiError::new("InvalidSignatureException", message)
}

/// Parses an `Authorization` header; the error is the message of the service.
fn parse(text: &str, has_date: bool) -> Result<Authorization<'_>, String> {
    let (algorithm, list) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let mut fields = HashMap::new();
    for field in list.split(',').map(str::trim).filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').ok_or_else(|| {
            format!("'{field}' not a valid key=value pair (missing equal-sign) in Authorization header: '{text}'.")
        })?;
        fields.insert(name, value);
    }
    let required = ["Credential", "Signature", "SignedHeaders"];
    let missing = required.iter().filter(|name| !fields.contains_key(*name));
    let mut problems: Vec<String> =
        missing.map(|name| format!("Authorization header requires '{name}' parameter.")).collect();
    if !has_date {
        problems
            .push("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.".to_owned());
    }
    let (Some(credential), Some(signature), Some(signed_headers), [], "AWS4-HMAC-SHA256") = (
        fields.get("Credential").copied(),
        fields.get("Signature").copied(),
        fields.get("SignedHeaders").copied(),
        &problems[..],
        algorithm,
    ) else {
        problems.push(format!("Authorization={text}"));
        return Err(problems.join(" "));
    };
    let scope: Vec<&str> = credential.split('/').collect();
    let [access_key_id, date, region, service, term] = scope[..] else {
        return Err(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got \
             '{credential}'"
        ));
    };
    Ok(Authorization {
        access_key_id,
        date,
        region,
        service,
        term,
        signed_headers: signed_headers.split(';').collect(),
        signature,
    })
}

fn signing_time(date: &str) -> Option<Timestamp> {
    let civil = DateTime::strptime("%Y%m%dT%H%M%SZ", date).ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn check_clock(time: Timestamp, now: Timestamp, date: &str) -> Result<(), ApiError> {
    let basic = |time: Timestamp| time.strftime("%Y%m%dT%H%M%SZ").to_string();
    let (earliest, latest) = (now.as_second() - MAX_SKEW_SECONDS, now.as_second() + MAX_SKEW_SECONDS);
    let bound = |second: i64| basic(Timestamp::from_second(second).unwrap_or(now));
    if time.as_second() < earliest {
        let (bound, now) = (bound(earliest), basic(now));
        return Err(mismatch(&format!("Signature expired: {date} is now earlier than {bound} ({now} - 5 min.)")));
    }
    if time.as_second() > latest {
        let (bound, now) = (bound(latest), basic(now));
        return Err(mismatch(&format!(
            "Signature not yet current: {date} is still later than {bound} ({now} + 5 min.)"
        )));
    }
    Ok(())
}

fn check_scope(authorization: &Authorization<'_>, date: &str) -> Result<(), ApiError> {
    if authorization.service != "personalize" {
        return Err(mismatch("Credential should be scoped to correct service: 'personalize'."));
    }
    if authorization.term != "aws4_request" {
        let text = format!(
            "Credential should be scoped with a valid terminator: 'aws4_request', not '{}'.",
            authorization.term
        );
        return Err(mismatch(&text));
    }
    if !date.starts_with(authorization.date) {
        let text = format!("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date: {date}");
        return Err(mismatch(&text));
    }
    for header in ["host", "x-amz-date"] {
        if !authorization.signed_headers.contains(&header) {
            return Err(mismatch(&format!("'{header}' must be a 'SignedHeader' in the AWS Authorization.")));
        }
    }
    Ok(())
}

fn expected_signature(
    request: &SignedRequest<'_>,
    authorization: &Authorization<'_>,
    key: &AccessKey,
    time: Timestamp,
) -> Option<String> {
    let credentials = Credentials::new(&key.id, &key.secret, key.session_token.clone(), None, "personalize-local");
    let mut settings = SigningSettings::default();
    settings.excluded_headers = None;
    let seconds = u64::try_from(time.as_second()).ok()?;
    let identity = credentials.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(authorization.region)
        .name(authorization.service)
        .time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        .settings(settings)
        .build()
        .ok()?
        .into();
    let headers =
        authorization.signed_headers.iter().filter(|name| !["x-amz-date", "x-amz-security-token"].contains(name));
    let headers: Vec<(&str, &str)> =
        headers.map(|name| Some((*name, request.headers.get(*name)?.to_str().ok()?))).collect::<Option<_>>()?;
    let host = request.headers.get("host")?.to_str().ok()?;
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = format!("http://{host}{path}");
    let body = SignableBody::Bytes(request.body);
    let signable = SignableRequest::new(request.method.as_str(), uri, headers.into_iter(), body).ok()?;
    let (_, signature) = sign(signable, &params).ok()?.into_parts();
    Some(signature)
}

#[cfg(test)]
mod tests {
    use super::parse;

    const COMPLETE: &str = "AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu-west-1/personalize/aws4_request, \
        SignedHeaders=host;x-amz-date, Signature=abc";

    fn error(text: &str) -> String {
        parse(text, true).err().unwrap()
    }

    #[test]
    fn complete_header_is_parsed() {
        let authorization = parse(COMPLETE, true).ok().unwrap();
        assert_eq!(
            (authorization.access_key_id, authorization.region, authorization.term),
            ("AKIA", "eu-west-1", "aws4_request")
        );
        assert_eq!((authorization.signed_headers, authorization.signature), (vec!["host", "x-amz-date"], "abc"));
    }

    #[test]
    fn incomplete_header_is_reported_with_the_missing_parts() {
        assert_eq!(
            error("AWS4-HMAC-SHA256 Credential=half"),
            "Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' \
             parameter. Authorization=AWS4-HMAC-SHA256 Credential=half"
        );
        assert_eq!(
            error("AWS4-HMAC-SHA256 Credential=half, SignedHeaders=host, Signature=abc"),
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'half'"
        );
        assert_eq!(
            error("Bearer token"),
            "'token' not a valid key=value pair (missing equal-sign) in Authorization header: 'Bearer token'."
        );
        assert_eq!(
            parse(COMPLETE, false).err().unwrap(),
            format!(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. \
                 Authorization={COMPLETE}"
            )
        );
        assert!(
            error(&COMPLETE.replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1")).starts_with("Authorization=AWS4-HMAC-SHA1")
        );
    }
}
