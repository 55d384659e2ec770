//! Clients that nobody here wrote: boto3 and the AWS CLI, in an environment of their own, and moto's server as an STS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod bed;
mod python;

use std::{
    collections::HashSet,
    fs::{self, File},
    process::Command,
};

use aws_config::{BehaviorVersion, Region, sts::AssumeRoleProvider};
use aws_sdk_personalize::config::Credentials;
use bed::Bed;
use control_plane::ChildGuard;
use personalize_local::{Entry, Seed, Service, Throttle};

/// Runs one of the scripts beside `judge.py` against a stand-in; it ends with a line that says so.
async fn run(script: &'static str, bed: &Bed) {
    run_against(script, vec![bed.service.url()]).await;
}

async fn run_against(script: &'static str, urls: Vec<String>) {
    let printed = tokio::task::spawn_blocking(move || {
        let path = python::own("tests/clients").join(script);
        // The checkout stays as it is: no compiled Python beside the scripts.
        python::done(Command::new(python::venv().join("python")).arg("-B").arg(path).args(urls))
    });
    let printed = printed.await.unwrap();
    assert!(printed.lines().count() == 1, "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_calls_every_operation_and_meets_every_error() {
    let bed = bed::start().await;
    run("boto3_client.py", &bed).await;
    assert_eq!(bed::not_met(&bed.service), Vec::<String>::new());
    let lines = fs::read_to_string(bed.dir.path().join("ledger.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), bed.service.ledger().len(), "the file has what the library has");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_calls_every_operation_and_meets_every_error() {
    let bed = bed::start().await;
    run("aws_cli.py", &bed).await;
    assert_eq!(bed::not_met(&bed.service), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_and_the_aws_cli_ride_out_a_rate_that_is_too_high() {
    let dir = tempfile::tempdir().unwrap();
    let with = async |per_second, burst| {
        let mut config = bed::config(dir.path());
        config.seed.throttle = Some(Throttle { per_second, burst, code: "ThrottlingException".to_owned() });
        Service::start(config).await.unwrap()
    };
    // So slow that the test can't see a fourth token.
    let (tight, slow) = (with(0.000_01, 3.0).await, with(0.3, 1.0).await);
    run_against("throttled.py", vec![tight.url(), slow.url()]).await;
    let throttled = |entry: &Entry| entry.error_code.as_deref() == Some("ThrottlingException") && entry.fault.is_none();
    for service in [tight, slow] {
        let regions: HashSet<_> = service.ledger().into_iter().filter(throttled).map(|entry| entry.region).collect();
        assert_eq!(regions.len(), 2, "boto3 and the CLI each have a region, and both were throttled");
    }
}

/// The shell lines of the README, with this program, a free port and a directory of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_the_readme_lead_to_a_first_import() {
    let dir = tempfile::tempdir().unwrap();
    let readme = fs::read_to_string(python::own("README.md")).unwrap();
    let lines = readme.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(lines.lines().count(), 5, "{lines}");
    // Below the ports that the system hands out by itself: nobody takes it before the program does.
    let mut ports = (20_000 + std::process::id() % 10_000..30_000).map(|port| format!("127.0.0.1:{port}"));
    let free = ports.find(|port| std::net::TcpListener::bind(port).is_ok()).unwrap();
    let python = python::venv().join("python -B").display().to_string();
    let mut script = lines.to_owned();
    for (written, here) in [
        ("cargo run -p personalize-local --", env!("CARGO_BIN_EXE_personalize-local")),
        ("/tmp/s3", &dir.path().join("s3").display().to_string()),
        ("127.0.0.1:8686", &free),
        ("python3", &python),
    ] {
        assert!(script.contains(written), "{written} is not in\n{lines}");
        script = script.replace(written, here);
    }
    let root = python::own("../..");
    let run = move || {
        // Whatever happens, the stand-in ends with the shell. Where curl is missing, Python asks.
        let ask = format!("{python} -c 'import sys, urllib.request as u; u.urlopen(sys.argv[-1])' \"$@\" 2> /dev/null");
        let curl = format!("command -v curl > /dev/null || curl() {{ {ask}; }}");
        let script = format!("set -e; trap 'kill %1' EXIT; {curl}\n{script}");
        let mut bash = Command::new("timeout");
        python::done(bash.args(["300", "bash", "-c", &script]).current_dir(root).env_remove("AWS_PROFILE"))
    };
    let printed = tokio::task::spawn_blocking(run).await.unwrap();
    let mut told = printed.lines().map(str::trim);
    assert_eq!(told.next(), Some(format!("listening on http://{free}").as_str()), "{printed}");
    assert_eq!(told.next_back(), Some("ACTIVE"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_import_of_the_readme_goes_well() {
    let dir = tempfile::tempdir().unwrap();
    bed::write_data(dir.path());
    let bucket = dir.path().join("data/bucket");
    fs::rename(bucket.join("interactions.csv"), bucket.join("i.csv")).unwrap();
    let mut config = bed::config(dir.path());
    config.seed = Seed::from_yaml(include_str!("../example.yaml")).unwrap();
    let service = Service::start(config).await.unwrap();
    let url = service.url();
    let run = move || {
        let mut python = Command::new(python::venv().join("python"));
        python.arg("-B").arg(python::own("example.py"));
        python.env("AWS_ENDPOINT_URL_PERSONALIZE", url).env("AWS_DEFAULT_REGION", "eu-west-1");
        python.env("AWS_ACCESS_KEY_ID", "AKIALOCAL").env("AWS_SECRET_ACCESS_KEY", "local-secret");
        python::done(&mut python)
    };
    let printed = tokio::task::spawn_blocking(run).await.unwrap();
    let seen: Vec<_> = printed.lines().map(str::trim).collect();
    // A machine with much to do may see the end only.
    let states = ["CREATE PENDING", "CREATE IN_PROGRESS", "ACTIVE"];
    assert!(seen.is_sorted_by_key(|state| states.iter().position(|known| known == state)), "{seen:?}");
    assert_eq!(seen.last(), Some(&"ACTIVE"));
}

/// What the SDK for Rust sees when it assumes a role of another account by itself.
async fn datasets_of_the_role(service: &Service) -> Vec<String> {
    let keys = Credentials::new("AKIALOCAL", "local-secret", None, None, "test");
    let region = Region::new("eu-west-1");
    let settings = || aws_config::defaults(BehaviorVersion::latest()).region(region.clone());
    let near = settings().credentials_provider(keys).endpoint_url(format!("{}/_local/sts", service.url())).load().await;
    let role = AssumeRoleProvider::builder("arn:aws:iam::444455556666:role/importer").session_name("rust");
    let role = role.region(region.clone()).configure(&near).build().await;
    let far = settings().credentials_provider(role).endpoint_url(service.url()).load().await;
    let answer = aws_sdk_personalize::Client::new(&far).list_datasets().send().await.unwrap();
    answer.datasets.unwrap().into_iter().map(|dataset| dataset.dataset_arn.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_sts_lead_to_their_account() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("moto.log");
    let arguments = ["-H", "127.0.0.1", "-p", "0"].map(str::to_owned);
    let _moto = ChildGuard::spawn(&python::venv().join("moto_server"), &arguments, |command| {
        command.env("PYTHONUNBUFFERED", "1").stdout(File::create(&log).unwrap());
        command.stderr(File::options().append(true).open(&log).unwrap());
    });
    let url = bed::eventually("moto listens", || {
        let told = fs::read_to_string(&log).ok()?;
        let (_, after) = told.split_once("Running on ")?;
        after.split_once('\n').map(|(url, _)| url.trim().to_owned())
    })
    .await;
    let mut config = bed::config(dir.path());
    config.sts = Some(url.parse().unwrap());
    config.state = Some(dir.path().join("state.json"));
    bed::write_data(dir.path());
    let bed = Bed { service: Service::start(config.clone()).await.unwrap(), dir };
    run("sts.py", &bed).await;
    assert_eq!(datasets_of_the_role(&bed.service).await, [bed::DATASET.replace("111122223333", "444455556666")]);
    bed.service.stop().await;
    let state = fs::read_to_string(config.state.as_ref().unwrap()).unwrap();
    assert!(state.contains("assumed-role/importer/night"), "sessions are kept across restarts");
    Service::start(config).await.unwrap();
}
