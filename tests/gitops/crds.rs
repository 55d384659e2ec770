//! The CRDs of the tools that docs and examples speak of: the real ones, from the tools' own Go modules,
//! pinned by their checksums.

use crate::env::{shared_control_plane, text};
use crate::tool::files;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

/// A Go module, its version and checksum, and where it keeps its CRDs.
const MODULES: [(&str, &str, &str, &str); 5] = [
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
];

/// Kinds in these modules that nothing here speaks of take the API server's time.
const USED: [&str; 6] = [
    "application-crd.yaml",
    "applicationset-crd.yaml",
    "argoproj.io_workflowtemplates.yaml",
    "helm.toolkit.fluxcd.io_helmreleases.yaml",
    "kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    "source.toolkit.fluxcd.io_gitrepositories.yaml",
];

/// Where a module is on this machine; it is downloaded if it isn't yet.
fn module(name: &str, version: &str, sum: &str) -> PathBuf {
    let output = Command::new("go")
        .args(["mod", "download", "-json", &format!("{name}@{version}")])
        .current_dir(std::env::temp_dir())
        // The checksum is compared here, so no database needs to be asked for it.
        .envs([("GOFLAGS", "-mod=mod"), ("GONOSUMDB", "*"), ("GOTOOLCHAIN", "local")])
        .output()
        .unwrap_or_else(|e| panic!("go: {e}"));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert_eq!(told["Sum"], sum, "{name}: {told}");
    PathBuf::from(told["Dir"].as_str().unwrap())
}

/// Installs them into the shared control plane, once.
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
        let wait = shared_control_plane()
            .kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"], None)
            .unwrap();
        assert!(wait.status.success(), "{}", text(&wait));
    });
}
