//! CNI plugin: configuration, environment, wire protocol, results of every version, errors.

use kube_ovn::cni::{
    client::{Answer, ClientError, parse_answer},
    config::{parse_conf, parse_environment},
    plugin::{Output, run},
    spec::{Code, Version, validate_interface_name},
    wire::{Request, Response, Route, parse_add, parse_del, parse_gc},
};
use serde_json::{Value, json};

const SOCKET: &str = "/run/openvswitch/kube-ovn-daemon.sock";

fn environment(command: &str) -> Vec<(&'static str, String)> {
    vec![
        ("CNI_COMMAND", command.to_owned()),
        ("CNI_CONTAINERID", "0123456789abcdef".to_owned()),
        ("CNI_NETNS", "/var/run/netns/cni-1".to_owned()),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_PATH", "/opt/cni/bin".to_owned()),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u1".to_owned(),
        ),
    ]
}

fn without(mut env: Vec<(&'static str, String)>, name: &str) -> Vec<(&'static str, String)> {
    env.retain(|(n, _)| *n != name);
    env
}

fn with(
    env: Vec<(&'static str, String)>,
    name: &'static str,
    value: &str,
) -> Vec<(&'static str, String)> {
    let mut env = without(env, name);
    env.push((name, value.to_owned()));
    env
}

fn conf(version: &str) -> Value {
    json!({"cniVersion": version, "name": "kube-ovn", "type": "kube-ovn", "server_socket": SOCKET})
}

struct Call {
    output: Output,
    sent: Option<(String, String, Value)>,
}

fn call(env: &[(&'static str, String)], stdin: &[u8], status: u16, body: &Value) -> Call {
    let mut sent = None;
    let lookup = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
    let output = run(lookup, stdin, |socket, endpoint, bytes| {
        let value = serde_json::from_slice(bytes).unwrap();
        sent = Some((socket.to_owned(), endpoint.to_owned(), value));
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        Ok(Answer { status, body })
    });
    Call { output, sent }
}

fn answer_v4() -> Value {
    json!({
        "protocol": "IPv4", "address": "10.16.0.5", "mac_address": "00:00:00:53:6b:b6",
        "cidr": "10.16.0.0/16", "gateway": "10.16.0.1",
        "routes": [{"dst": "10.16.0.0/16", "gw": ""}, {"dst": "0.0.0.0/0", "gw": "10.16.0.1"}],
        "mtu": 1400, "nicname": "eth0", "dns": {}
    })
}

fn answer_dual() -> Value {
    json!({
        "protocol": "Dual", "address": "10.16.0.5,fd00::5", "mac_address": "00:00:00:53:6b:b6",
        "cidr": "10.16.0.0/16,fd00::/64", "gateway": "10.16.0.1,fd00::1",
        "routes": null, "mtu": 1400, "nicname": "eth0"
    })
}

fn add(version: &str, answer: &Value) -> Value {
    let call = call(&environment("ADD"), conf(version).to_string().as_bytes(), 200, answer);
    assert_eq!(call.output.exit_code, 0, "{}", call.output.stdout);
    serde_json::from_str(&call.output.stdout).unwrap()
}

fn failed(call: &Call) -> Value {
    assert_eq!(call.output.exit_code, 1, "{}", call.output.stdout);
    serde_json::from_str(&call.output.stdout).unwrap()
}

#[test]
fn add_request_has_the_fields_of_the_wire_protocol() {
    let mut network = conf("0.3.1");
    network["routes"] = json!([{"dst": "192.168.0.0/16", "gw": "10.16.0.254"}]);
    network["dns"] = json!({"nameservers": ["10.96.0.10"], "search": ["a.b"]});
    let call = call(&environment("ADD"), network.to_string().as_bytes(), 200, &answer_v4());
    let (socket, endpoint, body) = call.sent.unwrap();
    assert_eq!((socket.as_str(), endpoint.as_str()), (SOCKET, "/api/v1/add"));
    assert_eq!(
        body,
        json!({
            "cni_type": "kube-ovn", "pod_name": "web-0", "pod_namespace": "shop",
            "container_id": "0123456789abcdef", "net_ns": "/var/run/netns/cni-1",
            "if_name": "eth0", "provider": "ovn",
            "routes": [{"dst": "192.168.0.0/16", "gw": "10.16.0.254"}],
            "dns": {"nameservers": ["10.96.0.10"], "search": ["a.b"]},
            "vf_driver": "", "deviceID": "", "vhost_user_socket_volume_name": "",
            "vhost_user_socket_name": "", "vhost_user_socket_consumption": "", "pod_uid": "u1"
        })
    );
}

#[test]
fn del_request_leaves_routes_dns_driver_and_socket_name_empty() {
    let mut network = conf("0.3.1");
    network["routes"] = json!([{"dst": "192.168.0.0/16", "gw": "10.16.0.254"}]);
    network["vf_driver"] = json!("vfio-pci");
    network["deviceID"] = json!("0000:00:01.2");
    network["vhost_user_socket_consumption"] = json!("kubevirt");
    let call = call(&environment("DEL"), network.to_string().as_bytes(), 204, &Value::Null);
    assert_eq!(call.output, Output { stdout: String::new(), exit_code: 0 });
    let (_, endpoint, body) = call.sent.unwrap();
    assert_eq!(endpoint, "/api/v1/del");
    assert_eq!(body["routes"], json!([]));
    assert_eq!(body["dns"], json!({}));
    assert_eq!(body["vf_driver"], "");
    assert_eq!(body["vhost_user_socket_name"], "");
    assert_eq!(body["deviceID"], "0000:00:01.2");
    assert_eq!(body["vhost_user_socket_volume_name"], "vhostuser-sockets");
}

#[test]
fn kubevirt_consumption_names_volume_and_socket() {
    let mut network = conf("0.3.1");
    network["vhost_user_socket_consumption"] = json!("kubevirt");
    let env = with(environment("ADD"), "CNI_IFNAME", "pod1234");
    let call = call(&env, network.to_string().as_bytes(), 200, &answer_v4());
    let (_, _, body) = call.sent.unwrap();
    assert_eq!(body["vhost_user_socket_volume_name"], "vhostuser-sockets");
    assert_eq!(body["vhost_user_socket_name"], "pod1234");
}

#[test]
fn ipam_mode_takes_socket_provider_and_routes_from_ipam() {
    let network = json!({
        "cniVersion": "0.3.1", "name": "m", "type": "macvlan", "server_socket": "/wrong",
        "provider": "wrong", "routes": [{"dst": "1.0.0.0/8", "gw": "1.1.1.1"}],
        "ipam": {"type": "kube-ovn", "server_socket": "/ipam.sock", "provider": "m.default",
                 "routes": [{"gw": "10.0.0.1"}]}
    });
    let answer = json!({"protocol": "IPv4", "address": "10.0.0.5", "cidr": "10.0.0.0/24",
                        "gateway": "10.0.0.1", "mac_address": "", "nicname": "", "mtu": 0});
    let call = call(&environment("ADD"), network.to_string().as_bytes(), 200, &answer);
    let (socket, _, body) = call.sent.unwrap();
    assert_eq!(socket, "/ipam.sock");
    assert_eq!(body["provider"], "m.default");
    assert_eq!(body["cni_type"], "macvlan");
    assert_eq!(body["routes"], json!([{"dst": "", "gw": "10.0.0.1"}]));
    let printed: Value = serde_json::from_str(&call.output.stdout).unwrap();
    assert!(printed.get("interfaces").is_none(), "only addresses were asked for: {printed}");
    assert_eq!(
        printed["ips"],
        json!([{"version": "4", "address": "10.0.0.5/24", "gateway": "10.0.0.1"}])
    );
}

#[test]
fn results_of_every_version() {
    let routes = json!([{"dst": "10.16.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.16.0.1"}]);
    for version in ["0.1.0", "0.2.0"] {
        assert_eq!(
            add(version, &answer_v4()),
            json!({"cniVersion": version, "dns": {}, "ip4":
                   {"ip": "10.16.0.5/16", "gateway": "10.16.0.1", "routes": routes}})
        );
    }
    for version in ["0.3.0", "0.3.1", "0.4.0"] {
        assert_eq!(
            add(version, &answer_v4()),
            json!({"cniVersion": version, "dns": {}, "routes": routes,
                   "interfaces": [{"name": "eth0", "mac": "00:00:00:53:6b:b6",
                                   "sandbox": "/var/run/netns/cni-1"}],
                   "ips": [{"version": "4", "interface": 0, "address": "10.16.0.5/16",
                            "gateway": "10.16.0.1"}]})
        );
    }
    let current = |version: &str| add(version, &answer_v4());
    assert_eq!(
        current("1.0.0")["ips"],
        json!([{"interface": 0, "address": "10.16.0.5/16", "gateway": "10.16.0.1"}])
    );
    assert!(current("1.0.0")["interfaces"][0].get("mtu").is_none());
    assert_eq!(current("1.1.0")["interfaces"][0]["mtu"], 1400);
}

#[test]
fn dual_stack_result_follows_the_order_of_cidr_and_gets_default_routes() {
    let mut answer = answer_dual();
    answer["cidr"] = json!("fd00::/64,10.16.0.0/16");
    let printed = add("1.0.0", &answer);
    assert_eq!(printed["ips"][0]["address"], "fd00::5/64");
    assert_eq!(printed["ips"][1]["address"], "10.16.0.5/16");
    assert_eq!(
        printed["routes"],
        json!([{"dst": "::/0", "gw": "fd00::1"}, {"dst": "0.0.0.0/0", "gw": "10.16.0.1"}])
    );
    let legacy = add("0.2.0", &answer_dual());
    assert_eq!(legacy["ip6"]["ip"], "fd00::5/64");
    assert_eq!(legacy["ip6"]["routes"], json!([{"dst": "::/0", "gw": "fd00::1"}]));
}

#[test]
fn an_interface_without_default_route_has_no_gateway() {
    let mut answer = answer_v4();
    answer["gateway"] = json!("");
    answer["routes"] = json!([]);
    let printed = add("1.0.0", &answer);
    assert!(printed["ips"][0].get("gateway").is_none());
    assert!(printed.get("routes").is_none());
}

#[test]
fn dns_of_the_answer_is_in_the_result() {
    let mut answer = answer_v4();
    answer["dns"] = json!({"nameservers": ["10.96.0.10"], "domain": "x"});
    assert_eq!(add("0.4.0", &answer)["dns"], json!({"nameservers": ["10.96.0.10"], "domain": "x"}));
}

#[test]
fn version_lists_all_seven() {
    let call = call(&environment("VERSION"), br#"{"cniVersion":"1.0.0"}"#, 500, &Value::Null);
    assert!(call.sent.is_none());
    let printed: Value = serde_json::from_str(&call.output.stdout).unwrap();
    assert_eq!(
        printed,
        json!({"cniVersion": "1.0.0", "supportedVersions":
               ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
    );
}

#[test]
fn malformed_json_is_code_6_and_names_the_place() {
    for stdin in ["", "{", "[]", "{\"cniVersion\":1}", "{\"type\":\"kube-ovn\",\"routes\":{}}"] {
        let error = failed(&call(&environment("ADD"), stdin.as_bytes(), 200, &answer_v4()));
        assert_eq!(error["code"], 6, "{stdin}");
        assert!(error["details"].as_str().unwrap().contains("line"), "{error}");
    }
}

#[test]
fn missing_socket_and_missing_pod_are_code_7() {
    let network = json!({"cniVersion": "0.3.1", "name": "n", "type": "kube-ovn"});
    let call_ = call(&environment("ADD"), network.to_string().as_bytes(), 200, &answer_v4());
    let error = failed(&call_);
    assert_eq!(error["code"], 7);
    assert_eq!(error["cniVersion"], "0.3.1");
    assert!(error["details"].as_str().unwrap().contains("server_socket"));

    for (args, missing) in [
        ("", "K8S_POD_NAME "),
        ("K8S_POD_NAME=;K8S_POD_NAMESPACE=b", "K8S_POD_NAME "),
        ("K8S_POD_NAME=a", "K8S_POD_NAMESPACE "),
    ] {
        let env = with(environment("ADD"), "CNI_ARGS", args);
        let error = failed(&call(&env, conf("0.3.1").to_string().as_bytes(), 200, &answer_v4()));
        assert_eq!(error["code"], 7);
        assert!(error["details"].as_str().unwrap().starts_with(missing), "{error}");
    }
}

#[test]
fn missing_and_malformed_environment_is_code_4_and_names_the_variable() {
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        let env = without(environment("ADD"), name);
        let error = failed(&call(&env, conf("1.0.0").to_string().as_bytes(), 200, &answer_v4()));
        assert_eq!(error["code"], 4);
        assert!(error["details"].as_str().unwrap().contains(name), "{error}");
    }
    for (name, value) in [
        ("CNI_COMMAND", "add"),
        ("CNI_CONTAINERID", "../../etc"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_ARGS", "K8S_POD_NAME"),
    ] {
        let env = with(environment("ADD"), name, value);
        let error = failed(&call(&env, conf("1.0.0").to_string().as_bytes(), 200, &answer_v4()));
        assert_eq!(error["code"], 4, "{error}");
    }
}

/// BUG 9 (upstream panics on long interface names).
#[test]
fn bug_9_long_interface_name_is_an_error_not_a_panic() {
    let env = with(environment("ADD"), "CNI_IFNAME", "abcdefghijklmnop");
    let error = failed(&call(&env, conf("1.0.0").to_string().as_bytes(), 200, &answer_v4()));
    assert_eq!(error["code"], 4);
    assert!(validate_interface_name("abcdefghijklmno").is_ok());
    let body = json!({"container_id": "a", "if_name": "abcdefghijklmnop"}).to_string();
    assert!(parse_del(body.as_bytes()).unwrap_err().to_string().contains("if_name"));
}

#[test]
fn unknown_version_is_code_1() {
    let error =
        failed(&call(&environment("ADD"), conf("9.9.9").to_string().as_bytes(), 200, &Value::Null));
    assert_eq!(error["code"], 1);
    assert_eq!(error["cniVersion"], "1.1.0");
}

#[test]
fn check_gc_and_status_need_their_version() {
    for (command, refused, accepted, endpoint) in [
        ("CHECK", "0.3.1", "0.4.0", "/api/v1/check"),
        ("GC", "1.0.0", "1.1.0", "/api/v1/gc"),
        ("STATUS", "1.0.0", "1.1.0", "/api/v1/status"),
    ] {
        let mut network = conf(refused);
        network["prevResult"] = json!({});
        network["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
        let bytes = network.to_string();
        let error = failed(&call(&environment(command), bytes.as_bytes(), 200, &Value::Null));
        assert_eq!(error["code"], 1, "{command}");
        network["cniVersion"] = json!(accepted);
        let bytes = network.to_string();
        let call = call(&environment(command), bytes.as_bytes(), 200, &json!({}));
        assert_eq!(call.output, Output { stdout: String::new(), exit_code: 0 }, "{command}");
        assert_eq!(call.sent.unwrap().1, endpoint);
    }
}

#[test]
fn check_without_prev_result_and_gc_without_list_are_code_7() {
    for (command, name) in [("CHECK", "prevResult"), ("GC", "valid-attachments")] {
        let bytes = conf("1.1.0").to_string();
        let error = failed(&call(&environment(command), bytes.as_bytes(), 200, &Value::Null));
        assert_eq!(error["code"], 7);
        assert!(error["details"].as_str().unwrap().contains(name));
    }
}

#[test]
fn gc_sends_the_list_of_the_runtime() {
    let mut network = conf("1.1.0");
    network["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
    let env = with(vec![], "CNI_COMMAND", "GC");
    let call = call(&env, network.to_string().as_bytes(), 200, &json!({}));
    let body = call.sent.unwrap().2;
    let gc = parse_gc(body.to_string().as_bytes()).unwrap();
    assert_eq!(gc.valid_attachments[0].container_id, "a");
    assert_eq!(gc.provider, "ovn");
}

#[test]
fn server_failure_is_code_11_with_upstream_details() {
    let stdin = conf("0.3.1").to_string();
    let error = failed(&call(
        &environment("ADD"),
        stdin.as_bytes(),
        500,
        &json!({"error": "no address for pod shop/web-0"}),
    ));
    assert_eq!(error["code"], 11);
    assert_eq!(error["msg"], "RPC failed");
    assert_eq!(error["details"], "request ip return 500 no address for pod shop/web-0");
    let error = failed(&call(&environment("DEL"), stdin.as_bytes(), 400, &json!({"error": "x"})));
    assert_eq!(error["details"], r#"delete ip return 400 {"error":"x"}"#);
}

#[test]
fn unreachable_daemon_is_code_11_for_add_and_50_for_status() {
    let unreachable = |command: &str, version: &str| {
        let env = environment(command);
        let lookup = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
        run(lookup, conf(version).to_string().as_bytes(), |socket, _, _| {
            Err(ClientError::Connect {
                socket: socket.to_owned(),
                source: std::io::ErrorKind::NotFound.into(),
            })
        })
    };
    let error: Value = serde_json::from_str(&unreachable("ADD", "0.3.1").stdout).unwrap();
    assert_eq!(error["code"], 11);
    assert!(error["details"].as_str().unwrap().contains(SOCKET));
    let error: Value = serde_json::from_str(&unreachable("STATUS", "1.1.0").stdout).unwrap();
    assert_eq!(error["code"], 50);
}

/// BUG 5: upstream answers 200 with an empty body for some failures.
#[test]
fn bug_5_empty_answer_is_one_clear_error() {
    let stdin = conf("0.3.1").to_string();
    let error = failed(&call(&environment("ADD"), stdin.as_bytes(), 200, &Value::Null));
    assert_eq!(error["code"], 11);
    // BUG 4: success without an address must not reach the runtime as success.
    let error = failed(&call(&environment("ADD"), stdin.as_bytes(), 200, &json!({})));
    assert_eq!(error["code"], 11);
}

#[test]
fn del_without_a_pod_name_still_reaches_the_daemon() {
    let env = without(environment("DEL"), "CNI_ARGS");
    let env = without(env, "CNI_NETNS");
    let call = call(&env, conf("0.3.1").to_string().as_bytes(), 204, &Value::Null);
    assert_eq!(call.output, Output { stdout: String::new(), exit_code: 0 });
    let body = call.sent.unwrap().2;
    assert_eq!(body["container_id"], "0123456789abcdef");
    assert!(parse_del(body.to_string().as_bytes()).is_ok());
}

#[test]
fn requests_of_the_server_are_refused_by_field() {
    let good = json!({"pod_name": "a", "pod_namespace": "b", "container_id": "c",
                      "net_ns": "/n", "if_name": "eth0", "routes": null, "dns": null});
    let parsed = parse_add(good.to_string().as_bytes()).unwrap();
    assert_eq!(parsed.provider, "ovn");
    assert_eq!(parsed.port_name(), "a.b");
    for (field, value) in [
        ("pod_name", json!("")),
        ("pod_name", json!("a b")),
        ("pod_namespace", json!("")),
        ("container_id", json!("")),
        ("net_ns", json!("")),
        ("if_name", json!("")),
        ("provider", json!("x\"y")),
        ("routes", json!([{"dst": "nonsense", "gw": ""}])),
        ("routes", json!([{"dst": "", "gw": ""}])),
    ] {
        let mut bad = good.clone();
        bad[field] = value.clone();
        let error = parse_add(bad.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains(field), "{field}={value}: {error}");
    }
    assert!(parse_add(b"{").unwrap_err().to_string().contains("JSON"));
}

#[test]
fn port_names() {
    let mut request =
        Request { pod_name: "p".into(), pod_namespace: "n".into(), ..Request::default() };
    assert_eq!(request.port_name(), "p.n");
    request.provider = "ovn".into();
    assert_eq!(request.port_name(), "p.n");
    request.provider = "net1.default.ovn".into();
    assert_eq!(request.port_name(), "p.n.net1.default.ovn");
}

#[test]
fn answers_of_http() {
    let parse = |text: &str| parse_answer(text.as_bytes());
    let ok = |status, body: &str| Ok(Answer { status, body: body.as_bytes().to_vec() });
    assert_eq!(parse("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), ok(200, "{}"));
    assert_eq!(parse("HTTP/1.1 204 No Content\r\n\r\n"), ok(204, ""));
    assert_eq!(
        parse(
            "HTTP/1.1 500 x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n"
        ),
        ok(500, "abc")
    );
    for bad in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "SSH-2.0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn error_codes_are_those_of_the_sheet() {
    let codes = [
        (Code::IncompatibleVersion, 1),
        (Code::InvalidEnvironment, 4),
        (Code::Decoding, 6),
        (Code::InvalidConfig, 7),
        (Code::Rpc, 11),
        (Code::NotAvailable, 50),
        (Code::Internal, 999),
    ];
    for (code, number) in codes {
        assert_eq!(code.number(), number);
    }
    assert_eq!("".parse::<Version>().unwrap(), Version::V010);
}

mod fuzz {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parsers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_add(&bytes);
            let _ = parse_del(&bytes);
            let _ = parse_gc(&bytes);
            let _ = parse_conf(&bytes);
            let _ = parse_answer(&bytes);
        }

        #[test]
        fn any_text_in_the_environment_gives_a_value_or_an_error(
            command in "(ADD|DEL|CHECK|GC|STATUS|VERSION|.{0,8})", id in ".{0,20}",
            name in ".{0,20}", args in ".{0,60}",
        ) {
            let lookup = |n: &str| Some(match n {
                "CNI_COMMAND" => command.clone(),
                "CNI_CONTAINERID" => id.clone(),
                "CNI_IFNAME" => name.clone(),
                "CNI_ARGS" => args.clone(),
                _ => "/n".to_owned(),
            });
            let _ = parse_environment(lookup);
        }

        #[test]
        fn accepted_requests_survive_a_round_trip(
            pod in "[a-z0-9.-]{1,20}", namespace in "[a-z0-9-]{1,20}", id in "[a-f0-9]{1,64}",
            ifname in "[a-z0-9]{1,15}", gw in any::<u32>(),
        ) {
            let request = Request {
                pod_name: pod, pod_namespace: namespace, container_id: id, if_name: ifname,
                net_ns: "/var/run/netns/x".into(), provider: "ovn".into(),
                routes: vec![Route { dst: String::new(), gw: std::net::Ipv4Addr::from(gw).to_string() }],
                ..Request::default()
            };
            let bytes = serde_json::to_vec(&request).unwrap();
            prop_assert_eq!(parse_add(&bytes).unwrap(), request);
        }

        #[test]
        fn any_answer_gives_one_json_object(
            address in ".{0,30}", cidr in ".{0,30}", gateway in ".{0,20}", status in 100u16..600,
        ) {
            let response = Response { address, cidr, gateway, ..Response::default() };
            let body = serde_json::to_value(&response).unwrap();
            let call = call(&environment("ADD"), conf("1.0.0").to_string().as_bytes(), status, &body);
            prop_assert!(serde_json::from_str::<Value>(&call.output.stdout).unwrap().is_object());
        }
    }
}
