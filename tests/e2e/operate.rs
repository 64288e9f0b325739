//! What operators watch: pinger, monitor, metrics.

use std::collections::BTreeMap;

use crate::{
    cluster::{Cluster, retry, text},
    pods::Pod,
    story::story,
};

/// Samples of a metrics text: name with labels -> value.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|l| !l.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    let of = |full: &str| full.split('{').next() == Some(name);
    samples.iter().filter(|(full, _)| of(full)).map(|(_, v)| v).sum()
}

/// Metrics of one ready pod of an application.
fn metrics(cluster: &Cluster, node: &str, address: &str, port: u16) -> Result<String, String> {
    let url = format!("http://{}:{port}/metrics", crate::cluster::bracketed(address));
    cluster.enter(node, &["busybox", "wget", "-qO-", "-T", "5", &url])
}

#[test]
fn pingers_on_all_nodes_see_a_network_without_loss() {
    story("pinger", |s| {
        let nodes = s.cluster.nodes();
        let pods = retry(60, || {
            let pods =
                s.cluster.objects(&["-n", "kube-system", "pods", "-l", "app=kube-ovn-pinger"]);
            let ready = pods.iter().filter(|p| crate::cluster::is_ready(p)).count();
            if ready == nodes.len() { Ok(pods) } else { Err(format!("{ready} pingers ready")) }
        });
        s.step("a pinger is ready on every node");
        for pod in &pods {
            let (node, ip) = (text(&pod["spec"]["nodeName"]), text(&pod["status"]["podIP"]));
            let lost = |all: &BTreeMap<String, f64>| {
                sum(all, "pinger_pod_ping_lost_total") + sum(all, "pinger_node_ping_lost_total")
            };
            let before = samples(&retry(20, || metrics(s.cluster, &node, &ip, 8080)));
            retry(60, || {
                let all = samples(&metrics(s.cluster, &node, &ip, 8080)?);
                let asked = sum(&all, "pinger_pod_ping_count_total")
                    - sum(&before, "pinger_pod_ping_count_total");
                let good = [
                    "pinger_ovs_up",
                    "pinger_ovn_controller_up",
                    "pinger_apiserver_healthy",
                    "pinger_internal_dns_healthy",
                ]
                .map(|name| sum(&all, name));
                if asked >= 3.0 * nodes.len() as f64
                    && good == [1.0; 4]
                    && lost(&all) == lost(&before)
                    && sum(&all, "pinger_inconsistent_port_binding") == 0.0
                    && sum(&all, "kube_ovn_dp_total") >= 1.0
                {
                    Ok(())
                } else {
                    Err(format!("{node}: {asked} echoes, {good:?}, {} lost", lost(&all)))
                }
            });
        }
        s.step("no loss between pods, nodes, API server, DNS");
        let job = ["/kube-ovn/kube-ovn-pinger", "--mode=job", "--exit-code=1"];
        let said = s.cluster.exec_system("app=kube-ovn-pinger", None, &job);
        // Results are log lines on standard error; kubectl gives them with a failure only.
        said.expect("one round as a job passes");
        s.step("one round as a job");
    });
}

#[test]
fn the_databases_are_watched_and_subnets_counted() {
    story("metrics", |s| {
        let system = |app: &str| {
            let label = format!("app={app}");
            s.cluster.objects(&["-n", "kube-system", "pods", "-l", &label])
        };
        let page = |pod: &serde_json::Value, port: u16| {
            let (node, ip) = (text(&pod["spec"]["nodeName"]), text(&pod["status"]["podIP"]));
            Ok::<_, String>(samples(&metrics(s.cluster, &node, &ip, port)?))
        };
        let nodes = s.cluster.nodes().len() as f64;
        retry(90, || {
            let mut chassis = 0.0;
            for pod in system("kube-ovn-monitor") {
                let all = page(&pod, 10661)?;
                let healthy = sum(&all, "kube_ovn_ovn_status");
                if healthy < 3.0 || sum(&all, "kube_ovn_db_status") != 2.0 {
                    return Err(format!("ovn_status sums up to {healthy}"));
                }
                chassis += sum(&all, "kube_ovn_chassis_info");
            }
            // Told once, by the monitor beside the leader.
            if chassis == nodes { Ok(()) } else { Err(format!("{chassis} chassis")) }
        });
        s.step("every monitor sees healthy databases, one tells the chassis");
        retry(60, || {
            let mut available = 0.0;
            for pod in system("kube-ovn-controller") {
                let all = page(&pod, 10660)?;
                available += sum(&all, "subnet_available_ip_count");
                if available > 0.0 && sum(&all, "subnet_used_ip_count") < nodes {
                    return Err("no addresses in use".to_owned());
                }
            }
            if available > 0.0 { Ok(()) } else { Err("no subnets counted".to_owned()) }
        });
        for pod in system("kube-ovn-cni") {
            let all = page(&pod, 10665).expect("metrics of the daemon");
            assert!(sum(&all, "ip_local_port_range") == 1.0, "kernel settings");
        }
        s.step("controller and daemons count");
    });
}

/// packaging/webhook.yaml, as `ENABLE_WEBHOOK=true ./install.sh` renders it; it goes with the value.
struct Webhook<'a>(&'a Cluster, String);

impl<'a> Webhook<'a> {
    fn start(cluster: &'a Cluster) -> Self {
        let agent = cluster.objects(&["-n", "kube-system", "daemonset", "kube-ovn-cni"]);
        let image = text(&agent[0]["spec"]["template"]["spec"]["containers"][0]["image"]);
        let path = crate::cluster::tree().join("packaging/webhook.yaml");
        let mut manifest = std::fs::read_to_string(path).unwrap();
        for (name, value) in [
            ("IMAGE", image.as_str()),
            ("IMAGE_PULL_POLICY", "IfNotPresent"),
            ("SVC_CIDR", "10.96.0.0/12"),
            ("SVC_YAML_IPFAMILYPOLICY", ""),
        ] {
            manifest = manifest.replace(&format!("${{{name}}}"), value);
        }
        cluster.kubectl_with(&["apply", "-f", "-"], &manifest).expect("apply the webhook");
        let webhook = Webhook(cluster, manifest);
        let rollout = ["-n", "kube-system", "rollout", "status", "deployment/kube-ovn-webhook"];
        cluster.kubectl(&[&rollout[..], &["--timeout=90s"]].concat()).expect("it starts");
        retry(30, || {
            let hook = cluster.objects(&["validatingwebhookconfiguration", "kube-ovn-webhook"]);
            match hook[0]["webhooks"][0]["clientConfig"]["caBundle"].as_str() {
                Some(bundle) if !bundle.is_empty() => Ok(()),
                _ => Err("no caBundle yet".to_owned()),
            }
        });
        webhook
    }
}

impl Drop for Webhook<'_> {
    fn drop(&mut self) {
        let _ = self.0.kubectl_with(&["delete", "--ignore-not-found", "-f", "-"], &self.1);
        let secret = ["-n", "kube-system", "delete", "secret", "kube-ovn-webhook-secret"];
        let _ = self.0.kubectl(&secret);
    }
}

#[test]
fn a_wrong_static_address_is_refused_when_it_is_written() {
    story("webhook", |s| {
        let _webhook = Webhook::start(s.cluster);
        s.step("the webhook is trusted by the API server");
        s.start(&[Pod::new("one")]);
        let taken = s.ip("one");
        let apply = |pod: &Pod| {
            let manifest = pod.manifest(&s.ns).to_string();
            s.cluster.kubectl_with(&["apply", "-f", "-"], &manifest)
        };
        let refused = retry(20, || match apply(&Pod::new("two").with("ip_address", &taken)) {
            Err(refused) => Ok(refused),
            // The API server loads a new configuration a moment later.
            Ok(_) => {
                s.delete_pods(&["two"]);
                Err("the pod was admitted".to_owned())
            }
        });
        for word in ["ip_address", &taken, "taken by IP", "choose another address"] {
            assert!(refused.contains(word), "{word} is not in {refused}");
        }
        s.step("a taken address is refused with its holder's name");
        let subnet = r#"{"apiVersion":"kubeovn.io/v1","kind":"Subnet","metadata":{"name":"e2e-overlap"},
            "spec":{"cidrBlock":"10.16.0.0/24"}}"#;
        let refused = s.cluster.kubectl_with(&["apply", "-f", "-"], subnet).unwrap_err();
        assert!(refused.contains("overlaps") && refused.contains("ovn-default"), "{refused}");
        s.step("an overlapping subnet is refused");
        s.start(&[Pod::new("three")]);
    });
}
