//! The read-only page at `/_local/`: accounts, datasets and jobs at a glance.

use jiff::Timestamp;

use crate::world::World;

/// Most characters of a failureReason on the page.
const REASON: usize = 200;

/// The page as HTML.
pub(crate) fn render(world: &World) -> String {
    let accounts: Vec<String> = world
        .accounts
        .iter()
        .map(|id| {
            let of = |job: &&crate::Job| job.account == *id;
            let running = world.jobs.iter().filter(of).filter(|job| job.is_running()).count();
            row(&[id, &running.to_string(), &world.jobs.iter().filter(of).count().to_string()])
        })
        .collect();
    let datasets: Vec<String> = world
        .datasets
        .iter()
        .map(|dataset| row(&[&dataset.arn, &dataset.kind, &dataset.status, &dataset.schema_arn]))
        .collect();
    let jobs: Vec<String> = world
        .jobs
        .iter()
        .rev()
        .map(|job| {
            let status = if job.hold { format!("{} (held)", job.status) } else { job.status.clone() };
            let reason: String = job.failure_reason.iter().flat_map(|reason| reason.chars()).take(REASON).collect();
            let place = format!("{} {}", job.account, job.region);
            let dataset = job.dataset_arn.rsplit_once(":dataset/").map_or("", |(_, name)| name);
            row(&[&job.name, &place, dataset, &status, &time(job.created_ms), &time(job.updated_ms), &reason])
        })
        .collect();
    let faults: Vec<String> =
        world.faults.iter().map(|fault| row(&[&serde_json::to_string(fault).unwrap_or_default()])).collect();
    let tables = [
        table("Accounts", &["account", "running", "jobs"], &accounts),
        table("Datasets", &["ARN", "type", "status", "schema"], &datasets),
        table("Jobs", &["name", "where", "dataset", "status", "created", "updated", "failureReason"], &jobs),
        table("Faults to come", &["fault"], &faults),
    ];
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=2>\
         <title>personalize-local</title><style>body{{font:15px/1.5 system-ui;margin:2rem;color:#222}}\
         table{{border-collapse:collapse}}td,th{{text-align:left;padding:.2rem .9rem .2rem 0;\
         border-bottom:1px solid #ddd;overflow-wrap:anywhere}}</style>\
         <h1>personalize-local</h1><p>{} requests since the start.</p>{}</html>",
        world.requests,
        tables.concat()
    )
}

fn table(title: &str, columns: &[&str], rows: &[String]) -> String {
    let head: String = columns.iter().map(|name| format!("<th>{name}")).collect();
    let body = if rows.is_empty() { "<tr><td>none".to_owned() } else { rows.concat() };
    format!("<h2>{title}</h2><table><tr>{head}{body}</table>")
}

fn row(cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{}", escape(cell))).collect();
    format!("<tr>{cells}")
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map(|time| time.strftime("%F %T").to_string()).unwrap_or_default()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_a_client_sent_is_not_markup() {
        assert_eq!(escape("<b>&\""), "&lt;b&gt;&amp;&quot;");
    }
}
