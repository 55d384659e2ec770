//! The command `check`: checks the data of an import before it is committed or imported.

use crate::accounts::Accounts;
use crate::api::plural;
use crate::aws::{Aws, AwsOptions, RateLimits, S3};
use crate::cli::{CheckArgs, OutputFormat};
use crate::personalize::{Caller, CallerRole, DatasetArn, DatasetSchema, ErrorKind, Personalize, ServiceError};
use crate::preflight::{
    DatasetType, Depth, Expected, Level, Location, Object, Objects, Page, Piece, Progress, Report, Schema, inspect,
};
use crate::redact::sanitize_display;
use crate::run::Error;
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write, stderr};
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The exit status if the data can't be checked.
const NOT_CHECKED: u8 = 2;

/// From this many bytes on, a terminal shows a progress bar.
const LONG: u64 = 16 << 20;

/// Checks the data and prints the report.
///
/// # Errors
/// When the report can't be printed.
pub async fn check(args: &CheckArgs) -> Result<ExitCode, Error> {
    match report(args).await {
        Ok(report) => {
            print(args, &report)?;
            Ok(if report.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Err(error) => {
            writeln!(stderr(), "personalize-operator: {}", sanitize_display(&error))?;
            Ok(ExitCode::from(NOT_CHECKED))
        }
    }
}

async fn report(args: &CheckArgs) -> Result<Report, Error> {
    let described = if args.schema.starts_with("arn:") {
        describe(&args.schema).await?
    } else {
        let json = fs::read_to_string(&args.schema).map_err(|error| format!("--schema {}: {error}", args.schema))?;
        DatasetSchema { json, domain: None }
    };
    let domain = args.domain.or_else(|| described.domain?.parse().ok());
    let in_arn = args.schema.starts_with("arn:").then(|| DatasetType::of(&args.schema)).flatten();
    let schema = match Schema::parse(&described.json, args.dataset_type.or(in_arn), domain) {
        Ok(schema) => schema,
        Err(errors) => return Ok(Report::of(errors)),
    };
    let expected = Expected { schema: &schema, domain, mode: args.import_mode };
    let is_remote = args.location.starts_with("s3://");
    let depth = if args.sample || is_remote && !args.full { Depth::Sample } else { Depth::Full };
    let bar = Bar::default();
    let report = if is_remote {
        let location = Location::parse(&args.location).ok_or("the location must be like s3://bucket/key")?;
        let config = aws().await.config_for(region_of(&args.schema));
        inspect(&S3::new(&config), &location, &expected, depth, |step| bar.show(step)).await
    } else {
        let is_dir = fs::metadata(&args.location).map_err(|error| format!("{}: {error}", args.location))?.is_dir();
        let slash = if is_dir && !args.location.ends_with('/') { "/" } else { "" };
        let location = Location { bucket: String::new(), key: format!("{}{slash}", args.location) };
        inspect(&Files, &location, &expected, depth, |step| bar.show(step)).await
    };
    bar.end();
    Ok(report?)
}

async fn aws() -> Aws {
    let (connect_timeout, read_timeout) = (Duration::from_secs(5), Duration::from_secs(20));
    let operation_timeout = Duration::from_secs(30);
    let (accounts, limits) = (Accounts::new(HashMap::new(), None), RateLimits::default());
    Aws::new(AwsOptions { connect_timeout, read_timeout, operation_timeout, accounts, limits }).await
}

/// The schema with this ARN, or that of the dataset with it.
async fn describe(arn: &str) -> Result<DatasetSchema, Error> {
    let (aws, caller) = (aws().await, Caller { namespace: String::new(), role: CallerRole::OfAccount });
    if !arn.contains(":schema/") {
        let dataset = DatasetArn::parse(arn)?;
        let schema_arn =
            aws.describe_dataset(&caller, &dataset).await?.schema_arn.ok_or("the dataset has no schema")?;
        return Ok(aws.describe_schema(&caller, &dataset, &schema_arn).await?);
    }
    // Any dataset of its account and region leads to the same client.
    let dataset = DatasetArn::parse(&arn.replacen(":schema/", ":dataset/", 1))?;
    Ok(aws.describe_schema(&caller, &dataset, arn).await?)
}

/// The region in an ARN.
fn region_of(schema: &str) -> Option<&str> {
    schema.strip_prefix("arn:")?.split(':').nth(2).filter(|region| !region.is_empty())
}

fn print(args: &CheckArgs, report: &Report) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if args.output == OutputFormat::Json {
        let mut value = serde_json::to_value(report)?;
        value["valid"] = (!report.has_errors()).into();
        return writeln!(out, "{value:#}");
    }
    let style = |color: AnsiColor| Style::new().bold().fg_color(Some(color.into()));
    let (error, warning, good) = (style(AnsiColor::Red), style(AnsiColor::Yellow), style(AnsiColor::Green));
    for finding in &report.findings {
        match finding.level {
            Level::Error => writeln!(out, "{error}error{error:#}: {finding}")?,
            Level::Warning => writeln!(out, "{warning}warning{warning:#}: {finding}")?,
        }
    }
    if report.more_findings > 0 {
        writeln!(out, "and {} more", report.more_findings)?;
    }
    let part = if report.complete { "all" } else { "a part" };
    let read = format!(
        "{}, {} bytes, {part} of it read, with {} records",
        plural(report.data.files, "file"),
        report.data.bytes,
        report.records
    );
    if report.has_errors() {
        writeln!(out, "{error}invalid{error:#}: {read}")
    } else {
        writeln!(out, "{good}valid{good:#}: {read}")
    }
}

/// A progress bar on standard error, if that is a terminal and the read is long.
#[derive(Default)]
struct Bar {
    planned: AtomicU64,
    read: AtomicU64,
    shown: OnceLock<ProgressBar>,
}

impl Bar {
    fn show(&self, step: Progress) {
        match step {
            Progress::Planned(bytes) => {
                let planned = self.planned.fetch_add(bytes, Ordering::Relaxed) + bytes;
                if planned >= LONG {
                    self.shown.get_or_init(progress_bar).set_length(planned);
                }
            }
            Progress::Read(bytes) => {
                let read = self.read.fetch_add(bytes, Ordering::Relaxed) + bytes;
                if let Some(bar) = self.shown.get() {
                    bar.set_position(read);
                }
            }
        }
    }

    fn end(&self) {
        self.shown.get().into_iter().for_each(ProgressBar::finish_and_clear);
    }
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {binary_bytes} of {binary_total_bytes}, {eta} left");
    // The template is a constant that is valid.
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Local files as objects: the keys are paths.
struct Files;

impl Files {
    fn objects(prefix: &str) -> io::Result<Page> {
        let mut page = Page::default();
        if !prefix.ends_with('/') {
            let size = fs::metadata(prefix)?.len();
            page.objects.push(Object { key: prefix.to_owned(), size, etag: String::new() });
            return Ok(page);
        }
        for entry in fs::read_dir(Path::new(prefix))? {
            let entry = entry?;
            let (key, metadata) =
                (format!("{prefix}{}", entry.file_name().to_string_lossy()), fs::metadata(entry.path())?);
            if metadata.is_dir() {
                page.folders.push(key);
            } else {
                page.objects.push(Object { key, size: metadata.len(), etag: String::new() });
            }
        }
        page.objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(page)
    }

    fn bytes(key: &str, range: &Range<u64>) -> io::Result<Vec<u8>> {
        let (mut file, mut bytes) = (File::open(key)?, Vec::new());
        file.seek(SeekFrom::Start(range.start))?;
        file.take(range.end - range.start).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Objects for Files {
    async fn list(&self, _: &str, prefix: &str, _: Option<&str>) -> Result<Page, ServiceError> {
        Self::objects(prefix).map_err(|error| unreadable(&error))
    }

    async fn read(&self, _: &str, object: &Object, range: Range<u64>) -> Result<Piece, ServiceError> {
        let bytes = Self::bytes(&object.key, &range).map_err(|error| unreadable(&error))?;
        Ok(Piece { bytes, kms: false })
    }
}

fn unreadable(error: &io::Error) -> ServiceError {
    ServiceError::unanswered(ErrorKind::InvalidInput, "Unreadable", &error.to_string())
}
