//! Third-party clients: boto3 and the AWS CLI, with the moto server as an STS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod env;
mod python;

use std::{
    collections::HashSet,
    fs::{self, File},
    process::Command,
};

use aws_config::{BehaviorVersion, Region, sts::AssumeRoleProvider};
use aws_sdk_personalize::config::Credentials;
use control_plane::ChildGuard;
use env::TestEnv;
use personalize_local::{LedgerEntry, Seed, Service, Throttle};

/// Runs a script in `tests/clients` against a stand-in. On success it prints one line.
async fn run(script: &'static str, env: &TestEnv) {
    run_against(script, vec![env.service.url()]).await;
}

async fn run_against(script: &'static str, urls: Vec<String>) {
    let printed = tokio::task::spawn_blocking(move || {
        let path = python::crate_path("tests/clients").join(script);
        // -B: write no .pyc files into the checkout.
        python::run(Command::new(python::bin_dir().join("python")).arg("-B").arg(path).args(urls))
    });
    let printed = printed.await.unwrap();
    assert!(printed.lines().count() == 1, "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_covers_every_operation_and_error() {
    let env = env::start().await;
    run("boto3_client.py", &env).await;
    assert_eq!(env::uncovered(&env.service), Vec::<String>::new());
    let lines = fs::read_to_string(env.dir.path().join("ledger.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), env.service.ledger().len(), "file and library have the same entries");
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_cli_covers_every_operation_and_error() {
    let env = env::start().await;
    run("aws_cli.py", &env).await;
    assert_eq!(env::uncovered(&env.service), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_boto3_and_aws_cli_retry_until_they_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let with = async |per_second, burst| {
        let mut config = env::config(dir.path());
        config.seed.throttle = Some(Throttle { per_second, burst, code: "ThrottlingException".to_owned() });
        Service::start(config).await.unwrap()
    };
    // The rate is so low that no fourth token appears during the test.
    let (three_requests, slow) = (with(0.000_01, 3.0).await, with(0.3, 1.0).await);
    run_against("throttled.py", vec![three_requests.url(), slow.url()]).await;
    let throttled =
        |entry: &LedgerEntry| entry.error_code.as_deref() == Some("ThrottlingException") && entry.fault.is_none();
    for service in [three_requests, slow] {
        let regions: HashSet<_> = service.ledger().into_iter().filter(throttled).map(|entry| entry.region).collect();
        assert_eq!(regions.len(), 2, "boto3 and the CLI use one region each, and both were throttled");
    }
}

/// Runs the shell commands of the README with the compiled program, a free port and a temporary directory.
#[tokio::test(flavor = "multi_thread")]
async fn readme_commands_complete_an_import() {
    let dir = tempfile::tempdir().unwrap();
    let readme = fs::read_to_string(python::crate_path("README.md")).unwrap();
    let commands = readme.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(commands.lines().count(), 5, "{commands}");
    // Use a port below the ephemeral range, so that no other process gets it before the program does.
    let mut ports = (20_000 + std::process::id() % 10_000..30_000).map(|port| format!("127.0.0.1:{port}"));
    let free = ports.find(|port| std::net::TcpListener::bind(port).is_ok()).unwrap();
    let python = python::bin_dir().join("python -B").display().to_string();
    let mut script = commands.to_owned();
    for (original, replacement) in [
        ("cargo run -p personalize-local --", env!("CARGO_BIN_EXE_personalize-local")),
        ("/tmp/s3", &dir.path().join("s3").display().to_string()),
        ("127.0.0.1:8686", &free),
        ("python3", &python),
    ] {
        assert!(script.contains(original), "{original} is not in\n{commands}");
        script = script.replace(original, replacement);
    }
    let root = python::crate_path("../..");
    let run = move || {
        // The trap stops the stand-in on any exit. Without curl, a Python one-liner replaces it.
        let fetch =
            format!("{python} -c 'import sys, urllib.request as u; u.urlopen(sys.argv[-1])' \"$@\" 2> /dev/null");
        let curl = format!("command -v curl > /dev/null || curl() {{ {fetch}; }}");
        let script = format!("set -e; trap 'kill %1' EXIT; {curl}\n{script}");
        let mut bash = Command::new("timeout");
        python::run(bash.args(["300", "bash", "-c", &script]).current_dir(root).env_remove("AWS_PROFILE"))
    };
    let printed = tokio::task::spawn_blocking(run).await.unwrap();
    let mut lines = printed.lines().map(str::trim);
    assert_eq!(lines.next(), Some(format!("listening on http://{free}").as_str()), "{printed}");
    assert_eq!(lines.next_back(), Some("ACTIVE"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn example_script_shows_every_status_until_active() {
    let dir = tempfile::tempdir().unwrap();
    env::write_data(dir.path());
    let bucket = dir.path().join("data/bucket");
    fs::rename(bucket.join("interactions.csv"), bucket.join("i.csv")).unwrap();
    let mut config = env::config(dir.path());
    config.seed = Seed::from_yaml(include_str!("../example.yaml")).unwrap();
    let service = Service::start(config).await.unwrap();
    let url = service.url();
    let run = move || {
        let mut python = Command::new(python::bin_dir().join("python"));
        python.arg("-B").arg(python::crate_path("example.py"));
        python.env("AWS_ENDPOINT_URL_PERSONALIZE", url).env("AWS_DEFAULT_REGION", "eu-west-1");
        python.env("AWS_ACCESS_KEY_ID", "AKIALOCAL").env("AWS_SECRET_ACCESS_KEY", "local-secret");
        python::run(&mut python)
    };
    let printed = tokio::task::spawn_blocking(run).await.unwrap();
    let statuses: Vec<_> = printed.lines().map(str::trim).collect();
    // A slow machine may skip some of them.
    let order = ["CREATE PENDING", "CREATE IN_PROGRESS", "ACTIVE"];
    assert!(statuses.is_sorted_by_key(|status| order.iter().position(|known| known == status)), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&"ACTIVE"));
}

/// The datasets that the AWS SDK for Rust lists after it has assumed a role in another account.
async fn datasets_of_assumed_role(service: &Service) -> Vec<String> {
    let keys = Credentials::new("AKIALOCAL", "local-secret", None, None, "test");
    let region = Region::new("eu-west-1");
    let settings = || aws_config::defaults(BehaviorVersion::latest()).region(region.clone());
    let source =
        settings().credentials_provider(keys).endpoint_url(format!("{}/_local/sts", service.url())).load().await;
    let role = AssumeRoleProvider::builder("arn:aws:iam::444455556666:role/importer").session_name("rust");
    let role = role.region(region.clone()).configure(&source).build().await;
    let assumed = settings().credentials_provider(role).endpoint_url(service.url()).load().await;
    let response = aws_sdk_personalize::Client::new(&assumed).list_datasets().send().await.unwrap();
    response.datasets.unwrap().into_iter().map(|dataset| dataset.dataset_arn.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sts_credentials_authenticate_as_their_account() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("moto.log");
    let arguments = ["-H", "127.0.0.1", "-p", "0"].map(str::to_owned);
    let _moto = ChildGuard::spawn(&python::bin_dir().join("moto_server"), &arguments, |command| {
        command.env("PYTHONUNBUFFERED", "1").stdout(File::create(&log).unwrap());
        command.stderr(File::options().append(true).open(&log).unwrap());
    });
    let url = env::eventually("moto listens", || {
        let output = fs::read_to_string(&log).ok()?;
        let (_, rest) = output.split_once("Running on ")?;
        rest.split_once('\n').map(|(url, _)| url.trim().to_owned())
    })
    .await;
    let mut config = env::config(dir.path());
    config.sts = Some(url.parse().unwrap());
    config.state = Some(dir.path().join("state.json"));
    env::write_data(dir.path());
    let env = TestEnv { service: Service::start(config.clone()).await.unwrap(), dir };
    run("sts.py", &env).await;
    assert_eq!(datasets_of_assumed_role(&env.service).await, [env::DATASET.replace("111122223333", "444455556666")]);
    env.service.stop().await;
    let state = fs::read_to_string(config.state.as_ref().unwrap()).unwrap();
    assert!(state.contains("assumed-role/importer/night"), "the state file has the sessions");
    Service::start(config).await.unwrap();
}
