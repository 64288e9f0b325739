//! Services as pods see them: OVN balances on the pod's own switch.

use serde_json::{Value, json};

use crate::{
    cluster::{bracketed, retry, text},
    echoes::Echoes,
    guard::undo,
    pods::{Pod, page_of},
    story::{Story, story},
};

/// Creates a Service; gives its cluster IPs.
fn service(s: &Story, name: &str, spec: Value) -> Vec<String> {
    s.cluster.apply(&[json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": s.ns}, "spec": spec})]);
    let made = s.cluster.objects(&["-n", &s.ns, "service", name]).remove(0);
    let ips = made["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
    ips.iter().map(text).collect()
}

fn labelled(s: &Story, pods: &[&str], label: &str) {
    for pod in pods {
        s.kubectl(&["label", "pod", pod, "--overwrite", label]).expect("label");
    }
}

/// Answers of `count` requests, each of a connection of its own.
fn answers(s: &Story, pod: &str, url: &str, count: usize) -> Vec<String> {
    let command = format!("for i in $(seq {count}); do wget -qO- -T 3 {url} || echo lost; done");
    let text = s.exec(pod, &["sh", "-c", &command]).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The load balancers of the story's Services.
fn rows(s: &Story) -> String {
    s.cluster
        .nbctl(&["--columns=name,vips", "--format=csv", "--no-headings", "list", "Load_Balancer"])
        .unwrap_or_default()
        .lines()
        .filter(|line| line.contains(&format!("/{}/", s.ns)))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn pods_are_balanced_by_ovn() {
    story("balanced", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[
            Pod::new("client").on(&nodes[0].name),
            Pod::new("one").on(&nodes[0].name),
            Pod::new("two").on(&nodes[1].name),
        ]);
        labelled(s, &["one", "two"], "role=web");
        let web = json!({"role": "web"});
        let port = json!([{"port": 80}]);
        // Every family that the cluster has; both backends get their share.
        let family = json!({"selector": web, "ports": port, "ipFamilyPolicy": "PreferDualStack"});
        let both = |url: &str| {
            retry(20, || {
                let seen = answers(s, "client", url, 20);
                let good = ["one", "two"].iter().all(|n| seen.iter().any(|a| a == n));
                if good && !seen.iter().any(|a| a == "lost") {
                    Ok(())
                } else {
                    Err(format!("{url}: {seen:?}"))
                }
            });
        };
        for ip in service(s, "web", family) {
            both(&page_of(&ip));
            s.step(&format!("20 of 20 answers from both pods behind {ip}"));
        }
        assert!(rows(s).contains("loadbalancer/e2e-balanced/web"), "{}", rows(s));
        // Session affinity: always the same one.
        let sticky = service(
            s,
            "sticky",
            json!({"selector": web, "ports": port, "sessionAffinity": "ClientIP"}),
        );
        retry(20, || {
            let seen = answers(s, "client", &page_of(&sticky[0]), 12);
            let same = seen.len() == 12 && seen[0] != "lost" && seen.iter().all(|a| *a == seen[0]);
            if same { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        s.step("12 connections with ClientIP affinity reach one pod");
        // Policy Local: the pod of the client's node.
        let near = service(
            s,
            "near",
            json!({"selector": web, "ports": port, "internalTrafficPolicy": "Local"}),
        );
        retry(20, || {
            let seen = answers(s, "client", &page_of(&near[0]), 12);
            if seen.len() == 12 && seen.iter().all(|a| a == "one") {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        });
        s.step("12 connections with policy Local stay on the node");
        // A node port, asked by a pod and from outside of the cluster.
        service(s, "outer", json!({"type": "NodePort", "selector": web, "ports": port}));
        let outer = s.cluster.objects(&["-n", &s.ns, "service", "outer"]).remove(0);
        let number = outer["spec"]["ports"][0]["nodePort"].as_u64().expect("node port");
        for node in &nodes[..2] {
            let url = format!("http://{}:{number}/", bracketed(&node.ip));
            both(&url);
            retry(20, || s.cluster.ask_from_outside(&["wget", "-qO-", "-T", "2", &url]));
            s.step(&format!("node port of {}: from a pod and from outside", node.name));
        }
    });
}

#[test]
fn removed_endpoints_are_left_at_once() {
    story("endpoints", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[
            Pod::new("client").on(&nodes[0].name),
            Pod::new("one").on(&nodes[1].name),
            Pod::new("two").on(&nodes[2].name),
        ]);
        labelled(s, &["one"], "role=web");
        let ips = service(
            s,
            "web",
            json!({"selector": {"role": "web"}, "ports": [{"name": "http", "port": 80}]}),
        );
        let url = page_of(&ips[0]);
        s.fetches("client", &url, "one");
        s.step("connections reach the only pod");
        labelled(s, &["two"], "role=web");
        labelled(s, &["one"], "role=none");
        retry(20, || {
            let seen = answers(s, "client", &url, 8);
            if seen.iter().all(|a| a == "two") { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        s.step("new connections reach the other pod");
        labelled(s, &["two"], "role=none");
        // Refused, not lost in silence.
        retry(20, || {
            let answer = s.exec("client", &["wget", "-qO-", "-T", "5", &url]);
            let refused = answer.as_ref().is_err_and(|e| e.contains("refused"));
            if refused { Ok(()) } else { Err(format!("{answer:?}")) }
        });
        s.step("without endpoints the connection is refused");
    });
}

/// Restarts the controller with other values of flags.
pub fn flags(s: &Story, values: &[(&str, &str)]) {
    for (flag, value) in values {
        s.cluster.set_flag("deployment/kube-ovn-controller", &format!("--{flag}"), value);
    }
}

#[test]
fn load_balancers_off_and_on_again_while_pods_talk() {
    story("lb-off", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[Pod::new("client").on(&nodes[0].name), Pod::new("server").on(&nodes[1].name)]);
        let ips =
            service(s, "web", json!({"selector": {"app": "server"}, "ports": [{"port": 80}]}));
        let url = page_of(&ips[0]);
        s.fetches("client", &url, "server");
        retry(20, || if rows(s).is_empty() { Err("no load balancer".to_owned()) } else { Ok(()) });
        let echoes = Echoes::start(s, "client", &s.ip("server"), 50);
        let on_again = undo(|| flags(s, &[("enable-lb", "true")]));
        flags(s, &[("enable-lb", "false")]);
        retry(40, || match rows(s) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("still there: {left}")),
        });
        s.step("the load balancers are gone");
        let losses = echoes.all_answered();
        s.step(&format!("{} echoes between the pods: none lost", losses.sent));
        s.fetches("client", &url, "server");
        s.step("kube-proxy serves the cluster IP");
        drop(on_again);
        retry(40, || if rows(s).is_empty() { Err("not back".to_owned()) } else { Ok(()) });
        s.fetches("client", &url, "server");
    });
}

/// Datagrams that came to a pod, whoever listens there.
fn datagrams(s: &Story, pod: &str) -> Result<u64, String> {
    let count = "awk '/^Udp: [0-9]/ {n += $2 + $3} /^Udp6(InDatagrams|NoPorts)/ {n += $2} \
        END {print n + 0}' /proc/net/snmp /proc/net/snmp6 2>/dev/null";
    let told = s.exec(pod, &["sh", "-c", count])?;
    told.trim().parse().map_err(|e| format!("{told:?}: {e}"))
}

#[test]
fn udp_clients_leave_an_endpoint_that_is_removed() {
    story("udp", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[
            Pod::new("client").on(&nodes[0].name),
            Pod::new("one").on(&nodes[1].name),
            Pod::new("two").on(&nodes[2].name),
        ]);
        labelled(s, &["one"], "role=log");
        let port = json!([{"port": 514, "protocol": "UDP"}]);
        let ips = service(s, "log", json!({"selector": {"role": "log"}, "ports": port}));
        // One socket, so one port of the client, for as long as it runs.
        let sends = format!(
            "syslogd -R {}:514; (while sleep 0.2; do logger x; done) >/dev/null 2>&1 </dev/null &",
            bracketed(&ips[0])
        );
        s.exec("client", &["sh", "-c", &sends]).expect("start sending");
        let come_to = |this: &str, other: &str| {
            retry(90, || {
                let before = (datagrams(s, this)?, datagrams(s, other)?);
                s.exec("client", &["sleep", "2"])?;
                let after = (datagrams(s, this)?, datagrams(s, other)?);
                if after.0 > before.0 && after.1 == before.1 {
                    return Ok(());
                }
                Err(format!("{this}, {other}: {before:?} datagrams, then {after:?}"))
            });
        };
        come_to("one", "two");
        s.step("datagrams of one socket come to the only endpoint");
        labelled(s, &["two"], "role=log");
        retry(60, || match rows(s) {
            both if both.contains(&s.ip("one")) && both.contains(&s.ip("two")) => Ok(()),
            other => Err(other),
        });
        labelled(s, &["one"], "role=none");
        come_to("two", "one");
        s.step("it is removed but alive: the same socket's come to the other one");
    });
}

#[test]
fn policy_local_keeps_the_address_of_clients_outside() {
    story("from-outside", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[Pod::new("one").on(&nodes[0].name)]);
        let spec = json!({"type": "NodePort", "externalTrafficPolicy": "Local",
            "selector": {"app": "one"}, "ports": [{"port": 80}], "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
        service(s, "near", spec);
        let made = s.cluster.objects(&["-n", &s.ns, "service", "near"]).remove(0);
        let port = made["spec"]["ports"][0]["nodePort"].as_u64().expect("node port");
        let ask = |node: usize, path: &str| {
            let url = format!("http://{}:{port}/{path}", bracketed(&nodes[node].ip));
            s.cluster.ask_from_outside(&["wget", "-qO-", "-T", "3", &url])
        };
        retry(60, || ask(0, ""));
        let seen = ask(0, "cgi-bin/me").expect("an answer");
        let nodes_own = nodes.iter().any(|n| seen.contains(&n.ip));
        assert!(!nodes_own, "the pod sees {seen}, a node");
        s.step(&format!("asked at the pod's node, it sees the client: {}", seen.trim()));
        ask(1, "").expect_err("a node without the pod must not answer");
        s.step("asked at another node, nobody answers");
        // What OVN does instead of a timeout is said on the Service.
        s.wait_event("near", "SessionAffinityTimeoutIgnored", &["60"]);
    });
}
