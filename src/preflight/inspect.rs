//! Reads the data of an import through [`Objects`], within bounds, and checks it.

use super::contents::objects_at;
use super::file::{Checked, FileCheck};
use super::finding::Finding;
use super::location::Location;
use super::schema::{Domain, Schema};
use super::set::{Report, SetCheck};
use crate::api::ImportMode;
use crate::personalize::{ErrorKind, ServiceError};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::future::Future;
use std::ops::Range;

/// The bytes read from the start and from the end of a large file.
const EDGE: u64 = 256 << 10;

/// The bytes of each sample between them.
const SAMPLE: u64 = 64 << 10;

/// The number of samples.
const SAMPLES: u64 = 6;

/// The bytes of each read of a file that is read completely.
const PIECE: u64 = 1 << 20;

/// The most files of the first page that are read, and of the second one half as many, of the third one a third, and so
/// on; and the last file of all. The others are checked by name and size.
const MAX_READ_OF_PAGE: usize = 100;

/// The bytes read from the start and from the end of each file of a page of which not all are read.
const EDGE_OF_MANY: u64 = 32 << 10;

/// How many files are read at the same time. Each one takes a piece and an incomplete line, of at most 1 MiB each.
const AT_ONCE: usize = 4;

/// The most pages of a listing.
pub(super) const MAX_PAGES: usize = 100;

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The key.
    pub key: String,
    /// The size in bytes.
    pub size: u64,
    /// The ETag, which changes with the content.
    pub etag: String,
}

/// Bytes of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The object is encrypted with a key of KMS, which has a policy of its own.
    pub kms: bool,
}

impl Object {
    /// The key without its folders.
    pub(super) fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The objects, by key.
    pub objects: Vec<Object>,
    /// The folders below the prefix, whose objects are not listed.
    pub folders: Vec<String>,
    /// How to ask for the next page.
    pub next: Option<String>,
}

/// The reads of S3 that a check makes. Each call is sent once.
pub trait Objects: Send + Sync {
    /// One page of the objects whose key starts with a prefix and has no further `/`.
    fn list(
        &self,
        bucket: &str,
        prefix: &str,
        token: Option<&str>,
    ) -> impl Future<Output = Result<Page, ServiceError>> + Send;

    /// These bytes of an object, if it is still the one with this ETag.
    fn read(
        &self,
        bucket: &str,
        object: &Object,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Piece, ServiceError>> + Send;
}

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The first and last rows of each file and samples in between: at most 8 calls and 896 KiB for each file.
    Sample,
    /// The first and last rows of each file: at most 2 calls and 64 KiB for each file.
    Edges,
    /// Every byte.
    Full,
}

/// How far a check has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// This many more bytes are going to be read.
    Planned(u64),
    /// A call has read this many bytes.
    Read(u64),
}

/// What an import is checked against.
#[derive(Debug, Clone)]
pub struct Expected<'s> {
    /// The schema of the dataset.
    pub schema: &'s Schema,
    /// The domain of the dataset group, if it is known.
    pub domain: Option<Domain>,
    /// The import mode.
    pub mode: ImportMode,
}

/// Checks the data at a location. `progress` is called for each page that is listed, and for each call that has read.
///
/// # Errors
/// When S3 can't be read. Whatever is wrong with the data itself is a finding.
pub async fn inspect<O: Objects>(
    objects: &O,
    location: &Location,
    expected: &Expected<'_>,
    depth: Depth,
    progress: impl Fn(Progress) + Send + Sync,
) -> Result<Report, ServiceError> {
    let mut set = SetCheck::new(expected.schema, expected.domain, expected.mode);
    let (mut token, mut kms): (Option<String>, bool) = (None, false);
    for number in 1..=MAX_PAGES {
        let mut page = match objects.list(&location.bucket, &location.key, token.as_deref()).await {
            Err(error) if error.code == "NoSuchBucket" => {
                return Ok(Report::of(vec![Finding::new("NoBucket", "a bucket of this name", "none")]));
            }
            page => page?,
        };
        let mut found = objects_at(location, &mut page);
        check_location(location, &page, &found, &mut set);
        found.retain(|object| set.object(object, location.is_folder()));
        let is_last = page.next.is_none();
        token = page.next;
        let max = if depth == Depth::Full { usize::MAX } else { (MAX_READ_OF_PAGE / number).max(1) };
        let step = found.len().div_ceil(max).max(1);
        let depth = if step > 1 { Depth::Edges } else { depth };
        if step > 1 {
            set.skipped();
        }
        // An export that was cut off shows that in its last file.
        let last = found.len().saturating_sub(1);
        let is_read = |i: usize| i.is_multiple_of(step) || is_last && i == last;
        let read_now: Vec<Object> =
            found.into_iter().enumerate().filter(|(i, _)| is_read(*i)).map(|(_, object)| object).collect();
        progress(Progress::Planned(read_now.iter().map(|object| planned(object.size, depth)).sum()));
        let reads = read_now.into_iter();
        let reads = reads.map(|object| read(objects, &location.bucket, object, expected.schema, depth, &progress));
        let mut checked = stream::iter(reads).buffered(AT_ONCE);
        while let Some((name, file, is_kms)) = checked.try_next().await? {
            if is_kms && !std::mem::replace(&mut kms, true) {
                set.add(Finding::kms().in_file(&name));
            }
            set.checked(&name, file);
        }
        if is_last || !location.is_folder() {
            return Ok(set.finish());
        }
    }
    set.skipped();
    Ok(set.finish())
}

/// Says what is wrong with the location, by a page of its listing.
fn check_location(location: &Location, page: &Page, found: &[Object], set: &mut SetCheck<'_>) {
    if location.is_folder() {
        if !page.folders.is_empty() {
            set.add(Finding::new("Subfolder", "all files in the folder itself", "a folder in it").warning());
        }
    } else if found.is_empty() {
        set.add(if page.folders.contains(&format!("{}/", location.key)) {
            Finding::new("FolderWithoutSlash", "a / at the end of a folder", "none")
        } else {
            Finding::new("NoObject", "an object at the location", "none")
        });
    }
}

/// Reads one file. Returns its name, what was learned, and whether it is encrypted with a key of KMS.
async fn read<O: Objects>(
    objects: &O,
    bucket: &str,
    object: Object,
    schema: &Schema,
    depth: Depth,
    progress: &(impl Fn(Progress) + Send + Sync),
) -> Result<(String, Checked, bool), ServiceError> {
    let name = object.name();
    let (mut check, mut kms) = (FileCheck::new(schema, name), false);
    for range in ranges(object.size, depth) {
        let Piece { bytes: piece, kms: is_kms } = objects.read(bucket, &object, range.clone()).await?;
        kms |= is_kms;
        progress(Progress::Read(piece.len() as u64));
        if piece.len() as u64 != range.end - range.start {
            let message = "the object has changed while it was read";
            return Err(ServiceError::unanswered(ErrorKind::Indeterminate, "ObjectChanged", message));
        }
        check.read(range.start, &piece);
        if check.is_unusable() {
            break;
        }
    }
    Ok((name.to_owned(), check.finish(true), kms))
}

/// How many bytes of a file are read.
fn planned(size: u64, depth: Depth) -> u64 {
    match depth {
        Depth::Full => size,
        Depth::Sample => size.min(2 * EDGE + SAMPLES * SAMPLE),
        Depth::Edges => size.min(2 * EDGE_OF_MANY),
    }
}

/// Which bytes of a file to read, in order.
fn ranges(size: u64, depth: Depth) -> Vec<Range<u64>> {
    let (edge, samples) = match depth {
        Depth::Full => return (0..size.div_ceil(PIECE)).map(|i| i * PIECE..((i + 1) * PIECE).min(size)).collect(),
        Depth::Sample => (EDGE, SAMPLES),
        Depth::Edges => (EDGE_OF_MANY, 0),
    };
    // A small file is read completely, in one call.
    let Some(between) = size.checked_sub(2 * edge + samples * SAMPLE).filter(|between| *between > 0) else {
        return std::iter::once(0..size).collect();
    };
    let gap = between / (samples + 1);
    let sample = |i| edge + gap * (i + 1) + SAMPLE * i;
    let between = (0..samples).map(sample).map(|start| start..start + SAMPLE);
    std::iter::once(0..edge).chain(between).chain(std::iter::once(size - edge..size)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_file_takes_eight_calls_and_896_kibibytes() {
        for (depth, calls, bytes) in [(Depth::Sample, 8, 896 << 10), (Depth::Edges, 2, 64 << 10)] {
            for size in [1, bytes, bytes + 1, bytes + 12_345, 100 << 30] {
                let ranges = ranges(size, depth);
                assert_eq!(ranges.len(), if size <= bytes { 1 } else { calls });
                assert_eq!(ranges.iter().map(|r| r.end - r.start).sum::<u64>(), size.min(bytes));
                assert_eq!(planned(size, depth), size.min(bytes));
                assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, size));
                assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:?}");
            }
        }
        assert_eq!(ranges(3 << 20, Depth::Full).len(), 3);
    }
}
