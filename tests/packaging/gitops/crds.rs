//! The real CRDs of the tools in docs and examples, from their Go modules, pinned by checksum.

use super::tool::files;
use crate::env::{eventually, shared_control_plane, text};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

/// A Go module, its version and checksum, and the folder with its CRDs.
const MODULES: [(&str, &str, &str, &str); 6] = [
    ("github.com/argoproj/argo-cd/v3", "v3.3.9", "h1:5etMk6bD18iIiSeRo/5zTsp6Bwn6heoVeHIeA3++SSI=", "manifests/crds"),
    (
        "github.com/argoproj/argo-workflows/v3",
        "v3.7.4",
        "h1:oA/DxaSsjb6fMYaygf7JVQgnsF+ZzlfUPy5kIfLsCic=",
        "manifests/base/crds/full",
    ),
    (
        "github.com/fluxcd/helm-controller",
        "v1.4.3",
        "h1:449LcGJXLCylvrNCq8ycevwa5mxE1Mn9vxTwlsj/no8=",
        "config/crd/bases",
    ),
    (
        "github.com/fluxcd/kustomize-controller",
        "v1.7.3",
        "h1:SzNnGn/4ObAPEHHleM5U7y/AKxKXph3Vj6ZhteeXw8M=",
        "config/crd/bases",
    ),
    (
        "github.com/fluxcd/source-controller",
        "v1.7.3",
        "h1:gFfeBiNUgF0kFFGap/rrMeJqz+0Tod0ARENJO8w/UA8=",
        "config/crd/bases",
    ),
    ("github.com/tektoncd/pipeline", "v1.6.0", "h1:A+D+jzOVl2QNl/yiNT7csVgBUy2wpz6K6+/D4q5lfss=", "config/300-crds"),
];

/// The files that docs and examples need. Others only cost the API server time.
const USED: [&str; 7] = [
    "300-task.yaml",
    "application-crd.yaml",
    "applicationset-crd.yaml",
    "argoproj.io_workflowtemplates.yaml",
    "helm.toolkit.fluxcd.io_helmreleases.yaml",
    "kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    "source.toolkit.fluxcd.io_gitrepositories.yaml",
];

/// The folder of a module, which is downloaded if it is missing.
fn module(name: &str, version: &str, sum: &str) -> PathBuf {
    let output = Command::new("go")
        .args(["mod", "download", "-json", &format!("{name}@{version}")])
        .current_dir(std::env::temp_dir())
        // The checksum is compared below, so no checksum database is needed.
        .envs([("GOFLAGS", "-mod=mod"), ("GONOSUMDB", "*"), ("GOTOOLCHAIN", "local")])
        .output()
        .unwrap_or_else(|e| panic!("go: {e}"));
    let module: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert_eq!(module["Sum"], sum, "{name}: {module}");
    PathBuf::from(module["Dir"].as_str().unwrap())
}

/// Installs the CRDs into the shared control plane, once.
pub fn install() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        let mut args = vec!["apply".to_owned(), "--server-side".to_owned()];
        for (name, version, sum, dir) in MODULES {
            let crds = files(&module(name, version, sum).join(dir), "yaml");
            let used = crds.iter().filter(|f| USED.contains(&f.file_name().unwrap().to_str().unwrap()));
            args.extend(used.map(|file| format!("--filename={}", file.display())));
        }
        assert_eq!(args.len(), 2 + USED.len(), "{args:?}");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let applied = shared_control_plane().kubectl(&args, None).unwrap();
        assert!(applied.status.success(), "{}", text(&applied));
        // kubectl fails for a CRD that has no conditions yet.
        eventually("all CRDs are established", || {
            let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
            shared_control_plane().kubectl(&wait, None).unwrap().status.success().then_some(())
        });
    });
}
