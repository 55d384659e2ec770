//! The credentials in use are secrets that no output may show.

use crate::redact::remember;
use aws_credential_types::provider::future;
use aws_sdk_personalize::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};

/// This provider; the secrets that it provides are redacted from then on.
pub(super) fn redacted(provider: impl ProvideCredentials + 'static) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Redacted(provider))
}

#[derive(Debug)]
struct Redacted<P>(P);

impl<P: ProvideCredentials> ProvideCredentials for Redacted<P> {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let credentials: Credentials = self.0.provide_credentials().await?;
            remember(credentials.secret_access_key());
            credentials.session_token().into_iter().for_each(remember);
            Ok(credentials)
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.0.fallback_on_interrupt()
    }
}
