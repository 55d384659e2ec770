//! The manifests that users copy from README, docs/, examples/ and gitops/. The real API server validates them strictly,
//! with the real CRDs of their tools.

use super::crds;
use super::tool::files;
use crate::chart::helm::{documents, file, read, render};
use crate::env::{TestEnv, eventually, shared_control_plane, text};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The example that the API server rejects.
const REJECTED: &str = "examples/4-refused.yaml";

/// A YAML text and its place.
struct Found {
    place: String,
    text: String,
}

/// The fenced blocks of a language in a Markdown text and their lines, without the indentation of the fence.
pub fn blocks(markdown: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (number, line) in markdown.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        match &mut open {
            None if line.trim_start() == format!("```{language}") => open = Some((number + 1, indent, String::new())),
            Some((start, _, text)) if line.trim() == "```" => {
                found.push((*start, std::mem::take(text)));
                open = None;
            }
            Some((_, indent, text)) => {
                text.push_str(line.get(*indent..).unwrap_or_default());
                text.push('\n');
            }
            None => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    found
}

fn documentation() -> Vec<PathBuf> {
    let mut all = files(&file("docs"), "md");
    all.push(file("README.md"));
    all
}

fn all() -> Vec<Found> {
    let relative = |path: &Path| path.strip_prefix(file("")).unwrap().display().to_string();
    let mut all = Vec::new();
    for file in documentation() {
        for (line, text) in blocks(&read(&file), "yaml") {
            all.push(Found { place: format!("{}:{line}", relative(&file)), text });
        }
    }
    for file in files(&file("examples"), "yaml").into_iter().chain([file("gitops/argocd/argocd-cm.yaml")]) {
        all.push(Found { place: relative(&file), text: read(&file) });
    }
    all
}

/// The manifests within scripts and within templates of workflows.
fn embedded(found: &[Found]) -> Vec<Found> {
    let heredoc = regex::Regex::new(r"(?s)<<MANIFEST\n(.*?)\nMANIFEST").unwrap();
    let mut all = Vec::new();
    for file in documentation() {
        for (line, text) in blocks(&read(&file), "python") {
            for manifest in heredoc.captures_iter(&text) {
                all.push(Found { place: format!("{}:{line}", file.display()), text: on_a_day(&manifest[1]) });
            }
        }
    }
    for (place, script) in found.iter().flat_map(|f| task_scripts(&f.text).into_iter().map(|script| (&f.place, script)))
    {
        for manifest in heredoc.captures_iter(&script) {
            all.push(Found { place: place.clone(), text: on_a_day(&manifest[1]) });
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
    assert!(all.len() >= 3);
    all
}

/// The scripts of the Tekton Tasks in these documents.
pub fn task_scripts(text: &str) -> Vec<String> {
    let tasks = documents(text).into_iter().filter(|document| document["kind"] == "Task");
    let steps = tasks.flat_map(|task| task["spec"]["steps"].as_array().cloned().unwrap_or_default());
    steps.filter_map(|step| step["script"].as_str().map(str::to_owned)).collect()
}

/// Fills in the date of a workflow, task or DAG run.
pub fn on_a_day(text: &str) -> String {
    let text = ["{{workflow.parameters.day}}", "$(params.day)", "{{ ds }}"]
        .iter()
        .fold(text.to_owned(), |text, day| text.replace(day, "2026-11-24"));
    assert!(!text.contains("{{"), "{text}");
    text
}

/// Whether a block is a snippet of chart values, not a manifest.
fn is_snippet(text: &str) -> bool {
    text.starts_with("# values")
}

#[test]
fn every_manifest_for_users_is_accepted_by_the_api_server() {
    let env = TestEnv::new();
    crds::install();
    let mut all = all();
    all.extend(embedded(&all));
    let mut namespaces = BTreeSet::new();
    for found in &all {
        for document in documents(&found.text) {
            assert!(
                is_snippet(&found.text) || document["kind"].is_string(),
                "{} must be a manifest or begin with `# values`",
                found.place
            );
            namespaces.extend(document["metadata"]["namespace"].as_str().map(str::to_owned));
        }
    }
    for namespace in &namespaces {
        // It may exist already.
        let _ = shared_control_plane().kubectl(&["create", "namespace", namespace], None).unwrap();
    }
    let dry_run = |texts: &[&str], within: &[&str]| {
        let args: Vec<&str> =
            within.iter().copied().chain(["apply", "--dry-run=server", "--validate=strict", "-f", "-"]).collect();
        shared_control_plane().kubectl(&args, Some(&texts.join("\n---\n"))).unwrap()
    };
    let rejected = all.iter().find(|f| f.place == REJECTED).unwrap();
    let output = dry_run(&[&rejected.text], &[]);
    assert!(!output.status.success() && text(&output).contains("datasetArn must be"), "{}", text(&output));
    let manifests = all.iter().filter(|f| !is_snippet(&f.text) && f.place != REJECTED);
    // Manifests without a namespace go into that of the test. Few calls suffice, because kubectl starts slowly.
    let (namespaced, free): (Vec<&Found>, Vec<&Found>) =
        manifests.partition(|f| documents(&f.text).iter().any(|d| d["metadata"]["namespace"].is_string()));
    assert!(namespaced.len() > 8 && free.len() > 4, "{} {}", namespaced.len(), free.len());
    for (found, within) in [(namespaced, vec![]), (free, vec!["-n", &env.namespace])] {
        let texts: Vec<&str> = found.iter().map(|f| f.text.as_str()).collect();
        // Discovery lists new CRDs a little after their Established condition.
        let (success, printed) = eventually("the API server serves the new kinds", || {
            let output = dry_run(&texts, &within);
            let printed = text(&output);
            let early = printed.contains("no matches for kind") || printed.contains("failed to download openapi");
            (!early).then_some((output.status.success(), printed))
        });
        let places: Vec<&str> = found.iter().map(|f| f.place.as_str()).collect();
        assert!(success && !printed.contains("Warning"), "{places:?}: {printed}");
    }
}

/// The chart values in these documents: a snippet of values, or the values of an Application or a HelmRelease.
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
fn documented_chart_values_are_valid_and_change_the_rendered_chart() {
    let default = render(&serde_json::json!({}));
    let mut checked = 0;
    for found in all() {
        for values in chart_values(&found.text) {
            let rendered = render(&values);
            assert!(rendered.is_ok() && rendered != default, "{}: {values}: {rendered:?}", found.place);
            checked += 1;
        }
    }
    assert!(checked > 4, "{checked}");
}

#[test]
fn scripts_in_documents_parse() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let check = |program: &str, args: &[&str], content: &str, place: &str| {
        let script = dir.path().join("script");
        fs::write(&script, content).unwrap();
        let output = Command::new(program).args(args).arg(&script).output().unwrap();
        assert!(output.status.success(), "{place}: {}", text(&output));
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
fn dependencies_and_sources_in_the_flux_examples_exist() {
    let name = |d: &Value| d["metadata"]["name"].as_str().unwrap().to_owned();
    let all: Vec<(String, Value)> =
        all().into_iter().flat_map(|f| documents(&f.text).into_iter().map(move |d| (f.place.clone(), d))).collect();
    // Manifests in docs/ may refer to those in examples/.
    let example = |kind: &str| -> BTreeSet<String> {
        let examples = all.iter().filter(|(place, _)| place.starts_with("examples/flux/"));
        examples.filter(|(_, d)| d["kind"] == kind).map(|(_, d)| name(d)).collect()
    };
    let (mut depended, mut read_from) = (0, 0);
    for (place, document) in &all {
        let kind = document["kind"].as_str().unwrap_or_default();
        for wanted in document["spec"]["dependsOn"].as_array().into_iter().flatten() {
            let wanted = wanted["name"].as_str().unwrap();
            assert!(example(kind).contains(wanted), "{place}: there is no {kind} {wanted}, so Flux would wait forever");
            depended += 1;
        }
        let sources = ["/spec/sourceRef", "/spec/chart/spec/sourceRef"];
        for source in sources.iter().filter_map(|path| document.pointer(path)) {
            let wanted = source["name"].as_str().unwrap();
            // The bootstrap of Flux creates this source.
            let known = wanted == "flux-system" || example(source["kind"].as_str().unwrap()).contains(wanted);
            assert!(known, "{place}: {source}");
            read_from += 1;
        }
    }
    assert!(depended >= 2 && read_from >= 5, "{depended} {read_from}");
}
