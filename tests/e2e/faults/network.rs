//! The network between the operator, the API server and the service: what breaks, is silent, is slow,
//! or is somebody else.

use super::host::Machine;
use super::{CREATE, is_not_ready, leads_no_more, made_once, nightly, rough_plane};
use crate::env::proxy::{Fate, Proxy};
use crate::env::{Bed, Operator, block_on, eventually};
use serde_json::json;
use std::collections::HashSet;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

/// A listener whose queue is full, so that no handshake with it is ever answered.
struct Full {
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
    address: SocketAddr,
}

fn full() -> Full {
    let listener = block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(1).unwrap()
    });
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queue.push(stream);
    }
    Full { _listener: listener, _queue: queue, address }
}

#[test]
fn fault_43_connect_timeout_dns_and_tls_failure_on_the_way_to_the_service() {
    let bed = Bed::new();
    nightly(&bed);
    let full = full();
    // A name that no name server knows; a server that speaks no TLS; one whose certificate nobody
    // vouches for; a handshake that is never answered; a port where nobody listens.
    let plain = bed.service.url().replace("http://", "https://");
    let foreign = bed.plane.server();
    let silent = format!("http://{}", full.address);
    let cases = ["http://no-such-host.invalid", &plain, &foreign, &silent, "http://127.0.0.1:1"];
    for (i, endpoint) in cases.into_iter().enumerate() {
        let operator = bed.operator_with(&[("AWS_ENDPOINT_URL_PERSONALIZE", endpoint)], &["--identity=one"]);
        let asked = i.to_string();
        bed.annotate("nightly", &format!("personalize-operator.io/reconcile-requested-at={asked}"));
        let status = eventually(endpoint, || {
            Some(bed.status("nightly")).filter(|s| s.last_handled_reconcile_at.as_deref() == Some(&asked))
        });
        let ready = &status.conditions[0];
        assert_eq!((ready.reason.as_str(), ready.status.as_str()), ("ServiceUnavailable", "Unknown"), "{endpoint}");
        assert!(ready.message.contains("can't be reached"), "{endpoint}: {}", ready.message);
        operator.kill();
    }
    let _operator = bed.operator(&["--identity=one"]);
    made_once(&bed);
}

#[test]
fn fault_43_connect_timeout_dns_and_tls_failure_on_the_way_to_the_api_server() {
    let bed = Bed::new();
    nightly(&bed);
    let full = full();
    let config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(bed.plane.kubeconfig()).unwrap()).unwrap();
    let server = |url: &str| json!({"server": url});
    // The last two are the right server, which has no certificate for that name, or none that this
    // authority vouches for.
    let cases = [
        ("dns", server("https://no-such-host.invalid:6443")),
        ("timeout", server(&format!("https://{}", full.address))),
        ("refused", server("https://127.0.0.1:1")),
        ("plain", server(&bed.service.url().replace("http://", "https://"))),
        ("name", json!({"tls-server-name": "elsewhere.example"})),
        ("authority", json!({"certificate-authority": config["users"][0]["user"]["client-certificate"]})),
    ];
    for (name, edit) in cases {
        let mut config = config.clone();
        config["clusters"][0]["cluster"].as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
        let path = bed.dir().join(name);
        std::fs::write(&path, config.to_string()).unwrap();
        let operator = bed.operator_unready_with(&[("KUBECONFIG", &path.display().to_string())]);
        eventually(name, || operator.get("/readyz").filter(|(status, _)| *status == 503));
        eventually("the log tells", || operator.log().contains("DatasetImportJobs can't be listed").then_some(()));
        assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200), "{name}: alive, and trying");
        operator.kill();
    }
    assert_eq!(bed.service.ledger().len(), 0);
    let _operator = bed.operator(&[]);
    made_once(&bed);
}

#[test]
fn fault_43_names_that_are_not_found_any_more_while_it_runs() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let machine = Machine::new(&bed.dir().join("machine"));
    let proxy = bed.proxy();
    // Both are called by a name.
    let kubeconfig = std::fs::read_to_string(&proxy.kubeconfig).unwrap().replace("127.0.0.1", "localhost");
    std::fs::write(bed.dir().join("named"), kubeconfig).unwrap();
    let (named, service) = (bed.dir().join("named"), proxy.service_url.replace("127.0.0.1", "localhost"));
    let [preload, place] = machine.env();
    let env = [preload, place, ("KUBECONFIG", named.to_str().unwrap()), ("AWS_ENDPOINT_URL_PERSONALIZE", &service)];
    let operator = bed.operator_with(&env, &[]);
    nightly(&bed);
    bed.until("nightly", "Importing");
    // What is connected breaks, and finds nobody to connect to.
    machine.names(false);
    proxy.rule(|_| Fate::Break);
    leads_no_more(&operator);
    is_not_ready(&operator);
    proxy.pass();
    bed.import("meanwhile", "d1", json!({}));
    let refusals = || operator.log().matches("client error (Connect)").count();
    let before = refusals();
    eventually("it connects to nobody", || (refusals() > before + 3).then_some(()));
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200), "alive, and trying");
    machine.names(true);
    bed.until("meanwhile", "Importing");
    bed.service.durations(1, 1);
    bed.until("nightly", "ImportSucceeded");
    bed.until("meanwhile", "ImportSucceeded");
    assert_eq!(bed.accepted(), 2);
    bed.judged_settled();
}

/// The first call of each kind has this fate; all others pass.
fn first_of_each_kind(proxy: &Proxy, fate: Fate) {
    let mut seen = HashSet::new();
    proxy.rule(move |call| if seen.insert(call.label.clone()) { fate.clone() } else { Fate::Pass });
}

/// The first call of each kind, to the API server and to the service, has this fate; the import is made
/// once all the same, by an operator that lives through it.
fn each_kind_of_call_meets(fate: Fate) {
    let bed = Bed::new();
    let proxy = bed.proxy();
    first_of_each_kind(&proxy, fate);
    let _operator = bed.operator_behind(
        &proxy,
        &[
            "--kube-timeout=1s",
            "--watch-timeout=1s",
            "--aws-read-timeout=1s",
            "--aws-connect-timeout=1s",
            "--aws-timeout=1s",
        ],
    );
    nightly(&bed);
    made_once(&bed);
    assert!(proxy.count("PUT leases") > 1 && proxy.count("WATCH datasetimportjobs") > 1 && proxy.count(CREATE) > 0);
}

#[test]
fn each_kind_of_call_breaks_before_it_arrives() {
    each_kind_of_call_meets(Fate::Break);
}

#[test]
fn each_kind_of_call_breaks_after_it_arrived() {
    each_kind_of_call_meets(Fate::Lose);
}

#[test]
fn each_kind_of_call_goes_into_a_half_open_connection() {
    each_kind_of_call_meets(Fate::Silence);
}

#[test]
fn each_kind_of_call_arrives_and_is_never_answered() {
    each_kind_of_call_meets(Fate::Forget);
}

#[test]
fn each_kind_of_answer_begins_and_never_ends() {
    each_kind_of_call_meets(Fate::Freeze);
}

#[test]
fn each_kind_of_call_arrives_after_its_caller_has_given_up() {
    each_kind_of_call_meets(Fate::Late(Duration::from_secs(3)));
}

#[test]
fn each_kind_of_answer_comes_in_parts_that_are_later_than_its_caller_waits() {
    each_kind_of_call_meets(Fate::Trickle(Duration::from_secs(3)));
}

#[test]
fn each_kind_of_call_is_slow() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    proxy.rule(|_| Fate::Trickle(Duration::from_millis(200)));
    let _operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    made_once(&bed);
}

/// A part of the control plane is halted as it is: it neither answers nor closes anything. An import is under way, and
/// another is asked for as soon as it goes on.
fn halted(part: control_plane::Part) {
    let (_mine, plane, bed) = rough_plane();
    bed.service.durations(100, 600_000);
    let operator = bed.operator(&[]);
    nightly(&bed);
    bed.until("nightly", "Importing");
    plane.pause(part).unwrap();
    leads_no_more(&operator);
    is_not_ready(&operator);
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200), "alive, and trying");
    plane.resume(part).unwrap();
    eventually("it is ready again", || operator.ready().then_some(()));
    bed.import("after", "d1", json!({}));
    bed.until("after", "Importing");
    bed.service.durations(1, 1);
    bed.until("after", "ImportSucceeded");
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(bed.accepted(), 2);
    bed.judged_settled();
}

#[test]
fn an_api_server_that_is_halted_and_goes_on() {
    halted(control_plane::Part::ApiServer);
}

#[test]
fn an_etcd_that_is_halted_and_goes_on() {
    halted(control_plane::Part::Etcd);
}

#[test]
fn an_api_server_that_is_halted_in_mid_create() {
    let (_mine, plane, bed) = rough_plane();
    let proxy = bed.proxy();
    let (arrive, way) = watch::channel(false);
    proxy.rule(move |call| if call.label == CREATE { Fate::Hold(way.clone()) } else { Fate::Pass });
    let operator = bed.operator_behind(&proxy, &["--aws-timeout=60s", "--aws-read-timeout=60s"]);
    nightly(&bed);
    eventually("the create is on its way", || (proxy.count(CREATE) == 1).then_some(()));
    plane.pause(control_plane::Part::ApiServer).unwrap();
    arrive.send(true).unwrap();
    leads_no_more(&operator);
    eventually("the service has taken the job", || (bed.accepted() == 1).then_some(()));
    plane.resume(control_plane::Part::ApiServer).unwrap();
    made_once(&bed);
    assert_eq!(proxy.count(CREATE), 1, "what was accepted is found, not sent again");
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Part {
    ApiServer,
    Service,
    Operator,
}

#[test]
fn api_server_service_and_operator_come_back_in_any_order() {
    use Part::{ApiServer, Operator as Own, Service};
    let bed = Bed::new();
    let proxy = bed.proxy();
    let orders = [
        [ApiServer, Service, Own],
        [ApiServer, Own, Service],
        [Service, ApiServer, Own],
        [Service, Own, ApiServer],
        [Own, ApiServer, Service],
        [Own, Service, ApiServer],
    ];
    for (i, order) in orders.into_iter().enumerate() {
        let mut up: Vec<Part> = Vec::new();
        let mut operator: Option<Operator> = None;
        bed.import(&format!("r{i}"), &format!("d{i}"), json!({}));
        for part in order {
            up.push(part);
            let (kubernetes, service) = (up.contains(&ApiServer), up.contains(&Service));
            proxy.rule(move |call| {
                let arrives = if call.label.contains(' ') { kubernetes } else { service };
                if arrives { Fate::Pass } else { Fate::Break }
            });
            if part == Own {
                operator = Some(bed.operator_behind(&proxy, &[]));
            }
            if let Some(operator) = &operator {
                eventually("it is alive whatever is away", || operator.get("/healthz"));
                if kubernetes {
                    eventually("it is ready as soon as the API server is there", || operator.ready().then_some(()));
                }
            }
        }
        bed.until(&format!("r{i}"), "ImportSucceeded");
        operator.unwrap().kill();
    }
    assert_eq!(bed.accepted(), orders.len());
    bed.judged_settled();
}
