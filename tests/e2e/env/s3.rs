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
        s3.send("PUT", "bucket", "");
        for entry in fs::read_dir(&s3.data).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            s3.put(&name, &fs::read_to_string(s3.data.join(&name)).unwrap());
        }
        s3
    }

    /// Puts an object, for the operator and for the stand-in.
    pub fn put(&self, key: &str, content: &str) {
        fs::write(self.data.join(key), content).unwrap();
        self.send("PUT", &format!("bucket/{key}"), content);
    }

    pub fn url(&self) -> &str {
        &self.moto.url
    }

    fn send(&self, method: &str, path: &str, body: &str) {
        let (status, answer) = http_with(method, &format!("{}/{path}", self.url()), AUTHORIZATION, body).unwrap();
        assert!(status < 300, "{path}: {status} {answer}");
    }
}
