//! A real Prometheus (Debian's) scrapes every component as packaging/monitoring says, loads the
//! alarms, and answers every query of the dashboards.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, retry, text, tree},
    pods::Pod,
    story::{Story, story},
};

const LISTEN: &str = "127.0.0.1:9095";

/// Queries that have no data here, and why. Everything else must have some.
const WITHOUT_DATA: [(&str, &str); 2] = [
    ("pinger_external_dns_latency_ms", "--external-dns is not set"),
    ("ovn_subnet_gateway_packet", "counts what left or entered a subnet so far, if anything"),
];

/// The server, and the folder of its data; both go with it.
struct Prometheus<'a> {
    cluster: &'a Cluster,
    folder: PathBuf,
    server: Option<Child>,
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn monitoring() -> PathBuf {
    tree().join("packaging/monitoring")
}

fn yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What the operator makes of a ServiceMonitor, asked four times as often.
fn job(monitor: &Value, kubeconfig: &Path) -> Value {
    let spec = &monitor["spec"];
    let endpoint = &spec["endpoints"][0];
    let label = |name: &str| format!("__meta_kubernetes_service_label_{name}");
    let keep = |label: &str, value: &Value| json!({"action": "keep", "source_labels": [label], "regex": value});
    let labels = spec["selector"]["matchLabels"].as_object().expect("labels of a Service");
    let mut relabel: Vec<Value> =
        labels.iter().map(|(name, value)| keep(&label(name), value)).collect();
    relabel.push(keep("__meta_kubernetes_endpoint_port_name", &endpoint["port"]));
    relabel.push(json!({"source_labels": ["__meta_kubernetes_service_name"],
                        "target_label": "job"}));
    json!({"job_name": monitor["metadata"]["name"], "scrape_interval": "3s",
        "kubernetes_sd_configs": [{"role": "endpoints", "kubeconfig_file": kubeconfig,
            "namespaces": {"names": spec["namespaceSelector"]["matchNames"]}}],
        "relabel_configs": relabel})
}

impl<'a> Prometheus<'a> {
    fn start(cluster: &'a Cluster) -> Self {
        let folder = cluster.dir.join("e2e-prometheus");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for Prometheus");
        let mut all = Prometheus { cluster, folder, server: None };
        all.write_files();
        let log = fs::File::create(all.folder.join("log")).expect("its log");
        let arguments = [
            format!("--config.file={}", all.folder.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", all.folder.join("data").display()),
            format!("--web.listen-address={LISTEN}"),
        ];
        let mut server = cluster.program("packaging/sandbox/prometheus");
        let server = server.args(["run", "node1"]).args(arguments);
        let server = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        all.server = Some(server.spawn().expect("Prometheus"));
        all
    }

    fn tool(&self, args: &[&str]) {
        let mut tool = self.cluster.program("packaging/sandbox/prometheus");
        let output = tool.arg("tool").args(args).output().expect("promtool");
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {}: {said}", args.join(" "));
    }

    /// JSON is YAML, too.
    fn write_files(&self) {
        let rules = yaml(&monitoring().join("rules.yaml"));
        let file = self.folder.join("rules.yml");
        fs::write(&file, rules["spec"].to_string()).expect("rules");
        self.tool(&["check", "rules", &file.display().to_string()]);
        let given = fs::read_to_string(self.cluster.dir.join("kubeconfig")).expect("kubeconfig");
        let server = given.lines().find_map(|l| l.trim().strip_prefix("server: ")).expect("server");
        let node = &self.cluster.nodes()[0];
        let inside = format!("https://{}:6443", crate::cluster::bracketed(&node.ip));
        let kubeconfig = self.folder.join("kubeconfig");
        fs::write(&kubeconfig, given.replace(server, &inside)).expect("kubeconfig");
        let monitors = fs::read_dir(monitoring()).expect("monitors").map(|e| e.unwrap().path());
        let jobs: Vec<Value> = monitors
            .filter(|path| path.to_string_lossy().ends_with("-monitor.yaml"))
            .map(|path| job(&yaml(&path), &kubeconfig))
            .collect();
        assert_eq!(jobs.len(), 4, "a monitor of each component");
        let config = json!({"global": {"evaluation_interval": "3s"}, "rule_files": [file],
                            "scrape_configs": jobs});
        let file = self.folder.join("prometheus.yml");
        fs::write(&file, config.to_string()).expect("configuration");
        self.tool(&["check", "config", &file.display().to_string()]);
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        let url = format!("http://{LISTEN}/api/v1/{path}");
        let page = self.cluster.enter("node1", &["busybox", "wget", "-qO-", "-T", "5", &url])?;
        let answer: Value = serde_json::from_str(&page).map_err(|e| format!("{url}: {e}"))?;
        match answer["status"] == "success" {
            true => Ok(answer["data"].clone()),
            false => Err(format!("{url}: {answer}")),
        }
    }

    /// Series of an instant query.
    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let escape = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        let escaped: String = expression.bytes().map(escape).collect();
        let data = self.get(&format!("query?query={escaped}"))?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }
}

/// Place and text of every query of the dashboards, with the variables that Grafana would fill in.
fn queries() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for path in fs::read_dir(monitoring()).expect("dashboards").map(|e| e.unwrap().path()) {
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for panel in dashboard["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().expect("targets") {
                let place = format!("{}: {}", text(&dashboard["title"]), text(&panel["title"]));
                all.push((place, text(&target["expr"]).replace("$instance", ".*")));
            }
        }
    }
    all
}

fn all_targets_are_up(s: &Story, prometheus: &Prometheus) {
    let nodes = s.cluster.nodes().len();
    let wanted = BTreeMap::from([
        ("kube-ovn-cni", nodes),
        ("kube-ovn-controller", 1),
        ("kube-ovn-monitor", 1),
        ("kube-ovn-pinger", nodes),
    ]);
    retry(90, || {
        let up = prometheus.query("up == 1")?;
        for (job, count) in &wanted {
            let found = up.iter().filter(|series| series["metric"]["job"] == **job).count();
            if found < *count {
                let targets = prometheus.get("targets?state=active")?;
                return Err(format!("{job}: {found} of {count} are scraped: {targets}"));
            }
        }
        Ok(())
    });
}

#[test]
fn a_real_prometheus_answers_every_query_of_the_dashboards() {
    story("prometheus", |s| {
        let fetch = s.cluster.program("packaging/sandbox/prometheus").arg("fetch").status();
        assert!(fetch.expect("run packaging/sandbox/prometheus").success(), "see above");
        s.step("Debian's Prometheus");
        let prometheus = Prometheus::start(s.cluster);
        all_targets_are_up(s, &prometheus);
        s.step("alarms and configuration are sound; every component is scraped");
        // Something to measure.
        s.start(&[Pod::new("a"), Pod::new("b")]);
        s.pings("a", &s.ip("b"));
        let queries = queries();
        retry(90, || {
            let mut empty = Vec::new();
            for (place, expression) in &queries {
                let excused = WITHOUT_DATA.iter().any(|(metric, _)| expression.contains(metric));
                if prometheus.query(expression)?.is_empty() && !excused {
                    empty.push(format!("{place}: {expression}"));
                }
            }
            if empty.is_empty() { Ok(()) } else { Err(format!("no data: {empty:#?}")) }
        });
        s.step(&format!("{} queries of the dashboards have data", queries.len()));
        let groups = prometheus.get("rules?type=alert").expect("alarms");
        let rules = groups["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        assert!(rules.len() >= 14, "{groups}");
        for rule in &rules {
            assert!(rule["health"] == "ok", "{rule}");
            // An alarm that could never sound would be quiet as well.
            for name in names(&text(&rule["query"])) {
                let found = prometheus.query(&format!("count({name})")).expect("a query");
                assert!(!found.is_empty(), "{}: no data for {name}", rule["name"]);
            }
        }
        retry(90, || {
            let firing = prometheus.query("ALERTS{alertstate=\"firing\"}")?;
            if firing.is_empty() {
                Ok(())
            } else {
                Err(format!("alarms without cause: {firing:?}"))
            }
        });
        s.step(&format!("{} alarms have data and are quiet", rules.len()));
    });
}

/// Metric names in an expression, without their functions and labels.
fn names(expression: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !word(c)).map(str::to_owned);
    let ours = ["kube_ovn_", "pinger_", "subnet_", "cni_"];
    let labels = ["subnet_name"];
    words
        .filter(|w| ours.iter().any(|p| w.starts_with(p)) && !labels.contains(&w.as_str()))
        .collect()
}
