//! Who calls, and where: SigV4, verified by signing the same request again.

use crate::model::Refusal;
use crate::seed::{AccessKey, Account};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::http::{HeaderMap, Uri};
use jiff::Timestamp;
use std::time::{Duration, SystemTime};

/// The most that a caller's clock may differ.
const SKEW: i64 = 15 * 60;

/// An authenticated caller.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    pub(crate) account: String,
    pub(crate) region: String,
}

fn refuse(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal {
        code: code.into(),
        message: message.into(),
        status: if code == "UnrecognizedClientException" { 400 } else { 403 },
    }
}

pub(crate) fn verify(accounts: &[Account], headers: &HeaderMap, uri: &Uri, body: &[u8]) -> Result<Caller, Refusal> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let Some(authorization) = header("authorization") else {
        return Err(refuse("MissingAuthenticationTokenException", "Missing Authentication Token"));
    };
    let incomplete = || {
        refuse(
            "IncompleteSignatureException",
            "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters.",
        )
    };
    let rest = authorization.strip_prefix("AWS4-HMAC-SHA256").ok_or_else(incomplete)?;
    let part =
        |name: &str| rest.split(',').find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    let (credential, signed, signature) = (part("Credential"), part("SignedHeaders"), part("Signature"));
    let (Some(credential), Some(signed), Some(signature)) = (credential, signed, signature) else {
        return Err(incomplete());
    };
    let scope: Vec<&str> = credential.split('/').collect();
    let [id, _, region, service, "aws4_request"] = scope[..] else { return Err(incomplete()) };
    let known = accounts.iter().find_map(|a| a.access_keys.iter().find(|k| k.id == id).map(|k| (a, k)));
    let Some((account, key)) = known else {
        return Err(refuse("UnrecognizedClientException", "The security token included in the request is invalid."));
    };
    check_token(key, header("x-amz-security-token"))?;
    let date = header("x-amz-date").ok_or_else(incomplete)?;
    let time = parse(date).ok_or_else(incomplete)?;
    check_clock(date, time)?;
    if service != "personalize" {
        return Err(refuse(
            "InvalidSignatureException",
            "Credential should be scoped to correct service: 'personalize'.",
        ));
    }
    let signed: Vec<&str> =
        signed.split(';').filter(|h| !matches!(*h, "x-amz-date" | "x-amz-security-token")).collect();
    let values: Vec<(&str, &str)> = signed.iter().filter_map(|name| header(name).map(|value| (*name, value))).collect();
    let expected = resign(key, region, time, uri, &values, body);
    if expected.as_deref() != Some(signature.as_str()) {
        return Err(refuse(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
        ));
    }
    Ok(Caller { account: account.id.clone(), region: region.to_owned() })
}

fn check_token(key: &AccessKey, token: Option<&str>) -> Result<(), Refusal> {
    if key.expired {
        return Err(refuse("ExpiredTokenException", "The security token included in the request is expired"));
    }
    if key.session_token.as_deref() != token {
        return Err(refuse("UnrecognizedClientException", "The security token included in the request is invalid."));
    }
    Ok(())
}

fn check_clock(date: &str, time: Timestamp) -> Result<(), Refusal> {
    let now = Timestamp::now();
    let shown = now.strftime("%Y%m%dT%H%M%SZ");
    match time.as_second() - now.as_second() {
        ahead if ahead > SKEW => Err(refuse(
            "InvalidSignatureException",
            format!("Signature not yet current: {date} is still later than {shown} (15 min.)"),
        )),
        behind if behind < -SKEW => Err(refuse(
            "InvalidSignatureException",
            format!("Signature expired: {date} is now earlier than {shown} (15 min.)"),
        )),
        _ => Ok(()),
    }
}

fn parse(date: &str) -> Option<Timestamp> {
    jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", date)
        .ok()?
        .to_datetime()
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
        .map(|z| z.timestamp())
}

fn resign(
    key: &AccessKey,
    region: &str,
    time: Timestamp,
    uri: &Uri,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<String> {
    let identity = Credentials::new(&key.id, &key.secret, key.session_token.clone(), None, "seed").into();
    let seconds = u64::try_from(time.as_second()).ok()?;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("personalize")
        .time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        .settings(SigningSettings::default())
        .build()
        .ok()?;
    let host = headers.iter().find(|(name, _)| *name == "host").map_or("localhost", |(_, value)| *value);
    let uri = format!("http://{host}{}", uri.path_and_query().map_or("/", |p| p.as_str()));
    let request = SignableRequest::new("POST", uri, headers.iter().copied(), SignableBody::Bytes(body)).ok()?;
    let (_, signature) = sign(request, &params.into()).ok()?.into_parts();
    Some(signature)
}
