//! Temporary credentials: what STS gave out, so that a request signed with them finds its account.
//!
//! The service itself reads account, secret and end out of the session token. Nobody else can, so the stand-in must
//! be told: by `POST /_local/sessions`, or by standing between the client and an STS (`--sts URL`).

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Request, Response, StatusCode, Uri, header},
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{auth, clockwork::Shared, seed::AccessKey, world::World};

/// More than any answer of an STS.
const LONGEST_ANSWER: usize = 1 << 20;

/// An answer of AssumeRole, GetSessionToken or one of their kin, as JSON clients print it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StsAnswer {
    credentials: Credentials,
    #[serde(default)]
    assumed_role_user: Option<User>,
    #[serde(default)]
    federated_user: Option<User>,
    /// For GetSessionToken, whose answer names no account.
    #[serde(default)]
    account: Option<String>,
    /// Who asked, if that is known: with a session token a user stays the same user.
    #[serde(skip)]
    asker: Option<String>,
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

impl StsAnswer {
    /// Reads STS's own XML; `None` if it gives no credentials.
    fn from_xml(text: &str) -> Option<Self> {
        let document = roxmltree::Document::parse(text).ok()?;
        let leaf = |name: &str| {
            let mut nodes = document.descendants();
            nodes.find(|node| node.tag_name().name() == name)?.text().map(|text| text.trim().to_owned())
        };
        Some(Self {
            credentials: Credentials {
                access_key_id: leaf("AccessKeyId")?,
                secret_access_key: leaf("SecretAccessKey")?,
                session_token: leaf("SessionToken")?,
                expiration: leaf("Expiration")?.parse().ok()?,
            },
            assumed_role_user: leaf("Arn").map(|arn| User { arn }),
            federated_user: None,
            account: None,
            asker: None,
        })
    }
}

/// Makes the credentials known; gives the account. The error is a sentence.
pub(crate) fn register(world: &mut World, answer: StsAnswer) -> Result<String, String> {
    let StsAnswer { credentials, assumed_role_user, federated_user, account, asker } = answer;
    let arn = assumed_role_user.or(federated_user).map(|user| user.arn);
    // arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION
    let named = arn.as_deref().and_then(|arn| arn.split(':').nth(4)).map(str::to_owned);
    let account = named.or(account).filter(|account| is_account(account));
    let account = account.ok_or("The answer names no account: add Account, twelve digits.")?;
    let key = AccessKey {
        id: credentials.access_key_id,
        secret: credentials.secret_access_key,
        session_token: Some(credentials.session_token),
        expires_at: Some(credentials.expiration),
    };
    tracing::info!("temporary credentials {} act in account {account} until {}", key.id, credentials.expiration);
    world.learn_key(&account, arn.or(asker), key);
    Ok(account)
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Passes a request on to the STS unchanged, and remembers the credentials in its answer.
pub(crate) async fn relay(shared: &Shared, sts: &Uri, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let signer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let signer = signer.and_then(auth::access_key).map(str::to_owned);
    let (status, headers, bytes) = match ask(sts, headers, body).await {
        Ok(answer) => answer,
        Err(problem) => {
            tracing::warn!("the STS at {sts} does not answer: {problem}");
            return plain(StatusCode::BAD_GATEWAY, format!("the STS at {sts} does not answer: {problem}\n"));
        }
    };
    if let Some(mut answer) = std::str::from_utf8(&bytes).ok().and_then(StsAnswer::from_xml) {
        let mut world = shared.lock();
        if let Some(signer) = signer.and_then(|key| world.keys.get(&key)) {
            (answer.account, answer.asker) = (Some(signer.account.clone()), Some(signer.arn.clone()));
        }
        if let Err(problem) = register(&mut world, answer) {
            tracing::warn!("credentials that the STS gave out stay unknown. {problem}");
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

/// A short answer in words.
pub(crate) fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

async fn ask(sts: &Uri, headers: HeaderMap, body: Bytes) -> Result<(StatusCode, HeaderMap, Bytes), String> {
    let mut request = Request::post(sts.clone());
    for (name, value) in &headers {
        // Host and length are the new request's own.
        if name != header::HOST && name != header::CONTENT_LENGTH {
            request = request.header(name, value);
        }
    }
    let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let (parts, body) = client.request(request).await.map_err(|error| error.to_string())?.into_parts();
    let bytes = to_bytes(Body::new(body), LONGEST_ANSWER).await.map_err(|error| error.to_string())?;
    Ok((parts.status, parts.headers, bytes))
}

#[cfg(test)]
mod tests {
    use super::StsAnswer;

    const ASSUMED: &str = "<AssumeRoleResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><AssumeRoleResult>\
        <Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken> t\n\
        </SessionToken><Expiration>2030-01-02T03:04:05Z</Expiration></Credentials><AssumedRoleUser>\
        <AssumedRoleId>AROA:me</AssumedRoleId><Arn>arn:aws:sts::111122223333:assumed-role/r/me</Arn>\
        </AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>";

    #[test]
    fn credentials_are_read_out_of_an_answer_of_sts() {
        let answer = StsAnswer::from_xml(ASSUMED).unwrap();
        assert_eq!(answer.credentials.session_token, "t");
        assert_eq!(answer.assumed_role_user.unwrap().arn, "arn:aws:sts::111122223333:assumed-role/r/me");
        assert!(StsAnswer::from_xml("<ErrorResponse><Error/></ErrorResponse>").is_none());
    }
}
