//! Generated files match the types. `make generate` writes them.

#![allow(clippy::unwrap_used, reason = "a test may")]

use personalize_operator::api;
use personalize_operator::api::conditions::{Reason, State, StatusPhase};
use personalize_operator::controller::namespace_policy;
use personalize_operator::personalize::ErrorKind;
use personalize_operator::telemetry::metrics::{MAX_DATASET_SERIES, MAX_POOL_SERIES, Metrics, error_labels};
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    // At run time: checkouts may share what they compile.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
}

fn compare(file: &str, expected: &str) {
    let path = root().join(file);
    if std::env::var_os("GENERATE").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let held = fs::read_to_string(&path).unwrap_or_default();
    assert!(held == expected, "{file} does not match the types; run `make generate`");
}

#[test]
fn crd_file_matches_the_types() {
    compare("crds/datasetimportjobs.yaml", &api::crd_yaml().unwrap());
}

#[test]
fn reference_lists_every_field() {
    let crd = serde_json::to_value(api::crd()).unwrap();
    let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut text = String::from("# Resource reference\n\nGenerated from the types by `make generate`.\n");
    for part in ["spec", "status"] {
        let schema = &root["properties"][part];
        let _ = write!(text, "\n## {part}\n\n{}\n\n", paragraphs(schema));
        let rules: Vec<&str> = messages(schema).collect();
        if !rules.is_empty() {
            let _ =
                write!(text, "Rules over several fields, and over what may be edited:\n\n- {}\n\n", rules.join("\n- "));
        }
        text.push_str("| field | type | |\n|---|---|---|\n");
        fields(schema, part, &mut text);
    }
    text.push_str("\n## Annotations\n\nOf a DatasetImportJob:\n\n| annotation | effect |\n|---|---|\n");
    let effects = [
        (
            api::RETRY_REQUESTED_AT,
            "<anything new>",
            "One more attempt after CREATE FAILED; it can't be used together with `spec.jobName`.",
        ),
        (api::RECONCILE_REQUESTED_AT, "<anything new>", "Polls the service now, and retries a rejected import now."),
        (
            api::MAX_DATA_AGE,
            "26h",
            "How old the data of the dataset may get. If this resource made the last successful import into the dataset, and \
             that ended longer ago, the alert `PersonalizeDataOld` fires. Units: `w`, `d`, `h`, `m`; any other value counts as \
             none.",
        ),
        (
            api::SUSPEND,
            "\"true\"",
            "Suspends the import like `spec.suspend`, for tools that must not change what Git tracks.",
        ),
        (api::ADOPT, "\"true\"", "Adopts an existing job with this name and request that the operator did not submit."),
        (
            api::RELEASE_GUARD,
            "<fingerprint>",
            "Releases exactly the data with this fingerprint from `spec.guard` ([guard](preflight.md#guard)).",
        ),
    ];
    for annotation in api::ANNOTATIONS {
        let (_, value, effect) = effects.iter().find(|(name, _, _)| *name == annotation).unwrap();
        let _ = writeln!(text, "| `{annotation}: {value}` | {effect} |");
    }
    let _ = write!(
        text,
        "\nOf a Namespace, where only a cluster administrator can set them ([many teams](recipes/tenancy.md)). Each holds patterns, \
         separated by\ncommas or white space, in which `*` stands for any run of characters:\n\n| annotation | limits |\n|---|---|\n"
    );
    for (annotation, field) in [
        (namespace_policy::ALLOWED_DATASET_ARNS, "datasetArn"),
        (namespace_policy::ALLOWED_ROLE_ARNS, "roleArn"),
        (namespace_policy::ALLOWED_DATA_LOCATIONS, "dataSource.dataLocation"),
    ] {
        let _ = writeln!(text, "| `{annotation}` | `spec.{field}` |");
    }
    let _ = write!(
        text,
        "\nWith `--queue-order=namespaces-in-turn` another one gives the namespace a greater share of the imports in flight:\n\n\
         | annotation | value |\n|---|---|\n| `{}` | an integer from 1 to 100; any other value, or none, counts as 1 |\n",
        namespace_policy::QUEUE_WEIGHT
    );
    let _ = write!(
        text,
        "\nAnother one says under which roles the operator makes the calls of the namespace, at most one for each account\n\
         ([a role for each namespace](recipes/many-accounts.md#a-role-for-each-namespace)):\n\n\
         | annotation | value |\n|---|---|\n| `{}` | ARNs of roles, separated by commas or white space |\n",
        namespace_policy::ASSUME_ROLE_ARN
    );
    compare("docs/reference.md", &text);
}

/// The description in Markdown.
fn paragraphs(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

/// The same, for a cell of a table.
fn prose(schema: &Value) -> String {
    paragraphs(schema).replace("\n\n", " ").replace('|', "\\|")
}

/// The messages of the CEL rules of a schema.
fn messages(schema: &Value) -> impl Iterator<Item = &str> {
    schema["x-kubernetes-validations"].as_array().into_iter().flatten().filter_map(|rule| rule["message"].as_str())
}

fn fields(schema: &Value, path: &str, text: &mut String) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let items = &field["items"];
        let kind = match field["type"].as_str().unwrap_or("any") {
            "array" => format!("list of {}", items["type"].as_str().unwrap_or("any")),
            other => other.to_owned(),
        };
        let mut notes = prose(field);
        if required.contains(&Value::from(name.as_str())) {
            notes.insert_str(0, "**Required.** ");
        }
        for (key, label) in [
            ("default", "Default"),
            ("enum", "One of"),
            ("minLength", "Shortest"),
            ("maxLength", "Longest"),
            ("minimum", "At least"),
            ("maximum", "At most"),
            ("maxItems", "Maximum number of items"),
            ("pattern", "Pattern"),
        ] {
            if !field[key].is_null() {
                let _ = write!(notes, " {label}: `{}`.", plain(&field[key]).replace('|', "\\|"));
            }
        }
        for message in messages(field) {
            let _ = write!(notes, " Rule: {}.", message.replace('|', "\\|"));
        }
        let full = format!("{path}.{name}");
        let _ = writeln!(text, "| `{full}` | {kind} | {notes} |");
        fields(field, &full, text);
        if items.is_object() {
            fields(items, &format!("{full}[]"), text);
        }
    }
}

/// A value without quotes, and a bound without decimals.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join("`, `"),
        Value::Number(number) => number.to_string().trim_end_matches(".0").to_owned(),
        other => other.to_string(),
    }
}

/// The events that are no reason of a condition.
const EVENTS: [(&str, &str, &str); 7] = [
    ("Submitted", "Normal", "the service has accepted the job; also if its response was lost"),
    ("Adopted", "Normal", "an existing job belongs to the resource, and none was submitted"),
    ("DataInvalid", "Warning", "the data breaks a rule, and the import is submitted all the same"),
    ("DataChanged", "Warning", "the data was replaced while its import was submitted"),
    (
        "DataDeletionsUnchecked",
        "Warning",
        "the data deletion jobs can't be listed, so imports do not wait for them; once for each account and region",
    ),
    ("AccountsActive", "Normal", "the content of the ConfigMap is active"),
    (
        "AccountsRefused",
        "Warning",
        "the content of the ConfigMap is invalid, and the earlier configuration stays active",
    ),
];

#[test]
fn states_page_matches_the_code() {
    let mut text = String::from(
        "# States and reasons\n\nGenerated from the code by `make generate`. The reason is the same on all four conditions.\n\n\
         | state | Ready | Succeeded | Reconciling | Stalled | Argo CD |\n|---|---|---|---|---|---|\n\
         | not yet seen (`observedGeneration: -1`) | | | | | Progressing |\n\
         | in progress | Unknown | Unknown | True | False | Progressing |\n\
         | succeeded | True | True | False | False | Healthy |\n\
         | failed | False | False | False | True | Degraded |\n\
         | suspended | Unknown | Unknown | False | False | Suspended |\n\n\
         `status.status`, `status.failureReason` and `status.completionTime` speak of jobs. If the service, or a namespace, rejects an\n\
         import before it has a job, the import is failed without them: the reason and the message say why. After a failed job\n\
         `failureReason` stays while another attempt is rejected, and `completionTime` is absent until that attempt ends.\n\n\
         A resource whose import has succeeded has a fifth condition, `DataCurrent`. It is `True` (`NewestImport`) until a newer FULL\n\
         import into the dataset succeeds, then `False` (`SupersededBy`), and `Unknown` (`NotChecked`) if the dataset can't be checked\n\
         ([ADR 14](adr/0014-data-current.md)).\n\n\
         A resource whose data was to be checked has the condition `DataChecked`: `True` (`DataValid`), `False` (`DataInvalid`), or\n\
         `Unknown` (`NotChecked`) if the data could not be read, (`DataChanged`) if it was replaced while the import was submitted\n\
         ([checking data](preflight.md)).\n\n\
         `status.phase` says it in one word. `status.phase`, `status.reason` and `status.message` repeat the condition `Ready` for\n\
         tools that can't select a condition ([recipes](recipes/pipelines.md)). The operator writes them with the conditions, corrects\n\
         them, and never decides by them. A status of an older version gets them with its next change, so an import that had already\n\
         ended has none.\n\n\
         | phase | meaning |\n|---|---|\n",
    );
    for phase in StatusPhase::ALL {
        let _ = writeln!(text, "| `{}` | {} |", phase.as_str(), phase.describe());
    }
    text.push_str("\n| reason | state | phase | meaning |\n|---|---|---|---|\n");
    for reason in Reason::ALL {
        let state = match reason.state() {
            State::InProgress => "in progress",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Suspended => "suspended",
        };
        let (reason, phase, meaning) = (reason.as_str(), reason.phase().as_str(), reason.describe());
        let _ = writeln!(text, "| `{reason}` | {state} | `{phase}` | {meaning} |");
    }
    text.push_str(
        "\n## Events\n\nOf a DatasetImportJob, and of the ConfigMap of accounts (`--accounts-config-map`):\n\n\
         | reason | type | when |\n|---|---|---|\n",
    );
    for (reason, kind, when) in EVENTS {
        let _ = writeln!(text, "| `{reason}` | {kind} | {when} |");
    }
    text.push_str(
        "| each reason above | Normal; Warning if the state is failed, and for `Retrying`, `Throttled`, `ServiceUnavailable`, \
         `CredentialsRefused`, a poll that fails, and a create without a usable answer | the reason or the message of `Ready` changes. \
         `Submitting` and `Pending` at first, and the expected start of a job, have none; another cause of `Queued` or \
         `DatasetNotReady` has one only after a refused create |\n\n\
         For each of `Throttled`, `ServiceUnavailable` and `CredentialsRefused`, one resource of a namespace, account and region gets an\n\
         event in 10 minutes: the first one. The status of each resource says the same.\n",
    );
    let code = source(&root().join("src/controller"));
    for (reason, ..) in EVENTS {
        assert!(code.contains(&format!("\"{reason}\"")), "{reason} is an event");
    }
    compare("docs/states.md", &text);
}

#[test]
fn metrics_page_matches_the_registry() {
    let mut text = format!(
        "# Metrics\n\nGenerated from the registry by `make generate`. `/metrics` serves OpenMetrics to a scraper that requests it, as\n\
         Prometheus does, and the Prometheus text format to all others.\n\n\
         Only the leader exposes `personalize_operator_resources`, `…_imports_in_flight`, `…_imports_queued`,\n\
         `…_oldest_queued_seconds`, `…_poll_overdue_seconds`, `…_last_success_timestamp_seconds` and `…_max_data_age_seconds`, so\n\
         sums over replicas are correct. Apart from account, region, and group and type of a dataset, no label holds text from\n\
         resources. At most {MAX_POOL_SERIES} accounts and regions have series; the rest is summed under `other`. A metric by\n\
         dataset has at most {MAX_DATASET_SERIES} series, those with a maximum age first; `other` is the one of the rest that is due\n\
         first, or else the oldest. [runbooks.md](runbooks.md) explains the alerts on these metrics.\n\n\
         A run of 30 imports into 12 datasets, two of which fail (`hack/plot` draws it; the Grafana dashboard in\n\
         `charts/personalize-operator/files/dashboard.json` shows more):\n\n\
         ![In flight, queued, ended, waiting time and calls during a run](metrics.svg)\n\n\
         | metric | type | labels | description |\n|---|---|---|---|\n"
    );
    for d in Metrics::default().descriptions() {
        let labels = d.labels.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "| `{}` | {} | {labels} | {} |", d.name, d.kind, d.help);
    }
    text.push_str(
        "\n## Values of `error`\n\nOf `personalize_operator_errors_total`:\n\n| value | meaning |\n|---|---|\n",
    );
    for (error, meaning) in error_labels() {
        let _ = writeln!(text, "| `{error}` | {meaning} |");
    }
    text.push_str(
        "\n## Values of `code`\n\nOf `personalize_operator_api_requests_total` and `…_api_requests_unsent_total`. Errors of S3 get the\n\
         kind with the same meaning; an object that changes while it is read counts as `InDoubt`. The log has the kind in `kind`.\n\n\
         | value | meaning |\n|---|---|\n| `OK` | The call succeeded. |\n",
    );
    for kind in ErrorKind::ALL {
        let _ = writeln!(text, "| `{}` | {} |", kind.label(), kind.describe());
    }
    compare("docs/metrics.md", &text);
}

/// The Rust files under a directory, with runs of white space as one space.
fn source(dir: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&source(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn preflight_page_lists_every_rule_of_the_check() {
    let docs = fs::read_to_string(root().join("docs/preflight.md")).unwrap();
    let (_, table) = docs.split_once("| rule | broken if |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let rules = table.lines().filter_map(|line| line.split(" | ").next());
    let mut listed: Vec<String> = rules.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(String::from).collect();
    let code = source(&root().join("src/preflight")).replace("new( ", "new(").replace("Self::new(", "Finding::new(");
    let found = code.split("Finding::new(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let mut rules: Vec<String> = found.map(String::from).collect();
    listed.sort();
    rules.sort();
    rules.dedup();
    assert_eq!(listed, rules);
}

#[test]
fn troubleshooting_lists_every_reason_and_only_messages_of_the_operator() {
    let docs = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let code = source(&root().join("src"));
    let (_, section) = docs.split_once("## What the operator says").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows: Vec<Vec<&str>> =
        section.lines().filter(|l| l.starts_with("| `")).map(|l| l.split(" | ").collect()).collect();
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(String::from).collect::<Vec<_>>();
    let reasons: Vec<String> = rows.iter().flat_map(|row| quoted(row[0])).collect();
    for reason in Reason::ALL.iter().map(|r| r.as_str()).filter(|r| *r != "ImportSucceeded") {
        assert!(reasons.iter().any(|r| r == reason), "{reason} has a row");
    }
    for reason in &reasons {
        assert!(Reason::ALL.iter().any(|r| r.as_str() == reason), "{reason} is a reason");
    }
    let messages = |heading: &str, column: usize| {
        let (_, section) = docs.split_once(heading).unwrap();
        let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
        let (table, _) = section.split_once("|\n\n").unwrap_or((section, ""));
        let rows = table.lines().filter(|l| l.starts_with("| `")).map(|l| l.split(" | ").nth(column).unwrap());
        rows.flat_map(quoted).filter(|message| !message.starts_with('/')).collect::<Vec<_>>()
    };
    let said = messages("## What the operator says", 1);
    let conditions = messages("## What the conditions DataChecked and DataCurrent say", 1);
    let logged = messages("## What the operator's endpoints and log say", 0);
    for message in [said, conditions, logged].into_iter().flatten() {
        // The service's own words follow after a colon.
        let (own, _) = message.split_once(": ").unwrap_or((&message, ""));
        for part in own.split('…').map(str::trim) {
            assert!(code.contains(part), "the operator does not say {part:?} of {message:?}");
        }
    }
}
