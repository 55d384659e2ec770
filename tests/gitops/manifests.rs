//! The manifests that users copy: each in README, docs/, examples/ and gitops/ is taken by the real API
//! server, with strict validation, against the real CRDs of the tools that it is for.

use crate::crds;
use crate::env::{TestEnv, eventually, shared_control_plane, text};
use crate::tool::{checkout, files, output, read};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The API server says no, and is meant to.
const REFUSED: &str = "examples/4-refused.yaml";

/// A YAML text, and where it stands.
struct Found {
    place: String,
    text: String,
}

/// The fenced blocks of a language in a Markdown text, without the fence's indentation.
pub fn blocks(markdown: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (number, line) in markdown.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        match &mut open {
            None if line.trim_start() == format!("```{language}") => open = Some((number + 1, indent, String::new())),
            Some((began, _, text)) if line.trim() == "```" => {
                found.push((*began, std::mem::take(text)));
                open = None;
            }
            Some((_, indent, text)) => {
                text.push_str(line.get(*indent..).unwrap_or_default());
                text.push('\n');
            }
            None => {}
        }
    }
    assert!(open.is_none(), "every fence is closed");
    found
}

fn documentation() -> Vec<PathBuf> {
    let mut all = files(&checkout("docs"), "md");
    all.push(checkout("README.md"));
    all
}

fn all() -> Vec<Found> {
    let relative = |path: &Path| path.strip_prefix(checkout("")).unwrap().display().to_string();
    let mut all = Vec::new();
    for file in documentation() {
        for (line, text) in blocks(&read(&file), "yaml") {
            all.push(Found { place: format!("{}:{line}", relative(&file)), text });
        }
    }
    for file in files(&checkout("examples"), "yaml").into_iter().chain([checkout("gitops/argocd/argocd-cm.yaml")]) {
        all.push(Found { place: relative(&file), text: read(&file) });
    }
    all
}

pub fn documents(text: &str) -> Vec<Value> {
    use serde::Deserialize;
    let documents = serde_yaml::Deserializer::from_str(text);
    documents
        .map(|d| Value::deserialize(d).unwrap_or_else(|e| panic!("{e}\n{text}")))
        .filter(|d| !d.is_null())
        .collect()
}

/// The manifests that are text within something else: in a template of a workflow, or in a script.
fn embedded(found: &[Found]) -> Vec<Found> {
    let here = regex::Regex::new(r"(?s)<<MANIFEST\n(.*?)\nMANIFEST").unwrap();
    let mut all = Vec::new();
    for file in documentation() {
        for (line, text) in blocks(&read(&file), "python") {
            for manifest in here.captures_iter(&text) {
                all.push(Found { place: format!("{}:{line}", file.display()), text: on_a_day(&manifest[1]) });
            }
        }
    }
    for workflow in found.iter().filter(|f| f.text.contains("kind: WorkflowTemplate")) {
        for template in
            documents(&workflow.text).iter().flat_map(|d| d["spec"]["templates"].as_array().cloned()).flatten()
        {
            if let Some(manifest) = template["resource"]["manifest"].as_str() {
                all.push(Found { place: workflow.place.clone(), text: on_a_day(manifest) });
            }
        }
    }
    assert!(all.len() >= 2);
    all
}

/// With the day filled in that a run of a workflow or of a DAG is of.
pub fn on_a_day(text: &str) -> String {
    let text = text.replace("{{workflow.parameters.day}}", "2026-11-24").replace("{{ ds }}", "2026-11-24");
    assert!(!text.contains("{{"), "{text}");
    text
}

/// A block that is no manifest says what it is.
fn is_snippet(text: &str) -> bool {
    text.starts_with("# values")
}

#[test]
fn each_manifest_for_users_is_taken_by_the_api_server() {
    let env = TestEnv::new();
    crds::install();
    let mut all = all();
    all.extend(embedded(&all));
    let mut namespaces = BTreeSet::new();
    for found in &all {
        for document in documents(&found.text) {
            assert!(
                is_snippet(&found.text) || document["kind"].is_string(),
                "{} is a manifest, or begins with `# values`",
                found.place
            );
            namespaces.extend(document["metadata"]["namespace"].as_str().map(str::to_owned));
        }
    }
    for namespace in &namespaces {
        // Another test may have made it.
        let _ = shared_control_plane().kubectl(&["create", "namespace", namespace], None).unwrap();
    }
    let dry_run = |texts: &[&str], within: &[&str]| {
        let args: Vec<&str> =
            within.iter().copied().chain(["apply", "--dry-run=server", "--validate=strict", "-f", "-"]).collect();
        shared_control_plane().kubectl(&args, Some(&texts.join("\n---\n"))).unwrap()
    };
    let refused = all.iter().find(|f| f.place == REFUSED).unwrap();
    let output = dry_run(&[&refused.text], &[]);
    assert!(!output.status.success() && text(&output).contains("datasetArn must be"), "{}", text(&output));
    let manifests = all.iter().filter(|f| !is_snippet(&f.text) && f.place != REFUSED);
    // What names no namespace may be applied in any. All go in few calls: kubectl takes its time to begin.
    let (named, free): (Vec<&Found>, Vec<&Found>) =
        manifests.partition(|f| documents(&f.text).iter().any(|d| d["metadata"]["namespace"].is_string()));
    assert!(named.len() > 8 && free.len() > 4, "{} {}", named.len(), free.len());
    for (found, within) in [(named, vec![]), (free, vec!["-n", &env.namespace])] {
        let texts: Vec<&str> = found.iter().map(|f| f.text.as_str()).collect();
        // Discovery learns of new CRDs a little later than their Established condition.
        let told = eventually("the new kinds are served", || {
            let output = dry_run(&texts, &within);
            let told = text(&output);
            let late = told.contains("no matches for kind") || told.contains("failed to download openapi");
            (!late).then_some((output.status.success(), told))
        });
        let places: Vec<&str> = found.iter().map(|f| f.place.as_str()).collect();
        assert!(told.0 && !told.1.contains("Warning"), "{places:?}: {}", told.1);
    }
}

/// The values of the chart in these documents: a block of them, or what a tool passes to the chart.
fn chart_values(text: &str) -> Vec<Value> {
    let of_operator = |d: &Value| d["metadata"]["name"] == "personalize-operator";
    documents(text)
        .into_iter()
        .filter_map(|document| match document["kind"].as_str() {
            None => Some(document),
            Some("Application") if of_operator(&document) => {
                Some(document["spec"]["source"]["helm"]["valuesObject"].clone())
            }
            Some("HelmRelease") if of_operator(&document) => Some(document["spec"]["values"].clone()),
            Some(_) => None,
        })
        .collect()
}

#[test]
fn values_for_the_chart_are_taken_by_it_and_change_what_it_makes() {
    let chart = checkout("charts/personalize-operator");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let render = |values: &Value| {
        let file = dir.path().join("values.yaml");
        fs::write(&file, values.to_string()).unwrap();
        let args = ["template", "p", chart.to_str().unwrap(), "--values", file.to_str().unwrap()];
        output("helm", &args, "")
    };
    let plain = render(&serde_json::json!({}));
    let mut checked = 0;
    for found in all() {
        for values in chart_values(&found.text) {
            assert!(render(&values) != plain, "{} changes nothing: {values}", found.place);
            checked += 1;
        }
    }
    assert!(checked > 4, "{checked}");
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let link = regex::Regex::new(r"\]\(([^)#]*)(?:#([^)]*))?\)").unwrap();
    let mut broken = Vec::new();
    for file in documentation() {
        for found in link.captures_iter(&read(&file)) {
            if found[1].contains("://") {
                continue;
            }
            let target = if found[1].is_empty() { file.clone() } else { file.parent().unwrap().join(&found[1]) };
            let anchored = |anchor: &str| {
                let heading = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                read(&target).lines().filter(|l| l.starts_with('#')).any(|l| heading(l) == anchor)
            };
            if !target.exists() || found.get(2).is_some_and(|anchor| !anchored(anchor.as_str())) {
                broken.push(format!("{}: {}", file.display(), &found[0]));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn scripts_in_the_documents_parse() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let check = |program: &str, args: &[&str], text: &str, place: &str| {
        let file = dir.path().join("script");
        fs::write(&file, text).unwrap();
        let output = Command::new(program).args(args).arg(&file).output().unwrap();
        assert!(output.status.success(), "{place}: {}", crate::env::text(&output));
    };
    for file in documentation() {
        for (line, text) in blocks(&read(&file), "sh") {
            check("sh", &["-n"], &text, &format!("{}:{line}", file.display()));
        }
        for (line, text) in blocks(&read(&file), "python") {
            let parse = "import ast, sys; ast.parse(open(sys.argv[1]).read())";
            check("python3", &["-c", parse], &text, &format!("{}:{line}", file.display()));
        }
        for (_, text) in blocks(&read(&file), "json") {
            serde_json::from_str::<Value>(&text).unwrap_or_else(|e| panic!("{}: {e}: {text}", file.display()));
        }
    }
}

#[test]
fn what_flux_depends_on_and_reads_from_is_there() {
    let name = |d: &Value| d["metadata"]["name"].as_str().unwrap().to_owned();
    let all: Vec<(String, Value)> =
        all().into_iter().flat_map(|f| documents(&f.text).into_iter().map(move |d| (f.place.clone(), d))).collect();
    // What docs/ shows stands for what examples/ holds.
    let held = |kind: &str| -> BTreeSet<String> {
        let examples = all.iter().filter(|(place, _)| place.starts_with("examples/flux/"));
        examples.filter(|(_, d)| d["kind"] == kind).map(|(_, d)| name(d)).collect()
    };
    let (mut depended, mut read_from) = (0, 0);
    for (place, document) in &all {
        let kind = document["kind"].as_str().unwrap_or_default();
        for wanted in document["spec"]["dependsOn"].as_array().into_iter().flatten() {
            let wanted = wanted["name"].as_str().unwrap();
            assert!(held(kind).contains(wanted), "{place}: no {kind} is named {wanted}, so Flux would wait for ever");
            depended += 1;
        }
        let sources = ["/spec/sourceRef", "/spec/chart/spec/sourceRef"];
        for source in sources.iter().filter_map(|path| document.pointer(path)) {
            let wanted = source["name"].as_str().unwrap();
            // Flux makes this one itself when it is bootstrapped.
            let known = wanted == "flux-system" || held(source["kind"].as_str().unwrap()).contains(wanted);
            assert!(known, "{place}: {source}");
            read_from += 1;
        }
    }
    assert!(depended >= 2 && read_from >= 5, "{depended} {read_from}");
}
