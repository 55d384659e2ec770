//! Whole data sets through the check, from memory.

use super::*;
use crate::api::ImportMode;
use crate::personalize::{ErrorKind, ServiceError};
use proptest::prelude::*;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

/// Objects in memory; counts the reads.
#[derive(Default)]
struct Memory {
    objects: Vec<(String, Vec<u8>)>,
    page: usize,
    reads: AtomicUsize,
    load: Mutex<Load>,
}

/// The reads at this moment and their bytes, and the most of them.
#[derive(Debug, Default)]
struct Load {
    reads: usize,
    bytes: usize,
    most_reads: usize,
    most_bytes: usize,
}

/// Lets other futures run.
async fn give_way() {
    let mut ready = false;
    let poll = |context: &mut Context<'_>| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut ready, true) { Poll::Ready(()) } else { Poll::Pending }
    };
    poll_fn(poll).await;
}

impl Objects for Memory {
    async fn list(&self, _: &str, prefix: &str, token: Option<&str>) -> Result<Page, ServiceError> {
        let skip = token.map_or(0, |token| token.parse().unwrap());
        let below: Vec<_> = self.objects.iter().filter(|(key, _)| key.starts_with(prefix)).collect();
        let is_deep = |key: &str| key[prefix.len()..].contains('/');
        let objects = below.iter().filter(|(key, _)| !is_deep(key)).skip(skip).take(self.page.max(1));
        let objects: Vec<Object> = objects
            .map(|(key, content)| Object { key: key.clone(), size: content.len() as u64, etag: String::new() })
            .collect();
        let folders = below.iter().filter(|(key, _)| is_deep(key)).map(|(key, _)| {
            let end = prefix.len() + key[prefix.len()..].find('/').unwrap();
            key[..=end].to_owned()
        });
        let count = below.iter().filter(|(key, _)| !is_deep(key)).count();
        let next = skip + objects.len();
        Ok(Page { objects, folders: folders.collect(), next: (next < count).then(|| next.to_string()) })
    }

    async fn read(&self, _: &str, object: &Object, range: Range<u64>) -> Result<Piece, ServiceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let (_, content) = self.objects.iter().find(|(key, _)| *key == object.key).unwrap();
        let piece = &content[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        {
            let mut load = self.load.lock().unwrap();
            (load.reads, load.bytes) = (load.reads + 1, load.bytes + piece.len());
            (load.most_reads, load.most_bytes) = (load.most_reads.max(load.reads), load.most_bytes.max(load.bytes));
        }
        give_way().await;
        let mut load = self.load.lock().unwrap();
        (load.reads, load.bytes) = (load.reads - 1, load.bytes - piece.len());
        Ok(Piece { bytes: piece.to_vec(), kms: object.key.starts_with("kms/") })
    }
}

const INTERACTIONS: &str = r#"{"type": "record", "name": "Interactions", "fields": [
    {"name": "USER_ID", "type": "string"}, {"name": "ITEM_ID", "type": "string"},
    {"name": "EVENT_TYPE", "type": "string"}, {"name": "EVENT_VALUE", "type": ["float", "null"]},
    {"name": "TIMESTAMP", "type": "long"}]}"#;
const ITEMS: &str = r#"{"type": "record", "name": "Items", "fields": [
    {"name": "ITEM_ID", "type": "string"}, {"name": "PRICE", "type": "float"},
    {"name": "GENRES", "type": ["null", "string"], "categorical": true},
    {"name": "STOCK", "type": ["int", "null"]}, {"name": "ADULT", "type": "boolean"},
    {"name": "DESCRIPTION", "type": ["null", "string"], "textual": true},
    {"name": "CREATION_TIMESTAMP", "type": "long"}]}"#;
const ITEMS_HEADER: &str = "ITEM_ID,PRICE,GENRES,STOCK,ADULT,DESCRIPTION,CREATION_TIMESTAMP\n";
const ITEM: &str = "i1,9.5,Drama|Crime,3,false,\"A film, \\\"good\\\"\",1596238243\n";
const HEADER: &str = "USER_ID,ITEM_ID,EVENT_TYPE,EVENT_VALUE,TIMESTAMP\n";
const ROW: &str = "u1,i1,watch,0.5,1596238243\n";
/// Never shown, wherever it stands.
const SECRET: &str = "hunter2";

/// The value of a future that only gives way.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

fn look(objects: &Memory, schema: &str, at: &str, mode: ImportMode) -> Report {
    let schema = match Schema::parse(schema, None, None) {
        Ok(schema) => schema,
        Err(errors) => return Report::of(errors),
    };
    let location = Location::parse(at).unwrap();
    let expected = Expected { schema: &schema, domain: None, mode };
    let report = now(inspect(objects, &location, &expected, Depth::Sample, |_| {})).unwrap();
    assert!(!format!("{report:?}").contains(SECRET), "{report:?}");
    report
}

fn check_bytes(schema: &str, content: Vec<u8>) -> Report {
    let objects = Memory { objects: vec![("data.csv".into(), content)], ..Memory::default() };
    look(&objects, schema, "s3://bucket/data.csv", ImportMode::Full)
}

/// Interactions with these rows at the end of a thousand good ones.
fn interactions(header: &str, rows: &str) -> Report {
    check_bytes(INTERACTIONS, format!("{header}{}{rows}", ROW.repeat(1000)).into_bytes())
}

fn items(rows: &str) -> Report {
    check_bytes(ITEMS, format!("{ITEMS_HEADER}{ITEM}{rows}").into_bytes())
}

#[track_caller]
fn assert_good(report: &Report) {
    assert!(report.findings.is_empty(), "{report:?}");
}

/// The only error is of this rule, in this line.
#[track_caller]
fn assert_finds(report: &Report, rule: &str, line: u64) {
    let found: Vec<_> = report.findings.iter().map(|f| (f.rule, f.position)).collect();
    assert_eq!(found, [(rule, Some(Position::Line(line)))], "{report:?}");
    assert!(report.has_errors());
}

#[test]
fn good_data_has_no_findings() {
    assert_good(&interactions(HEADER, ""));
    assert_good(&interactions(HEADER, "u1,i1,watch,,881250949"));
    assert_good(&interactions(HEADER, "\"u,1\",i1,\"watch\",1e3,1596238243\n\n"));
    assert_good(&check_bytes(INTERACTIONS, format!("{HEADER}{}", ROW.repeat(1000)).replace('\n', "\r\n").into_bytes()));
    assert_good(&items(""));
    assert_good(&items("i2,1,,,true,,0\n"));
    assert_good(&items("ï,1,日本|映画,,true,\"日本語\",1596238243\n"));
    let users = r#"{"type": "record", "name": "Users", "fields": [{"name": "USER_ID", "type": "string"}, {"name": "AGE", "type": "int"}]}"#;
    assert_good(&check_bytes(users, b"USER_ID,AGE\nu,30\n".to_vec()));
}

#[test]
fn wrong_headers_are_found() {
    let rules = |header: &str| {
        let report = interactions(header, "");
        report.findings.iter().filter(|f| f.level == Level::Error).map(|f| f.rule).collect::<Vec<_>>()
    };
    assert_eq!(rules("USER_ID,ITEM_ID,EVENT_TYPE,EVENT_VALUE,hunter2\n"), ["UnknownColumn", "MissingColumn"]);
    assert_eq!(rules("user_id,ITEM_ID,EVENT_TYPE,EVENT_VALUE,TIMESTAMP\n"), ["UnknownColumn", "MissingColumn"]);
    assert_eq!(rules("USER_ID,ITEM_ID,EVENT_TYPE,EVENT_TYPE,TIMESTAMP\n"), ["DuplicateColumn", "MissingColumn"]);
    assert_eq!(rules("\"USER_ID\",ITEM_ID,EVENT_TYPE,EVENT_VALUE,TIMESTAMP\n"), ["QuotedHeader"]);
    assert_eq!(rules("USER_ID;ITEM_ID;EVENT_TYPE;EVENT_VALUE;TIMESTAMP\n"), ["Separator"]);
    assert_eq!(rules(""), ["NoHeader"]);
    assert_eq!(rules("\u{feff}USER_ID,ITEM_ID,EVENT_TYPE,EVENT_VALUE,TIMESTAMP\n"), ["ByteOrderMark"]);
    assert_eq!(rules("ITEM_ID,USER_ID,EVENT_TYPE,EVENT_VALUE,TIMESTAMP\n"), Vec::<&str>::new(), "a warning only");
}

#[test]
fn wrong_values_are_found_with_their_line() {
    for (row, rule) in [
        ("u1,i1,watch,0.5,1596238243000\n", "NotSeconds"),
        ("u1,i1,watch,0.5,20240131\n", "NotSeconds"),
        ("u1,i1,watch,0.5,-1\n", "NotSeconds"),
        ("u1,i1,watch,0.5,2020-07-31T00:00:00Z\n", "WrongType"),
        ("u1,i1,watch,0.5,1596238243.0\n", "WrongType"),
        ("u1,i1,watch,0.5,\n", "MissingValue"),
        ("u1,i1,watch,hunter2,1596238243\n", "WrongType"),
        ("u1,i1,watch,NaN,1596238243\n", "WrongType"),
        (",i1,watch,0.5,1596238243\n", "MissingValue"),
        ("u1,i1,watch,0.5\n", "ColumnCount"),
        ("u1,i1,watch,0.5,1596238243,\n", "ColumnCount"),
        ("u1,i1,EVENT_VALUE,0.5,1596238243\n", "ReservedKeyword"),
        (HEADER, "RepeatedHeader"),
        ("u1,i1,\"hunter2\nfollows\",0.5,1596238243\n", "Quoting"),
        ("u1,i1,hunter2\"x,0.5,1596238243\n", "Quoting"),
        ("u1,\"i\"\"1\",watch,0.5,1596238243\n", "SpecialCharacter"),
    ] {
        let report = interactions(HEADER, row);
        let first = &report.findings[0];
        assert_eq!((first.rule, first.position), (rule, Some(Position::Line(1002))), "{row}: {report:?}");
    }
    assert_finds(&interactions(HEADER, &format!("{},i1,watch,,1596238243\n", "x".repeat(257))), "TooLong", 1002);
    for (row, rule) in [
        ("i2,free,Drama,3,false,,1596238243\n", "WrongType"),
        ("i2,1.0,Drama,3.5,false,,1596238243\n", "WrongType"),
        ("i2,1.0,Drama,3000000000,false,,1596238243\n", "WrongType"),
        ("i2,1.0,Drama,3,True,,1596238243\n", "WrongType"),
        ("i2,,Drama,3,true,,1596238243\n", "MissingValue"),
        ("i2,1.0,Drama,3,true,,1596238243000\n", "NotSeconds"),
    ] {
        assert_finds(&items(row), rule, 3);
    }
    assert_finds(&items(&format!("i2,1.0,{},3,true,,1596238243\n", "x".repeat(1001))), "TooLong", 3);
}

#[test]
fn files_that_are_no_csv_in_utf_8_are_found() {
    let rule = |content: &[u8]| check_bytes(ITEMS, content.to_vec()).findings[0].rule;
    assert_eq!(rule(b"\x1f\x8b\x08rest"), "NotCsv");
    assert_eq!(rule(b"\xff\xfeI\0T\0"), "NotCsv");
    assert_eq!(rule(format!("{ITEMS_HEADER}i\0,1.0,a,1,true,,1\n").as_bytes()), "ControlCharacter");
    let latin_1 = [ITEMS_HEADER.as_bytes(), b"caf\xe9,1.0,a,1,true,,1\n"].concat();
    assert_eq!(rule(&latin_1), "NotUtf8");
    assert_eq!(rule(b""), "EmptyFile");
    assert_eq!(rule(b"\n\n"), "EmptyFile");
    assert_eq!(rule(ITEMS_HEADER.as_bytes()), "NoRecords");
}

#[test]
fn missing_event_type_is_no_type_of_event() {
    let nullable =
        INTERACTIONS.replace(r#""EVENT_TYPE", "type": "string""#, r#""EVENT_TYPE", "type": ["string", "null"]"#);
    let types = (1..=9).map(|i| format!("u,i,event{i},,1596238243\n")).collect::<String>();
    let rows = format!("{HEADER}{}{types}u,i,,,1596238243\n", ROW.repeat(1000));
    assert_good(&check_bytes(&nullable, rows.into_bytes()));
}

#[test]
fn imports_have_a_least_number_of_records_and_a_largest_size() {
    let few = check_bytes(INTERACTIONS, format!("{HEADER}{}", ROW.repeat(999)).into_bytes());
    assert_eq!(few.findings[0].rule, "TooFewRecords");
    let actions = r#"{"type": "record", "name": "ActionInteractions", "fields": [
        {"name": "USER_ID", "type": "string"}, {"name": "ACTION_ID", "type": "string"},
        {"name": "EVENT_TYPE", "type": "string"}, {"name": "TIMESTAMP", "type": "long"}]}"#;
    let one = b"USER_ID,ACTION_ID,EVENT_TYPE,TIMESTAMP\nu1,a1,Taken,1596238243\n".to_vec();
    let objects = Memory { objects: vec![("a.csv".into(), one)], ..Memory::default() };
    assert_good(&look(&objects, actions, "s3://bucket/a.csv", ImportMode::Full));
    let report = look(&objects, actions, "s3://bucket/a.csv", ImportMode::Incremental);
    assert_eq!(report.findings[0].rule, "TooFewRecords");
    let other = b"USER_ID,ACTION_ID,EVENT_TYPE,TIMESTAMP\nu1,a1,hunter2,1596238243\n".to_vec();
    assert_eq!(check_bytes(actions, other).findings[0].rule, "WrongEventType");
    let kinds = (0..11).map(|i| format!("u,i,event{i},,1596238243\n")).collect::<String>();
    assert_eq!(interactions(HEADER, &kinds).findings[0].rule, "TooManyEventTypes");
    let schema = Schema::parse(ITEMS, None, None).unwrap();
    for (mode, size, is_error) in
        [(ImportMode::Full, 2, false), (ImportMode::Incremental, 2, true), (ImportMode::Full, 101, true)]
    {
        let mut set = set::SetCheck::new(&schema, None, mode);
        set.object(&Object { key: "items.csv".into(), size: size << 30, etag: String::new() }, false);
        assert_eq!(set.finish().has_errors(), is_error, "{mode:?} {size}");
    }
}

#[test]
fn folder_holds_only_csv_files_with_the_same_header() {
    let good = format!("{ITEMS_HEADER}{ITEM}").into_bytes();
    let set = |files: &[(&str, &[u8])], at: &str| {
        let objects = files.iter().map(|(key, content)| ((*key).to_owned(), content.to_vec())).collect();
        let report = look(&Memory { objects, page: 2, ..Memory::default() }, ITEMS, at, ImportMode::Full);
        report.findings.iter().map(|f| f.rule).collect::<Vec<_>>()
    };
    let none = Vec::<&str>::new();
    assert_eq!(set(&[("a/", b""), ("a/1.csv", &good), ("a/2.csv", &good), ("a/3.CSV", &good)], "s3://b/a/"), none);
    assert_eq!(set(&[("a/1.csv", &good), ("a/_SUCCESS", b"")], "s3://b/a/"), ["NotCsv"]);
    let other = String::from_utf8(good.clone()).unwrap().replace("PRICE,GENRES", "GENRES,PRICE");
    let other = other.replace("9.5,Drama|Crime", "Drama|Crime,9.5");
    assert_eq!(set(&[("a/1.csv", &good), ("a/2.csv", other.as_bytes())], "s3://b/a/"), ["Header", "ColumnOrder"]);
    assert_eq!(set(&[("a/1.csv", &good), ("a/2.csv", b"")], "s3://b/a/"), ["EmptyFile"]);
    assert_eq!(set(&[("a/1.csv", &good)], "s3://b/a"), ["FolderWithoutSlash", "NoFiles"]);
    assert_eq!(set(&[("a/1.csv", &good)], "s3://b/b.csv"), ["NoObject", "NoFiles"]);
    assert_eq!(set(&[], "s3://b/a/"), ["NoFiles"]);
    assert_eq!(set(&[("a/1.csv", &good), ("a/old/2.csv", &good)], "s3://b/a/"), ["Subfolder"], "a warning");
    assert_eq!(set(&[("a.csv.gz", &good)], "s3://b/a.csv.gz"), ["NotCsv"]);
    assert_eq!(set(&[("items", &good)], "s3://b/items"), none, "a single file may have no extension");
}

#[test]
fn rows_in_the_middle_and_at_the_end_of_a_large_file_are_checked() {
    let row = format!("u1,i1,watch,0.5,1596238243{}\n", " ".repeat(0));
    let good = row.repeat(200_000);
    let report = check_bytes(INTERACTIONS, format!("{HEADER}{good}").into_bytes());
    assert_good(&report);
    assert!(!report.complete && report.records < 100_000 && report.data.bytes > 5 << 20);
    let cut = check_bytes(INTERACTIONS, format!("{HEADER}{good}u1,i1,wat").into_bytes());
    assert_eq!(cut.findings[0].rule, "ColumnCount", "{cut:?}");
    let milliseconds = row.replace("8243", "8243000").repeat(100_000);
    let report = check_bytes(INTERACTIONS, format!("{HEADER}{good}{milliseconds}{good}").into_bytes());
    assert_eq!(report.findings[0].rule, "NotSeconds", "{report:?}");
}

#[test]
fn many_files_are_read_in_part_and_all_listed() {
    let good = format!("{ITEMS_HEADER}{ITEM}").into_bytes();
    let objects: Vec<_> = (0..10_000).map(|i| (format!("a/{i:05}.csv"), good.clone())).collect();
    let mut memory = Memory { objects, page: 1000, ..Memory::default() };
    let report = look(&memory, ITEMS, "s3://b/a/", ImportMode::Full);
    assert_eq!((report.data.files, report.complete, report.findings.len()), (10_000, false, 0));
    assert_eq!((memory.reads.load(Ordering::SeqCst), memory.load.lock().unwrap().most_reads), (292, 4));

    memory.objects[9_999].1 = ITEMS_HEADER.into();
    let report = look(&memory, ITEMS, "s3://b/a/", ImportMode::Full);
    assert_eq!(report.findings[0].file.as_deref(), Some("09999.csv"), "the last file is read: {report:?}");
}

#[test]
fn little_is_in_memory_however_many_files_there_are() {
    // Its first bytes say that it is no CSV, but the first read is as large as any.
    let content = [&b"\x1f\x8b"[..], &vec![0; 2 << 20]].concat();
    let schema = Schema::parse(ITEMS, None, None).unwrap();
    let expected = Expected { schema: &schema, domain: None, mode: ImportMode::Full };
    for (size, depth) in [(896 << 10, Depth::Sample), (content.len(), Depth::Sample), (content.len(), Depth::Full)] {
        let objects = (0..50).map(|i| (format!("a/{i}.csv"), content[..size].to_vec())).collect();
        let memory = Memory { objects, page: 1000, ..Memory::default() };
        now(inspect(&memory, &Location::parse("s3://b/a/").unwrap(), &expected, depth, |_| {})).unwrap();
        let load = memory.load.into_inner().unwrap();
        assert!(load.most_reads == 4 && load.most_bytes <= 4 << 20, "{load:?}");
    }
}

#[test]
fn encryption_with_a_key_that_has_a_policy_is_a_warning_for_the_whole_folder() {
    let good = format!("{ITEMS_HEADER}{ITEM}").into_bytes();
    let objects = (0..9).map(|i| (format!("kms/{i}.csv"), good.clone())).collect();
    let report = look(&Memory { objects, page: 2, ..Memory::default() }, ITEMS, "s3://b/kms/", ImportMode::Full);
    assert!(!report.has_errors());
    assert_eq!(
        report.summary(),
        "0.csv: expected a key policy that allows kms:Decrypt to personalize.amazonaws.com and to the role of the import, \
         found encryption with a KMS key, whose policy is not checked"
    );
}

#[test]
fn findings_are_bounded_and_counted() {
    let rows: String = (0..100).map(|_| "i2,free,Drama,3.5,yes,,then\n").collect();
    let report = items(&rows);
    assert_eq!(report.findings.len(), 4);
    assert!(report.findings.iter().all(|f| f.count == 100));
    assert_eq!(
        report.summary(),
        "data.csv, line 3, column PRICE: expected a number with a decimal point (float), found text of 4 characters (100 times); \
         data.csv, line 3, column STOCK: expected a whole number of 32 bits (int), found a number with a fraction or an exponent (100 times); \
         data.csv, line 3, column ADULT: expected true or false in lower case (boolean), found text of 3 characters (100 times); and 1 more"
    );
}

#[test]
fn schemas_are_checked() {
    let rule = |fields: &str, name: &str| {
        let json = format!(r#"{{"type": "record", "name": "{name}", "fields": [{fields}]}}"#);
        Schema::parse(&json, None, None).map_err(|errors| errors[0].to_string())
    };
    let ids = r#"{"name": "USER_ID", "type": "string"}, {"name": "ITEM_ID", "type": "string"}"#;
    let time = r#"{"name": "TIMESTAMP", "type": "long"}"#;
    assert!(rule(&format!("{ids}, {time}"), "Interactions").is_ok());
    assert!(rule(ids, "Interactions").unwrap_err().contains("TIMESTAMP"));
    assert!(
        rule(&format!("{ids}, {}", time.replace("long", "string")), "Interactions").unwrap_err().contains("type long")
    );
    let value = r#"{"name": "EVENT_VALUE", "type": "float"}"#;
    assert!(rule(&format!("{ids}, {time}, {value}"), "Interactions").unwrap_err().contains("EVENT_TYPE"));
    assert!(rule(r#"{"name": "USER_ID", "type": "string"}"#, "Users").unwrap_err().contains("metadata"));
    assert!(rule(r#"{"name": "A", "type": {"type": "array"}}"#, "Items").unwrap_err().contains("another type"));
    assert!(Schema::parse("{", None, None).unwrap_err()[0].to_string().contains("JSON"));
    let described = serde_json::json!({"schema": {"name": "s", "schema": ITEMS, "domain": "ECOMMERCE"}}).to_string();
    assert!(Schema::parse(&described, None, None).unwrap_err()[0].to_string().contains("CATEGORY_L1"));
    let described = serde_json::json!({"schema": {"name": "s", "schema": ITEMS}}).to_string();
    assert_eq!(Schema::parse(&described, None, None).unwrap().fields.len(), 7);
}

#[test]
fn error_of_s3_is_no_finding() {
    struct Denied;
    impl Objects for Denied {
        async fn list(&self, _: &str, _: &str, _: Option<&str>) -> Result<Page, ServiceError> {
            Err(ServiceError::answered("AccessDenied", "", 403))
        }
        async fn read(&self, _: &str, _: &Object, _: Range<u64>) -> Result<Piece, ServiceError> {
            unreachable!()
        }
    }
    let schema = Schema::parse(ITEMS, None, None).unwrap();
    let expected = Expected { schema: &schema, domain: None, mode: ImportMode::Full };
    let location = Location::parse("s3://b/a/").unwrap();
    let answer = now(inspect(&Denied, &location, &expected, Depth::Sample, |_| {}));
    assert_eq!(answer.unwrap_err().kind, ErrorKind::AccessDenied);
}

proptest! {
    #[test]
    fn any_bytes_are_checked_without_a_panic_however_they_are_cut(
        content in proptest::collection::vec(any::<u8>(), 0..400), cuts in proptest::collection::vec(0_usize..400, 0..5),
    ) {
        let schema = Schema::parse(ITEMS, None, None).unwrap();
        let content = [ITEMS_HEADER.as_bytes(), &content].concat();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(content.len())).chain([content.len()]).collect();
        cuts.sort_unstable();
        let mut check = file::FileCheck::new(&schema, "a.csv");
        let mut start = 0;
        for cut in cuts {
            check.read(start as u64, &content[start..cut]);
            start = cut;
        }
        let cut = check.finish(true);
        let mut whole = file::FileCheck::new(&schema, "a.csv");
        whole.read(0, &content);
        let whole = whole.finish(true);
        prop_assert_eq!((cut.findings, cut.rows), (whole.findings, whole.rows));
    }
}
