//! Temporary credentials: registers what an STS issued, so that requests signed with it can be authenticated.
//!
//! AWS reads account, secret and expiry from the session token. The stand-in can't, so it takes them from STS responses,
//! which are declared with `POST /_local/sessions` or forwarded by `/_local/sts` (`--sts URL`).

use std::collections::BTreeMap;

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Request, Response, StatusCode, Uri, header},
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    api::auth,
    app::AppState,
    store::{
        Store,
        seed::{AccessKey, Refusals},
    },
};

/// Exceeds every response of an STS.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// The response of AssumeRole, GetSessionToken or a similar operation, in the JSON of the AWS CLI.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StsResponse {
    credentials: Credentials,
    #[serde(default)]
    assumed_role_user: Option<User>,
    #[serde(default)]
    federated_user: Option<User>,
    /// The account of GetSessionToken, whose response has no ARN.
    #[serde(default)]
    account: Option<String>,
    /// The ARN of the caller of GetSessionToken, if known: the session has the same identity.
    #[serde(skip)]
    caller_arn: Option<String>,
    /// The tags in the request.
    #[serde(skip)]
    session_tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: Timestamp,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct User {
    arn: String,
}

impl StsResponse {
    /// Parses the XML of STS; `None` if it has no credentials.
    fn from_xml(text: &str) -> Option<Self> {
        let document = roxmltree::Document::parse(text).ok()?;
        let element_text = |name: &str| {
            let mut nodes = document.descendants();
            nodes.find(|node| node.tag_name().name() == name)?.text().map(|text| text.trim().to_owned())
        };
        Some(Self {
            credentials: Credentials {
                access_key_id: element_text("AccessKeyId")?,
                secret_access_key: element_text("SecretAccessKey")?,
                session_token: element_text("SessionToken")?,
                expiration: element_text("Expiration")?.parse().ok()?,
            },
            assumed_role_user: element_text("Arn").map(|arn| User { arn }),
            federated_user: None,
            account: None,
            caller_arn: None,
            session_tags: BTreeMap::new(),
        })
    }
}

/// Registers the credentials and returns their account.
pub(crate) fn register(store: &mut Store, response: StsResponse) -> Result<String, String> {
    let StsResponse { credentials, assumed_role_user, federated_user, account, caller_arn, session_tags } = response;
    let arn = assumed_role_user.or(federated_user).map(|user| user.arn);
    // arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION
    let arn_account = arn.as_deref().and_then(|arn| arn.split(':').nth(4)).map(str::to_owned);
    let account = arn_account.or(account).filter(|account| is_account(account));
    let account = account.ok_or("The response has no account: add Account, twelve digits.")?;
    let key = AccessKey {
        id: credentials.access_key_id,
        secret: credentials.secret_access_key,
        session_token: Some(credentials.session_token),
        expires_at: Some(credentials.expiration),
    };
    tracing::info!(
        "registered temporary credentials {} for account {account}, valid until {}",
        key.id,
        credentials.expiration
    );
    store.add_temporary_key(&account, arn.or(caller_arn), session_tags, key);
    Ok(account)
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The tags in a request to STS: `Tags.member.N.Key` and `Tags.member.N.Value`.
fn session_tags(form: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let tag = |(name, key): (&String, &String)| {
        let member = name.strip_prefix("Tags.member.")?.strip_suffix(".Key")?;
        Some((key.clone(), form.get(&format!("Tags.member.{member}.Value")).cloned().unwrap_or_default()))
    };
    form.iter().filter_map(tag).collect()
}

/// Why the trust policy of the role in a request denies it, in the XML of STS.
fn denial(form: &BTreeMap<String, String>, refusals: &Refusals) -> Option<String> {
    let role = form.get("RoleArn")?;
    let wrong_id = refusals.external_ids.get(role).is_some_and(|id| form.get("ExternalId") != Some(id));
    let tagged = refusals.session_tags.contains(role) && !session_tags(form).is_empty();
    let action = if wrong_id { "sts:AssumeRole" } else { "sts:TagSession" };
    (wrong_id || tagged).then(|| {
        format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
             <Code>AccessDenied</Code><Message>The caller is not authorized to perform: {action} on resource: {role}\
             </Message></Error><RequestId>denied</RequestId></ErrorResponse>"
        )
    })
}

/// Forwards a request to the STS unchanged, and registers the credentials in its response.
pub(crate) async fn forward(app: &AppState, sts: &Uri, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let access_key_id = authorization.and_then(auth::access_key_id).map(str::to_owned);
    let form: BTreeMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    if let Some(denial) = denial(&form, &app.lock().refusals) {
        let mut response = error_response(StatusCode::FORBIDDEN, denial);
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/xml"));
        return response;
    }
    let (status, headers, bytes) = match send(sts, headers, body).await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!("request to the STS at {sts} failed: {error}");
            let text = format!("request to the STS at {sts} failed: {error}\n");
            return error_response(StatusCode::BAD_GATEWAY, text);
        }
    };
    if let Some(mut sts_response) = std::str::from_utf8(&bytes).ok().and_then(StsResponse::from_xml) {
        let mut store = app.lock();
        sts_response.session_tags = session_tags(&form);
        if let Some(caller) = access_key_id.and_then(|id| store.principals.get(&id)) {
            (sts_response.account, sts_response.caller_arn) = (Some(caller.account.clone()), Some(caller.arn.clone()));
        }
        if let Err(error) = register(&mut store, sts_response) {
            tracing::warn!("failed to register the credentials of the STS: {error}");
        }
    }
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    for name in [header::CONTENT_TYPE.as_str(), "x-amzn-requestid"] {
        if let (Some(value), Ok(name)) = (headers.get(name), header::HeaderName::from_bytes(name.as_bytes())) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// An error response with a plain text body.
pub(crate) fn error_response(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

async fn send(sts: &Uri, headers: HeaderMap, body: Bytes) -> Result<(StatusCode, HeaderMap, Bytes), String> {
    let mut request = Request::post(sts.clone());
    for (name, value) in &headers {
        // The client sets host and length for the new request.
        if name != header::HOST && name != header::CONTENT_LENGTH {
            request = request.header(name, value);
        }
    }
    let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let (parts, body) = client.request(request).await.map_err(|error| error.to_string())?.into_parts();
    let bytes = to_bytes(Body::new(body), MAX_RESPONSE_BYTES).await.map_err(|error| error.to_string())?;
    Ok((parts.status, parts.headers, bytes))
}

#[cfg(test)]
mod tests {
    use super::{Refusals, StsResponse, denial, session_tags};

    const ASSUME_ROLE_RESPONSE: &str = "<AssumeRoleResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><AssumeRoleResult>\
        <Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken> t\n\
        </SessionToken><Expiration>2030-01-02T03:04:05Z</Expiration></Credentials><AssumedRoleUser>\
        <AssumedRoleId>AROA:me</AssumedRoleId><Arn>arn:aws:sts::111122223333:assumed-role/r/me</Arn>\
        </AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>";

    #[test]
    fn trust_policy_demands_the_external_id_and_may_deny_tags() {
        let role = "arn:aws:iam::111122223333:role/r";
        let refusals = Refusals {
            external_ids: [(role.to_owned(), "shop-42".to_owned())].into(),
            session_tags: vec!["tagless".to_owned()],
            ..Refusals::default()
        };
        let form = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let tags = [("Tags.member.1.Key", "team"), ("Tags.member.1.Value", "shop")];
        let denied = |pairs: &[(&str, &str)]| denial(&form(pairs), &refusals).is_some();
        assert!(denied(&[("RoleArn", role)]) && denied(&[("RoleArn", role), ("ExternalId", "shop-4")]));
        assert!(!denied(&[("RoleArn", role), ("ExternalId", "shop-42"), tags[0], tags[1]]));
        assert!(denied(&[("RoleArn", "tagless"), tags[0], tags[1]]) && !denied(&[("RoleArn", "tagless")]));
        assert_eq!(session_tags(&form(&tags)), [("team".to_owned(), "shop".to_owned())].into());
    }

    #[test]
    fn sts_xml_with_credentials_is_parsed_and_error_is_not() {
        let response = StsResponse::from_xml(ASSUME_ROLE_RESPONSE).unwrap();
        assert_eq!(response.credentials.session_token, "t");
        assert_eq!(response.assumed_role_user.unwrap().arn, "arn:aws:sts::111122223333:assumed-role/r/me");
        assert!(StsResponse::from_xml("<ErrorResponse><Error/></ErrorResponse>").is_none());
    }
}
