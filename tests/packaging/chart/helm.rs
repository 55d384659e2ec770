//! The real helm, and the files of the chart.

use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A file of this checkout.
pub fn file(path: &str) -> PathBuf {
    // At run time: checkouts may share what they compile.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join(path)
}

pub fn chart() -> PathBuf {
    file("charts/personalize-operator")
}

pub fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Compares a file with what it should be; `make generate` mends it.
pub fn compare(path: &str, expected: &str) {
    if std::env::var_os("GENERATE").is_some() {
        fs::write(file(path), expected).unwrap();
    }
    let held = fs::read_to_string(file(path)).unwrap_or_default();
    assert!(held == expected, "{path} is not what is made now; run `make generate` and look at the difference");
}

/// A helm that keeps its files in `home`.
pub fn helm(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(control_plane::path_of("helm").unwrap());
    command.env("HOME", home).args(args);
    for (variable, dir) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
        command.env(variable, home.join(dir));
    }
    command.output().unwrap()
}

/// What a chart renders as this release, in this namespace, with these values, or what helm says against it.
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

/// The resources in a stream of YAML documents.
pub fn documents(yaml: &str) -> Vec<Value> {
    let all = serde_yaml::Deserializer::from_str(yaml).map(|document| Value::deserialize(document).unwrap());
    all.filter(|document| !document.is_null()).collect()
}

/// The resources that the chart makes with these values.
pub fn resources(values: &Value) -> Vec<Value> {
    documents(&render(values).unwrap_or_else(|e| panic!("{e}")))
}

pub fn of_kind<'a>(resources: &'a [Value], kind: &str) -> Vec<&'a Value> {
    resources.iter().filter(|resource| resource["kind"] == kind).collect()
}

/// These values with others over them, as helm merges them.
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
