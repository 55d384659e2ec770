//! Reading the data of an import, for real: the header, the columns of the schema, the number of
//! records. Streams; what it finds wrong is the job's failureReason.

use crate::seed::{Dataset, Job, Seed};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The fewest interactions that an import may hold.
const FEWEST_INTERACTIONS: u64 = 1000;

/// Reads the data of a job.
pub(crate) fn read(job: &Job, dataset: &Dataset, seed: &Seed, data: &Path) -> Result<(), String> {
    let kind = dataset.kind.to_lowercase();
    let denied = |bucket: &str| {
        format!(
            "Failed to create a data import job for {kind} dataset {}. Insufficient privileges for accessing data in S3. Please look at https://docs.aws.amazon.com/personalize/latest/dg/granting-personalize-s3-access.html#attach-bucket-policy and fix bucket policy on {bucket}.",
            dataset.arn
        )
    };
    let Some(path) = job.data_location.strip_prefix("s3://") else { return Err("Invalid Data location.".into()) };
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    if key.split('/').any(|part| part == "..") {
        return Err("Invalid Data location.".into());
    }
    if seed.unreadable_buckets.iter().any(|b| b == bucket) {
        return Err(denied(bucket));
    }
    let files =
        objects(&data.join(bucket).join(key), key.ends_with('/') || key.is_empty()).ok_or_else(|| denied(bucket))?;
    if files.is_empty() {
        return Err("Invalid Data location.".into());
    }
    let schema: Value = serde_json::from_str(&dataset.schema).map_err(|_| "Invalid schema.".to_owned())?;
    let fields: Vec<(String, Value)> = schema["fields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|f| (f["name"].as_str().unwrap_or_default().to_owned(), f["type"].clone()))
        .collect();
    let mut records = 0;
    for file in files {
        records += check(&file, &fields)?;
    }
    if kind == "interactions" && records < FEWEST_INTERACTIONS {
        return Err(format!("There are {records} interaction records; at least {FEWEST_INTERACTIONS} are needed."));
    }
    Ok(())
}

fn objects(path: &Path, folder: bool) -> Option<Vec<PathBuf>> {
    if !folder {
        return path.is_file().then(|| vec![path.to_owned()]);
    }
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(path).ok()?.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    files.sort();
    Some(files)
}

fn check(file: &Path, fields: &[(String, Value)]) -> Result<u64, String> {
    let file = File::open(file).map_err(|_| "Invalid Data location.".to_owned())?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let header = reader.headers().map_err(|_| "Input csv has no readable header.".to_owned())?.clone();
    let column = |name: &str| header.iter().position(|h| h == name);
    let missing: Vec<&str> = fields.iter().map(|(n, _)| n.as_str()).filter(|n| column(n).is_none()).collect();
    if !missing.is_empty() {
        return Err(format!("Input csv is missing the following columns: [{}]", missing.join(", ")));
    }
    let numbers: Vec<(usize, &str)> = fields
        .iter()
        .filter(|(_, t)| t == "long" || t == "int")
        .filter_map(|(n, _)| Some((column(n)?, n.as_str())))
        .collect();
    let mut record = csv::StringRecord::new();
    let mut count = 0;
    while reader.read_record(&mut record).map_err(|e| format!("Input csv can not be read: {e}"))? {
        count += 1;
        for (at, name) in &numbers {
            if record.get(*at).is_none_or(|value| value.parse::<i64>().is_err()) {
                return Err(format!(
                    "Input csv has rows that do not conform to the dataset schema. Column {name} of record {count} is not a number."
                ));
            }
        }
    }
    Ok(count)
}
