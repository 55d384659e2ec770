//! The image that hack/image writes, compared with the Dockerfile.

use super::helm::{file, of_kind, read, resources};
use crate::env::text;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::Command;

fn json_file(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The content of a blob, after a check of its digest and size.
fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = fs::read(layout.join("blobs/sha256").join(digest)).unwrap();
    let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sum, digest);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

#[test]
fn image_layout_holds_the_binary_and_matches_the_dockerfile() {
    // Any static program serves here. A release build of the operator takes too long.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let source = dir.path().join("fake.c");
    let output = "personalize-operator says --unlisted-namespaces";
    fs::write(&source, format!("#include <stdio.h>\nint main(void) {{ return puts(\"{output}\") < 0; }}\n")).unwrap();
    let binary = dir.path().join("fake");
    let compiled = Command::new("cc").args(["-static", "-o"]).arg(&binary).arg(&source).output().unwrap();
    assert!(compiled.status.success(), "{}", text(&compiled));
    let built = Command::new(file("hack/image")).arg(&binary).arg(dir.path()).output().unwrap();
    assert!(built.status.success(), "{}", text(&built));
    assert!(text(&built).contains(&format!("it starts: {output}")), "{}", text(&built));
    assert!(text(&built).contains("it finds a name"), "{}", text(&built));

    let layout = dir.path().join("image");
    let index = json_file(&layout.join("index.json"));
    let manifest: Value = serde_json::from_slice(&blob(&layout, &index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(&blob(&layout, &manifest["config"])).unwrap();
    blob(&layout, &manifest["layers"][0]);
    // A node looks up the image by the full name in the pod's spec.
    let rendered = resources(&json!({}));
    let name = &of_kind(&rendered, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(&index["manifests"][0]["annotations"]["io.containerd.image.name"], name);
    assert_eq!(&json_file(&layout.join("manifest.json"))[0]["RepoTags"][0], name);
    assert!(name.as_str().unwrap().starts_with("localhost/"), "the name must not lead to a public registry: {name}");
    let listed = Command::new("tar").arg("-tf").arg(dir.path().join("image.tar")).output().unwrap();
    for part in ["oci-layout", "index.json", "manifest.json"] {
        assert!(text(&listed).contains(part), "{}", text(&listed));
    }
    let layer = layout.join("blobs/sha256").join(manifest["layers"][0]["digest"].as_str().unwrap().split_at(7).1);
    let files = text(&Command::new("tar").arg("-tzf").arg(layer).output().unwrap());
    let files: Vec<&str> = files.lines().filter(|line| !line.ends_with('/')).collect();
    assert_eq!(files, ["etc/ssl/certs/ca-certificates.crt", "personalize-operator"]);

    let dockerfile = read("Dockerfile");
    let instruction = |word: &str| {
        let line =
            dockerfile.lines().rev().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("{word}"));
        line.trim().to_owned()
    };
    let list = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(config["config"]["User"], instruction("USER"));
    assert_eq!(config["config"]["Entrypoint"], list(&instruction("ENTRYPOINT")));
    assert_eq!(config["config"]["Cmd"], list(&instruction("CMD")));
    let copied: Vec<&str> =
        dockerfile.lines().filter_map(|l| l.strip_prefix("COPY --from=build ")?.split(' ').nth(1)).collect();
    let mut copied: Vec<&str> = copied.iter().map(|path| path.trim_start_matches('/')).collect();
    copied.sort_unstable();
    assert_eq!(files, copied);
}

#[test]
fn dockerfile_compiles_dependencies_in_their_own_layer_and_needs_no_remote_parser() {
    let dockerfile = read("Dockerfile");
    assert!(!dockerfile.contains("syntax="), "the parser would come by a floating tag");
    let (before, _) = dockerfile.split_once("COPY . .").unwrap();
    assert!(before.contains("cargo build --release --locked"));
    let root: Vec<String> =
        read("Cargo.toml").lines().filter(|l| l.starts_with("members")).map(str::to_owned).collect();
    let (_, members) = root[0].split_once('=').unwrap();
    for member in serde_json::from_str::<Vec<String>>(members).unwrap().iter().filter(|member| *member != ".") {
        assert!(
            before.contains(&format!("COPY {member}/Cargo.toml {member}/\n")),
            "{member}: cargo needs the manifest of every member"
        );
    }
}

#[test]
fn dynamically_linked_binary_is_rejected() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let built = Command::new(file("hack/image")).arg("/bin/true").arg(dir.path()).output().unwrap();
    assert!(!built.status.success(), "/bin/true is linked dynamically: {}", text(&built));
}
