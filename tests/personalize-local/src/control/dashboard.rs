//! The read-only dashboard at `/_local/`: accounts, datasets, jobs, faults and the latest requests.

use jiff::Timestamp;

use crate::{
    Job, LedgerEntry, Tag,
    sanitize::html,
    store::{Store, StoredDataset, job},
};

/// Maximum requests on the page.
const MAX_REQUESTS: usize = 15;
/// Maximum jobs on the page, which reloads every two seconds.
const MAX_JOBS: usize = 500;
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222}h1{margin:0}h2{margin:1.6rem 0 .3rem}\
    div{overflow-x:auto}table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0;\
    border-bottom:1px solid #ddd}b{font-weight:600}.good{color:#17692f}.bad{color:#a4161a}.busy{color:#8a5300}";

/// The page as HTML.
pub(crate) fn render(store: &Store) -> String {
    let running = store.jobs.iter().filter(|job| job.is_running()).count();
    let failed = store.jobs.iter().filter(|job| job.status == job::FAILED).count();
    let summary = format!(
        "{} accounts, {} datasets, {} jobs ({running} running, {failed} failed), {} requests since the start.",
        store.accounts.len(),
        store.datasets.len(),
        store.jobs.len(),
        store.requests
    );
    let tables = [
        table("Accounts", &["account", "access keys", "jobs", "running"], &account_rows(store)),
        table("Datasets", &["ARN", "type", "status", "schema", "tags"], &dataset_rows(store)),
        table(
            &jobs_title(store.jobs.len()),
            &["name", "account", "region", "dataset", "mode", "status", "created", "changed", "tags", "failureReason"],
            &store.jobs.iter().rev().take(MAX_JOBS).map(job_row).collect::<Vec<_>>(),
        ),
        table("Pending faults", &["fault"], &fault_rows(store)),
        table(
            "Latest requests",
            &["time", "account", "operation", "job", "status", "error", "fault"],
            &store.ledger.latest().rev().take(MAX_REQUESTS).map(request_row).collect::<Vec<_>>(),
        ),
    ];
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <meta http-equiv=refresh content=2><title>personalize-local</title><style>{STYLE}</style>\
         <h1>personalize-local</h1><p>{summary}</p>{}</html>",
        tables.concat()
    )
}

fn jobs_title(count: usize) -> String {
    if count > MAX_JOBS { format!("Jobs, latest {MAX_JOBS} of {count}") } else { "Jobs, latest first".to_owned() }
}

fn account_rows(store: &Store) -> Vec<String> {
    let account_row = |id: &String| {
        let in_account = |job: &&Job| job.account == *id;
        let running = store.jobs.iter().filter(in_account).filter(|job| job.is_running()).count();
        let keys = store.principals.values().filter(|principal| principal.account == *id).count();
        row(&[
            html(id),
            keys.to_string(),
            store.jobs.iter().filter(in_account).count().to_string(),
            running.to_string(),
        ])
    };
    store.accounts.iter().map(account_row).collect()
}

fn dataset_rows(store: &Store) -> Vec<String> {
    let dataset_row = |dataset: &StoredDataset| {
        let (arn, schema) = (html(&dataset.arn), html(&dataset.schema_arn));
        row(&[arn, html(&dataset.type_name), status(&dataset.status, false), schema, tags(&dataset.tags)])
    };
    store.datasets.iter().map(dataset_row).collect()
}

fn job_row(job: &Job) -> String {
    let dataset = job.dataset_arn.rsplit_once(":dataset/").map_or("", |(_, name)| name);
    row(&[
        format!("<b>{}</b>", html(&job.name)),
        html(&job.account),
        html(&job.region),
        html(dataset),
        html(&job.import_mode),
        status(&job.status, job.hold),
        time(job.created_ms),
        time(job.updated_ms),
        tags(&job.tags),
        job.failure_reason.as_deref().map(html).unwrap_or_default(),
    ])
}

fn fault_rows(store: &Store) -> Vec<String> {
    store.faults.iter().map(|fault| row(&[html(&serde_json::to_string(fault).unwrap_or_default())])).collect()
}

fn request_row(entry: &LedgerEntry) -> String {
    let text = |value: &Option<String>| value.as_deref().map(html).unwrap_or_default();
    let status = if entry.http_status == 0 { "none".to_owned() } else { entry.http_status.to_string() };
    let time = entry.time.get(11..19).map(html).unwrap_or_default();
    row(&[
        time,
        text(&entry.account),
        html(&entry.operation),
        text(&entry.job_name),
        status,
        text(&entry.error_code),
        text(&entry.fault),
    ])
}

fn status(status: &str, held: bool) -> String {
    let class = match status {
        job::ACTIVE => "good",
        job::PENDING | job::IN_PROGRESS => "busy",
        _ => "bad",
    };
    format!("<span class={class}>{}{}</span>", html(status), if held { " (held)" } else { "" })
}

fn tags(tags: &[Tag]) -> String {
    let tags: Vec<String> = tags.iter().map(|tag| format!("{}={}", html(&tag.tag_key), html(&tag.tag_value))).collect();
    tags.join("<br>")
}

fn table(title: &str, columns: &[&str], rows: &[String]) -> String {
    let head: String = columns.iter().map(|name| format!("<th>{name}")).collect();
    let body = if rows.is_empty() { "<tr><td>none".to_owned() } else { rows.concat() };
    format!("<h2>{title}</h2><div><table><tr>{head}{body}</table></div>")
}

/// A row of cells. The cells must be valid HTML.
fn row(cells: &[String]) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{cell}")).collect();
    format!("<tr>{cells}")
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map(|time| time.strftime("%F %T").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{MAX_JOBS, render};
    use crate::{
        Action, Fault, LedgerEntry, Seed, SeedJob,
        store::{Store, ledger::Ledger},
    };

    #[test]
    fn all_external_text_is_escaped() {
        let evil = "<script>'\\\"&";
        let seed = format!(
            r#"{{"accounts": [{{"id": "111122223333"}}],
            "datasets": [{{"arn": "arn:aws:personalize:r:111122223333:dataset/{evil}/Users", "status": "{evil}",
              "schemaArn": "{evil}", "tags": [{{"tagKey": "{evil}", "tagValue": "{evil}"}}]}}]}}"#
        );
        let mut store = Store::new(&Seed::from_yaml(&seed).unwrap(), Ledger::default(), 0).unwrap();
        let job = format!(
            r#"{{"name": "{evil}", "datasetArn": "arn:aws:personalize:{evil}:111122223333:dataset/{evil}/Users",
              "status": "CREATE FAILED", "failureReason": "{evil}", "importMode": "{evil}"}}"#
        );
        store.start_job(&serde_json::from_str(&job).unwrap(), 0).unwrap();
        store.faults.push(Fault::on("<script>", Action::Status("<script>".to_owned())));
        let text = Some("<script>".to_owned());
        store.ledger.record(LedgerEntry {
            error_code: text.clone(),
            operation: "<script>".to_owned(),
            job_name: text,
            ..Default::default()
        });
        let page = render(&store);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.matches("&lt;script&gt;").count() >= 15, "{page}");
        assert!(page.contains("1 accounts, 1 datasets, 1 jobs (0 running, 1 failed)"));
    }

    #[test]
    fn only_the_latest_jobs_are_shown() {
        let dataset = "arn:aws:personalize:eu-west-1:111122223333:dataset/shop/ITEMS";
        let seed = Seed::from_yaml("accounts: [{id: '111122223333'}]").unwrap();
        let mut store = Store::new(&seed, Ledger::default(), 0).unwrap();
        for number in 0..MAX_JOBS + 2 {
            store.start_job(&SeedJob::new(format!("job-{number}."), dataset), 0).unwrap();
        }
        let page = render(&store);
        assert!(page.contains("Jobs, latest 500 of 502") && page.contains("job-501.") && page.contains("job-2."));
        assert!(!page.contains("job-1."), "older jobs are omitted");
    }
}
