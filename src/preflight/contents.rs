//! What is at a location: how many objects, how large, and a digest that changes when one of them does.

use super::inspect::{MAX_PAGES, Object, Objects, Page};
use super::location::Location;
use crate::api::ImportedData;
use crate::personalize::{ErrorKind, ServiceError};
use sha2::{Digest, Sha256};

/// The hex digits of a fingerprint: 128 bits.
const FINGERPRINT: usize = 32;

/// The objects at a location, taken in the order of the listing.
#[derive(Debug, Default)]
pub(super) struct Contents {
    files: u64,
    bytes: u64,
    digest: Sha256,
}

impl Contents {
    pub(super) fn add(&mut self, Object { key, size, etag }: &Object) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(*size);
        // No key contains a byte 0.
        self.digest.update(format!("{key}\0{size}\0{etag}\0"));
    }

    pub(super) fn data(self) -> ImportedData {
        let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
        let digest: String = self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        ImportedData {
            files: number(self.files),
            bytes: number(self.bytes),
            fingerprint: digest[..FINGERPRINT].to_owned(),
        }
    }
}

/// The objects of a page that an import of this location takes.
pub(super) fn objects_at(location: &Location, page: &mut Page) -> Vec<Object> {
    let mut objects = std::mem::take(&mut page.objects);
    // The console of S3 creates an empty object for the folder itself.
    objects.retain(|object| (object.key == location.key) != location.is_folder());
    objects
}

/// Lists what is at a location. Where nothing is, the data is empty.
///
/// # Errors
/// When the location can't be listed, or has too many objects.
pub async fn list<O: Objects>(objects: &O, location: &Location) -> Result<ImportedData, ServiceError> {
    let (mut contents, mut token) = (Contents::default(), None);
    for _ in 0..MAX_PAGES {
        let mut page = objects.list(&location.bucket, &location.key, token.as_deref()).await?;
        objects_at(location, &mut page).iter().for_each(|object| contents.add(object));
        token = page.next.filter(|_| location.is_folder());
        if token.is_none() {
            return Ok(contents.data());
        }
    }
    let message = format!("the location has more than {MAX_PAGES} pages of objects");
    Err(ServiceError::unanswered(ErrorKind::InvalidInput, "TooManyObjects", &message))
}
