//! Keys, certificates and kubeconfigs of an instance.

use crate::{Error, io};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The certificate authority for clients and for the API server.
pub(crate) struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    dir: PathBuf,
    /// How many kubeconfigs were written.
    kubeconfigs: AtomicU32,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn params(user: &str, groups: &[&str]) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    for group in groups {
        name.push(DnType::OrganizationName, *group);
    }
    params.distinguished_name = name;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

impl CertificateAuthority {
    /// Creates an authority, the API server's certificate and the key of service accounts in `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(io(dir.display().to_string()))?;
        let mut ca = params("control-plane-ca", &[])?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = ca.self_signed(&key)?;
        let (pem, ca_key) = (certificate.pem(), key.serialize_pem());
        let authority = Self { issuer: Issuer::new(ca, key), pem, dir: dir.into(), kubeconfigs: AtomicU32::new(0) };
        authority.write("ca.crt", &authority.pem)?;
        authority.write("ca.key", &ca_key)?;
        let (server, server_key) = authority.sign("kube-apiserver", &[])?;
        authority.write("apiserver.crt", &server)?;
        authority.write("apiserver.key", &server_key)?;
        let accounts = KeyPair::generate()?;
        authority.write("service-account.key", &accounts.serialize_pem())?;
        authority.write("service-account.pub", &accounts.public_key_pem())?;
        Ok(authority)
    }

    /// The path of one of the authority's files.
    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        fs::write(self.dir.join(name), text).map_err(io(name))
    }

    fn sign(&self, user: &str, groups: &[&str]) -> Result<(String, String), Error> {
        let key = KeyPair::generate()?;
        let certificate = params(user, groups)?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Writes a kubeconfig for a user in these groups.
    pub(crate) fn kubeconfig(&self, path: &Path, server: &str, user: &str, groups: &[&str]) -> Result<(), Error> {
        let (certificate, key) = self.sign(user, groups)?;
        // Another thread may write a kubeconfig for the same user.
        let number = self.kubeconfigs.fetch_add(1, Ordering::Relaxed);
        let user_name = user.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let base = self.dir.join(format!("{user_name}-{number}"));
        let (crt, key_file) = (base.with_extension("crt"), base.with_extension("key"));
        fs::write(&crt, certificate).map_err(io("client certificate"))?;
        fs::write(&key_file, key).map_err(io("client key"))?;
        // JSON is valid YAML.
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": {"server": server, "certificate-authority": self.file("ca.crt")}}],
            "users": [{"name": user, "user": {"client-certificate": crt, "client-key": key_file}}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": user}}],
            "current-context": "local",
        });
        fs::write(path, format!("{config:#}\n")).map_err(io(path.display().to_string()))
    }
}
