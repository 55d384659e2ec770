//! Runs the real helm, and reads files of the repository.

use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A path in the repository.
pub fn file(path: impl AsRef<Path>) -> PathBuf {
    // Read at run time, because worktrees may share compiled binaries.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join(path)
}

pub fn chart() -> PathBuf {
    file("charts/personalize-operator")
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = file(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Compares a generated file with its expected content. `make generate` updates it.
pub fn compare(path: &str, expected: &str) {
    if std::env::var_os("GENERATE").is_some() {
        fs::write(file(path), expected).unwrap();
    }
    let actual = fs::read_to_string(file(path)).unwrap_or_default();
    assert!(actual == expected, "{path} is out of date: run `make generate` and review the diff");
}

/// Runs helm with its files in `home`.
pub fn helm(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(control_plane::path_of("helm").unwrap());
    command.env("HOME", home).args(args);
    for (variable, dir) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
        command.env(variable, home.join(dir));
    }
    command.output().unwrap()
}

/// Renders a chart with `helm template`. The error is what helm prints.
pub fn render_as(release: &str, namespace: &str, chart: &Path, values: &Value) -> Result<String, String> {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = home.path().join("values.yaml");
    fs::write(&file, values.to_string()).unwrap();
    let (chart, file) = (chart.display().to_string(), file.display().to_string());
    let output = helm(home.path(), &["template", release, &chart, "--namespace", namespace, "--values", &file]);
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

pub fn render_at(chart: &Path, values: &Value) -> Result<String, String> {
    render_as("shop", "personalize", chart, values)
}

pub fn render(values: &Value) -> Result<String, String> {
    render_at(&chart(), values)
}

/// The documents of a YAML stream, without empty ones.
pub fn documents(yaml: &str) -> Vec<Value> {
    let all = serde_yaml::Deserializer::from_str(yaml);
    let all = all.map(|document| Value::deserialize(document).unwrap_or_else(|e| panic!("{e}\n{yaml}")));
    all.filter(|document| !document.is_null()).collect()
}

/// The resources that the chart renders with these values.
pub fn resources(values: &Value) -> Vec<Value> {
    documents(&render(values).unwrap_or_else(|e| panic!("{e}")))
}

pub fn of_kind<'a>(resources: &'a [Value], kind: &str) -> Vec<&'a Value> {
    resources.iter().filter(|resource| resource["kind"] == kind).collect()
}

/// Overlays `more` on `values`, as helm merges values.
pub fn merged(mut values: Value, more: &Value) -> Value {
    match (&mut values, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                let before = into.remove(key).unwrap_or_default();
                into.insert(key.clone(), merged(before, value));
            }
        }
        (values, more) => *values = more.clone(),
    }
    values
}
