//! Network faults between the operator, the API server and the service: broken, silent, slow, or the wrong server.

use super::host::Host;
use super::{
    CREATE, DESCRIBE, assert_imported_beside, assert_imported_once, dedicated_control_plane, import_nightly,
    wait_until_not_leader, wait_until_unready,
};
use crate::env::proxy::{Fault, Proxy};
use crate::env::tls::TlsFront;
use crate::env::{OperatorProcess, SHORT_LEASE, SHORT_TIMEOUTS, TestEnv, block_on, dataset_arn, eventually};
use serde_json::json;
use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// A listener with a full backlog: it never answers a handshake.
struct FullListener {
    _listener: TcpListener,
    _backlog: Vec<net::TcpStream>,
    address: SocketAddr,
}

fn full_listener() -> FullListener {
    let listener = block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(1).unwrap()
    });
    let address = listener.local_addr().unwrap();
    let mut backlog = Vec::new();
    while let Ok(stream) = net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        backlog.push(stream);
    }
    FullListener { _listener: listener, _backlog: backlog, address }
}

#[test]
fn fault_43_unreachable_service_is_reported_and_retried() {
    let env = TestEnv::new();
    import_nightly(&env);
    let full = full_listener();
    // An unknown name; a server without TLS; a server with an untrusted certificate; a handshake without an answer; a
    // closed port.
    let plain = env.service.url().replace("http://", "https://");
    let untrusted = env.control_plane.server();
    let silent = format!("http://{}", full.address);
    let cases = ["http://no-such-host.invalid", &plain, &untrusted, &silent, "http://127.0.0.1:1"];
    for (i, endpoint) in cases.into_iter().enumerate() {
        let operator = env.start_operator_with(&[("AWS_ENDPOINT_URL_PERSONALIZE", endpoint)], &SHORT_TIMEOUTS);
        let request = i.to_string();
        env.annotate("nightly", &format!("personalize-operator.io/reconcile-requested-at={request}"));
        let status = eventually(endpoint, || {
            Some(env.status("nightly")).filter(|s| s.last_handled_reconcile_at.as_deref() == Some(&request))
        });
        let ready = &status.conditions[0];
        assert_eq!((ready.reason.as_str(), ready.status.as_str()), ("ServiceUnavailable", "Unknown"), "{endpoint}");
        assert!(ready.message.contains("is unreachable"), "{endpoint}: {}", ready.message);
        operator.kill();
    }
    let _operator = env.start_operator(&[]);
    assert_imported_once(&env);
}

#[test]
fn fault_43_unreachable_api_server_makes_the_operator_unready() {
    let env = TestEnv::new();
    import_nightly(&env);
    let full = full_listener();
    let config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(env.control_plane.kubeconfig()).unwrap()).unwrap();
    let server = |url: &str| json!({"server": url});
    // The last two reach the right server, but its certificate is for another name, or this authority did not sign it.
    let cases = [
        ("dns", server("https://no-such-host.invalid:6443")),
        ("timeout", server(&format!("https://{}", full.address))),
        ("refused", server("https://127.0.0.1:1")),
        ("plain", server(&env.service.url().replace("http://", "https://"))),
        ("name", json!({"tls-server-name": "elsewhere.example"})),
        ("authority", json!({"certificate-authority": config["users"][0]["user"]["client-certificate"]})),
    ];
    for (name, edit) in cases {
        let mut config = config.clone();
        config["clusters"][0]["cluster"].as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
        let path = env.dir().join(name);
        std::fs::write(&path, config.to_string()).unwrap();
        let operator = env.spawn_operator_with(&[("KUBECONFIG", &path.display().to_string())], &[]);
        eventually(name, || operator.get("/readyz").filter(|(status, _)| *status == 503));
        eventually("the log reports it", || operator.log().contains("DatasetImportJobs can't be listed").then_some(()));
        assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200), "{name}");
        operator.kill();
    }
    assert_eq!(env.service.ledger().len(), 0);
    let _operator = env.start_operator(&[]);
    assert_imported_once(&env);
}

#[test]
fn fault_43_name_resolution_that_fails_while_running_recovers() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let host = Host::new(&env.dir().join("host"));
    let proxy = env.start_proxy();
    // The operator reaches both services by name.
    let kubeconfig = std::fs::read_to_string(&proxy.kubeconfig).unwrap().replace("127.0.0.1", "localhost");
    std::fs::write(env.dir().join("named"), kubeconfig).unwrap();
    let (named, service) = (env.dir().join("named"), proxy.service_url.replace("127.0.0.1", "localhost"));
    let [preload, host_dir] = host.vars();
    let vars = [preload, host_dir, ("KUBECONFIG", named.to_str().unwrap()), ("AWS_ENDPOINT_URL_PERSONALIZE", &service)];
    let operator = env.start_operator_with(&vars, &[SHORT_LEASE]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    // Open connections break, and new ones find no address.
    host.set_names_resolve(false);
    proxy.inject(|_| Fault::DropRequest);
    wait_until_not_leader(&operator);
    wait_until_unready(&operator);
    proxy.clear();
    env.import("meanwhile", "d1", json!({}));
    let failures = || operator.log().matches("client error (Connect)").count();
    let before = failures();
    eventually("connections fail", || (failures() > before + 3).then_some(()));
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200));
    host.set_names_resolve(true);
    assert_imported_beside(&env, "meanwhile");
}

/// Injects the fault into the first call of each kind.
fn inject_once_per_kind(proxy: &Proxy, fault: Fault) {
    let mut seen = HashSet::new();
    proxy.inject(move |call| if seen.insert(call.label.clone()) { fault.clone() } else { Fault::None });
}

/// The first call of each kind, to the API server and to the service, meets this fault. The operator survives, and
/// makes the import once.
fn assert_imported_despite_one_fault_per_kind(fault: Fault) {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    inject_once_per_kind(&proxy, fault);
    let _operator = env.spawn_operator_behind(
        &proxy,
        &[
            "--lease-duration=15s",
            "--kube-timeout=2s",
            "--watch-timeout=1s",
            "--aws-read-timeout=2s",
            "--aws-connect-timeout=2s",
            "--aws-timeout=2s",
        ],
    );
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    for (label, at_least) in [("PUT leases", 2), ("WATCH datasetimportjobs", 2), (CREATE, 1)] {
        eventually(&format!("{label} is called again"), || (proxy.count(label) >= at_least).then_some(()));
    }
    assert_imported_once(&env);
}

#[test]
fn dropped_request_of_each_kind_is_survived() {
    assert_imported_despite_one_fault_per_kind(Fault::DropRequest);
}

#[test]
fn dropped_response_to_each_kind_is_survived() {
    assert_imported_despite_one_fault_per_kind(Fault::DropResponse);
}

#[test]
fn half_open_connection_for_each_kind_is_survived() {
    assert_imported_despite_one_fault_per_kind(Fault::HangRequest);
}

#[test]
fn missing_response_to_each_kind_is_survived() {
    assert_imported_despite_one_fault_per_kind(Fault::HangResponse);
}

#[test]
fn endless_response_to_each_kind_is_survived() {
    assert_imported_despite_one_fault_per_kind(Fault::HangBody);
}

#[test]
fn request_of_each_kind_that_arrives_after_its_timeout_is_survived() {
    assert_imported_despite_one_fault_per_kind(Fault::Delay(Duration::from_secs(3)));
}

#[test]
fn response_to_each_kind_slower_than_its_timeout_is_survived() {
    assert_imported_despite_one_fault_per_kind(Fault::SlowResponse(Duration::from_secs(3)));
}

#[test]
fn slow_responses_to_all_calls_are_survived() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject(|_| Fault::SlowResponse(Duration::from_millis(200)));
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    assert_imported_once(&env);
}

/// A component of the control plane is paused: it neither answers nor closes connections. One import runs meanwhile,
/// and another one is created right after.
fn assert_imports_survive_a_paused_component(component: control_plane::Component) {
    let (_guard, control_plane, env) = dedicated_control_plane();
    env.service.set_durations(100, 600_000);
    let operator = env.start_operator(&[SHORT_LEASE]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    control_plane.pause(component).unwrap();
    wait_until_not_leader(&operator);
    wait_until_unready(&operator);
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200));
    control_plane.resume(component).unwrap();
    eventually("the operator is ready again", || operator.is_ready().then_some(()));
    env.import("after", "d1", json!({}));
    assert_imported_beside(&env, "after");
}

#[test]
fn fault_81_hanging_calls_in_one_region_do_not_hold_up_another() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject(|call| if call.body.contains(":us-east-1:") { Fault::HangRequest } else { Fault::None });
    let flags = ["--concurrency=2", "--aws-timeout=1h", "--aws-read-timeout=1h", "--kube-timeout=5s"];
    let _operator = env.spawn_operator_behind(&proxy, &flags);
    for i in 0..8 {
        let dataset = dataset_arn(&format!("d{i}")).replace("eu-west-1", "us-east-1");
        env.import(&format!("hanging-{i}"), "d0", json!({"datasetArn": dataset}));
    }
    eventually("calls hang", || (proxy.count(DESCRIBE) > 0).then_some(()));
    import_nightly(&env);
    assert_eq!(env.wait_for_reason("nightly", "ImportSucceeded").attempts, Some(1));
    assert_eq!(env.accepted_count(), 1);
    env.check_invariants();
}

/// Connects one client of an HTTP proxy to the host that it names.
async fn tunnel(client: TcpStream) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        client.read_line(&mut request).await?;
    }
    let host = request.split(' ').nth(1).filter(|_| request.starts_with("CONNECT ")).unwrap_or_default();
    let mut server = TcpStream::connect(host).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// Starts an HTTP proxy. Returns its URL; the counter counts its connections.
fn start_http_proxy(connections: &Arc<AtomicUsize>) -> String {
    let connections = Arc::clone(connections);
    block_on(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(tunnel(client));
            }
        });
        url
    })
}

#[test]
fn fault_84_proxy_in_the_environment_is_used_unless_no_proxy_names_the_api_server() {
    let connections = Arc::new(AtomicUsize::new(0));
    let proxy = start_http_proxy(&connections);
    let unreachable = "http://127.0.0.2:1";
    for (vars, uses_proxy) in [
        (vec![("HTTPS_PROXY", unreachable), ("NO_PROXY", "10.0.0.0/8,127.0.0.1,.svc")], false),
        (vec![("HTTPS_PROXY", proxy.as_str()), ("NO_PROXY", "10.0.0.0/8,.svc")], true),
    ] {
        let env = TestEnv::new();
        let before = connections.load(Ordering::SeqCst);
        let _operator = env.start_operator_with(&vars, &[]);
        import_nightly(&env);
        assert_imported_once(&env);
        assert_eq!(connections.load(Ordering::SeqCst) > before, uses_proxy, "{vars:?}");
    }
}

#[test]
fn fault_85_half_sent_requests_to_the_listener_are_closed() {
    let env = TestEnv::new();
    let operator = env.start_operator(&[]);
    let address = operator.url.trim_start_matches("http://");
    let mut half_sent: Vec<net::TcpStream> = (0..200).map(|_| net::TcpStream::connect(address).unwrap()).collect();
    for stream in &mut half_sent {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: ").unwrap();
    }
    for mut stream in half_sent {
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let answer = std::io::copy(&mut stream, &mut std::io::sink());
        let is_open = answer.is_err_and(|e| [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&e.kind()));
        assert!(!is_open, "the operator waits for the rest of the request");
    }
    assert_eq!(operator.get("/healthz").map(|(status, _)| status), Some(200));
    import_nightly(&env);
    assert_imported_once(&env);
}

#[test]
fn paused_api_server_keeps_imports_going() {
    assert_imports_survive_a_paused_component(control_plane::Component::ApiServer);
}

#[test]
fn paused_etcd_keeps_imports_going() {
    assert_imports_survive_a_paused_component(control_plane::Component::Etcd);
}

#[test]
fn api_server_paused_during_create_does_not_create_again() {
    let (_guard, control_plane, env) = dedicated_control_plane();
    let proxy = env.start_proxy();
    let (release, held) = watch::channel(false);
    proxy.inject(move |call| if call.label == CREATE { Fault::HoldUntil(held.clone()) } else { Fault::None });
    let operator = env.spawn_operator_behind(&proxy, &[SHORT_LEASE, "--grace=60s"]);
    import_nightly(&env);
    eventually("the create is in flight", || (proxy.count(CREATE) > 0).then_some(()));
    control_plane.pause(control_plane::Component::ApiServer).unwrap();
    release.send(true).unwrap();
    wait_until_not_leader(&operator);
    eventually("the service accepts the job", || (env.accepted_count() == 1).then_some(()));
    control_plane.resume(control_plane::Component::ApiServer).unwrap();
    assert_imported_once(&env);
    assert_eq!(env.service.call_count(CREATE), 1, "the accepted job is found, not created again");
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Part {
    ApiServer,
    Service,
    Operator,
}

#[test]
fn imports_succeed_in_any_start_order() {
    use Part::{ApiServer, Operator, Service};
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    let orders = [
        [ApiServer, Service, Operator],
        [ApiServer, Operator, Service],
        [Service, ApiServer, Operator],
        [Service, Operator, ApiServer],
        [Operator, ApiServer, Service],
        [Operator, Service, ApiServer],
    ];
    for (i, order) in orders.into_iter().enumerate() {
        let mut up: Vec<Part> = Vec::new();
        let mut operator: Option<OperatorProcess> = None;
        env.import(&format!("r{i}"), &format!("d{i}"), json!({}));
        for part in order {
            up.push(part);
            let (kubernetes, service) = (up.contains(&ApiServer), up.contains(&Service));
            proxy.inject(move |call| {
                let is_up = if call.is_kubernetes() { kubernetes } else { service };
                if is_up { Fault::None } else { Fault::DropRequest }
            });
            if part == Operator {
                operator = Some(env.spawn_operator_behind(&proxy, &[]));
            }
            if let Some(operator) = &operator {
                eventually("the operator is alive", || operator.get("/healthz"));
                if kubernetes {
                    eventually("the operator is ready", || operator.is_ready().then_some(()));
                }
            }
        }
        env.wait_for_reason(&format!("r{i}"), "ImportSucceeded");
        operator.unwrap().kill();
    }
    assert_eq!(env.accepted_count(), orders.len());
    env.check_invariants_settled();
}

#[test]
fn fault_97_replaced_certificate_authority_of_the_api_server_is_read_while_running() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let proxy = env.start_proxy();
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&proxy.kubeconfig).unwrap()).unwrap();
    let cluster = &mut config["clusters"][0]["cluster"];
    let front = TlsFront::start(env.dir(), cluster["server"].as_str().unwrap());
    // The file is named relative to the kubeconfig.
    *cluster = json!({"server": front.url, "certificate-authority": "ca.crt"});
    let path = env.dir().join("tls.kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    let _operator = env.start_operator_with(&[("KUBECONFIG", path.to_str().unwrap())], &[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    front.rotate();
    env.import("meanwhile", "d1", json!({}));
    assert_imported_beside(&env, "meanwhile");
}

#[test]
fn fault_98_replaced_certificate_authority_of_aws_is_read_while_running() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let front = TlsFront::start(env.dir(), env.service.url());
    let vars = [("AWS_ENDPOINT_URL_PERSONALIZE", front.url.as_str()), ("SSL_CERT_FILE", front.ca.to_str().unwrap())];
    let _operator = env.start_operator_with(&vars, &[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    front.rotate();
    env.import("meanwhile", "d1", json!({}));
    assert_imported_beside(&env, "meanwhile");
}
