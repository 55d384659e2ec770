//! S3 of one test: the moto server, with the data that the stand-in reads, too.

use super::http_with;
use super::moto::Moto;
use std::fs;
use std::path::{Path, PathBuf};

/// Moto refuses a request without it to an object that exists. It does not verify the signature.
const AUTHORIZATION: &str = "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
                             SignedHeaders=host, Signature=0";

/// A running moto server with the bucket `bucket`.
pub struct S3 {
    moto: Moto,
    data: PathBuf,
}

impl S3 {
    /// Starts it with the objects that the stand-in has in this directory.
    pub fn start(dir: &Path) -> Self {
        let s3 = Self { moto: Moto::start(), data: dir.join("data/bucket") };
        s3.put_at("bucket", "", "");
        for entry in fs::read_dir(&s3.data).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            s3.put(&name, &fs::read_to_string(s3.data.join(&name)).unwrap());
        }
        s3
    }

    /// Puts an object, for the operator and for the stand-in.
    pub fn put(&self, key: &str, content: &str) {
        self.put_with(key, content, "");
    }

    /// Puts an object that is encrypted with a key of KMS.
    pub fn put_encrypted(&self, key: &str, content: &str) {
        self.put_with(key, content, "\r\nx-amz-server-side-encryption: aws:kms");
    }

    fn put_with(&self, key: &str, content: &str, headers: &str) {
        fs::write(self.data.join(key), content).unwrap();
        self.put_at(&format!("bucket/{key}"), content, headers);
    }

    pub fn url(&self) -> &str {
        &self.moto.url
    }

    fn put_at(&self, path: &str, body: &str, headers: &str) {
        let headers = format!("{AUTHORIZATION}{headers}");
        let (status, answer) = http_with("PUT", &format!("{}/{path}", self.url()), &headers, body).unwrap();
        assert!(status < 300, "{path}: {status} {answer}");
    }
}
