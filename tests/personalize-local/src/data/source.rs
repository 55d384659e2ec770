//! Resolves data locations: `s3://bucket/key` is `DIR/bucket/key`, a file or a folder.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

/// Maximum size of an INCREMENTAL import: 1 GB.
const MAX_INCREMENTAL_BYTES: u64 = 1 << 30;
/// Maximum size of a FULL import: 100 GB.
const MAX_FULL_BYTES: u64 = 100 << 30;

/// A parsed data location.
#[derive(Debug, Clone)]
pub(crate) struct S3Location {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

/// Parses `s3://bucket/key`; `None` for anything else.
pub(crate) fn parse(location: &str) -> Option<S3Location> {
    let (bucket, key) = location.strip_prefix("s3://")?.split_once('/').unwrap_or((location.get(5..)?, ""));
    (!bucket.is_empty()).then(|| S3Location { bucket: bucket.to_owned(), key: key.to_owned() })
}

/// The `failureReason` for data that the service can't read.
pub(crate) fn access_denied(dataset_type: &str) -> String {
    format!(
        "Failed to create a data import job for {dataset_type} dataset....Insufficient privileges for accessing data \
         in Amazon S3."
    )
}

/// The error message of a create request for such data.
pub(crate) fn access_denied_at_create(bucket: &str) -> String {
    format!(
        "Insufficient privileges for accessing data in S3. Please look at https://docs.aws.amazon.com/personalize/\
         latest/dg/granting-personalize-s3-access.html#attach-bucket-policy and fix bucket policy on {bucket}."
    )
}

/// The CSV files at a location, sorted; the error is the `failureReason`.
pub(crate) fn files(
    location: &S3Location,
    root: &Path,
    dataset_type: &str,
    incremental: bool,
) -> Result<Vec<PathBuf>, String> {
    let relative = Path::new(&location.bucket).join(&location.key);
    // The key is client input: it must not escape the root directory.
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err("Invalid Data location.".to_owned());
    }
    let path = root.join(relative);
    let found = if location.key.is_empty() || location.key.ends_with('/') { folder(&path) } else { file(&path) };
    let (paths, bytes) = found.map_err(|_| access_denied(dataset_type))?;
    if paths.is_empty() {
        return Err(access_denied(dataset_type));
    }
    let (limit, text) = if incremental { (MAX_INCREMENTAL_BYTES, "1 GB") } else { (MAX_FULL_BYTES, "100 GB") };
    if bytes > limit {
        return Err(format!("The size of the data to import is {bytes} bytes. The maximum size is {text}."));
    }
    Ok(paths)
}

/// A file and its size; the size of a named pipe is 0.
fn file(path: &Path) -> io::Result<(Vec<PathBuf>, u64)> {
    let metadata = path.metadata()?;
    if metadata.is_dir() { Err(io::ErrorKind::NotFound.into()) } else { Ok((vec![path.to_owned()], metadata.len())) }
}

/// The files directly in a folder, and their total size. Subfolders are ignored.
fn folder(path: &Path) -> io::Result<(Vec<PathBuf>, u64)> {
    let (mut paths, mut bytes) = (Vec::new(), 0);
    for entry in path.read_dir()? {
        let entry = entry?.path();
        if entry.is_file() {
            bytes += entry.metadata()?.len();
            paths.push(entry);
        }
    }
    paths.sort();
    Ok((paths, bytes))
}

#[cfg(test)]
mod tests {
    use super::{files, parse};
    use std::path::Path;

    #[test]
    fn s3_location_is_parsed_and_others_are_not() {
        let location = parse("s3://bucket/a/b.csv").unwrap();
        assert_eq!((location.bucket.as_str(), location.key.as_str()), ("bucket", "a/b.csv"));
        assert!(parse("https://example").is_none());
        assert!(parse("s3:///key").is_none());
    }

    #[test]
    fn folder_with_trailing_slash_lists_its_files_without_subfolders() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("bucket/folder/deeper")).unwrap();
        for name in ["folder/b.csv", "folder/a.csv", "folder/deeper/c.csv"] {
            std::fs::write(dir.path().join("bucket").join(name), "x").unwrap();
        }
        let found = |key: &str| files(&parse(&format!("s3://bucket/{key}")).unwrap(), dir.path(), "Items", false);
        let names: Vec<_> = found("folder/").unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.csv", "b.csv"]);
        let denied = "Failed to create a data import job for Items dataset....Insufficient privileges for accessing \
                      data in Amazon S3.";
        assert_eq!(found("folder").unwrap_err(), denied);
        assert_eq!(found("").unwrap_err(), denied, "the bucket has no file at the top level");
    }

    #[test]
    fn incremental_import_over_one_gigabyte_fails_and_full_import_does_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bucket")).unwrap();
        let file = std::fs::File::create(dir.path().join("bucket/big.csv")).unwrap();
        let location = parse("s3://bucket/big.csv").unwrap();
        // A sparse file: only its size is read.
        file.set_len(1 << 30).unwrap();
        assert!(files(&location, dir.path(), "Items", true).is_ok());
        file.set_len((1 << 30) + 1).unwrap();
        assert!(files(&location, dir.path(), "Items", false).is_ok());
        assert!(files(&location, dir.path(), "Items", true).unwrap_err().ends_with("bytes. The maximum size is 1 GB."));
    }

    #[test]
    fn key_outside_the_root_is_rejected() {
        let location = parse("s3://bucket/../../etc/passwd").unwrap();
        assert_eq!(files(&location, Path::new("/tmp"), "Items", false).unwrap_err(), "Invalid Data location.");
    }
}
