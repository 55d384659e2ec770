//! Where an import's data lies: `s3://bucket/key` is `DIR/bucket/key`, a file or a folder.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

/// The most that an INCREMENTAL import takes: 1 GB.
const INCREMENTAL_BYTES: u64 = 1 << 30;
/// The most that a FULL import takes: 100 GB.
const FULL_BYTES: u64 = 100 << 30;

/// What an import is to read.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

/// The bucket of a data location, if it is one of S3.
pub(crate) fn parse(location: &str) -> Option<Source> {
    let (bucket, key) = location.strip_prefix("s3://")?.split_once('/').unwrap_or((location.get(5..)?, ""));
    (!bucket.is_empty()).then(|| Source { bucket: bucket.to_owned(), key: key.to_owned() })
}

/// The service's words for data that it can't read, as failureReason.
pub(crate) fn no_access(kind: &str) -> String {
    format!(
        "Failed to create a data import job for {kind} dataset....Insufficient privileges for accessing data in \
         Amazon S3."
    )
}

/// The same in the words of a refused request.
pub(crate) fn no_access_at_create(bucket: &str) -> String {
    format!(
        "Insufficient privileges for accessing data in S3. Please look at https://docs.aws.amazon.com/personalize/\
         latest/dg/granting-personalize-s3-access.html#attach-bucket-policy and fix bucket policy on {bucket}."
    )
}

/// The CSV files of a source for a type of dataset, in order; the error is the failureReason.
pub(crate) fn files(source: &Source, root: &Path, kind: &str, incremental: bool) -> Result<Vec<PathBuf>, String> {
    let below = Path::new(&source.bucket).join(&source.key);
    // A key is data: it must not lead out of the directory.
    if !below.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err("Invalid Data location.".to_owned());
    }
    let path = root.join(below);
    let found = if source.key.is_empty() || source.key.ends_with('/') { folder(&path) } else { file(&path) };
    let (paths, bytes) = found.map_err(|_| no_access(kind))?;
    if paths.is_empty() {
        return Err(no_access(kind));
    }
    let (limit, text) = if incremental { (INCREMENTAL_BYTES, "1 GB") } else { (FULL_BYTES, "100 GB") };
    if bytes > limit {
        return Err(format!("The size of the data to import is {bytes} bytes. The maximum size is {text}."));
    }
    Ok(paths)
}

/// A file, or a named pipe, whose size nobody knows.
fn file(path: &Path) -> io::Result<(Vec<PathBuf>, u64)> {
    let about = path.metadata()?;
    if about.is_dir() { Err(io::ErrorKind::NotFound.into()) } else { Ok((vec![path.to_owned()], about.len())) }
}

/// The files in a folder; what lies deeper is not read.
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
    fn a_location_is_a_bucket_and_a_key() {
        let source = parse("s3://bucket/a/b.csv").unwrap();
        assert_eq!((source.bucket.as_str(), source.key.as_str()), ("bucket", "a/b.csv"));
        assert!(parse("https://example").is_none());
        assert!(parse("s3:///key").is_none());
    }

    #[test]
    fn a_folder_ends_in_a_slash_and_gives_its_own_files_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("bucket/folder/deeper")).unwrap();
        for name in ["folder/b.csv", "folder/a.csv", "folder/deeper/c.csv"] {
            std::fs::write(dir.path().join("bucket").join(name), "x").unwrap();
        }
        let found = |key: &str| files(&parse(&format!("s3://bucket/{key}")).unwrap(), dir.path(), "Items", false);
        let names: Vec<_> = found("folder/").unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.csv", "b.csv"]);
        let refused = "Failed to create a data import job for Items dataset....Insufficient privileges for accessing \
                       data in Amazon S3.";
        assert_eq!(found("folder").unwrap_err(), refused);
        assert_eq!(found("").unwrap_err(), refused, "no file lies in the bucket itself");
    }

    #[test]
    fn an_incremental_import_takes_a_gigabyte_and_a_full_one_a_hundred() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bucket")).unwrap();
        let file = std::fs::File::create(dir.path().join("bucket/big.csv")).unwrap();
        let source = parse("s3://bucket/big.csv").unwrap();
        // Sparse: the size is looked at, nothing is read.
        file.set_len(1 << 30).unwrap();
        assert!(files(&source, dir.path(), "Items", true).is_ok());
        file.set_len((1 << 30) + 1).unwrap();
        assert!(files(&source, dir.path(), "Items", false).is_ok());
        assert!(files(&source, dir.path(), "Items", true).unwrap_err().ends_with("bytes. The maximum size is 1 GB."));
    }

    #[test]
    fn a_key_can_not_leave_the_directory() {
        let source = parse("s3://bucket/../../etc/passwd").unwrap();
        assert_eq!(files(&source, Path::new("/tmp"), "Items", false).unwrap_err(), "Invalid Data location.");
    }
}
