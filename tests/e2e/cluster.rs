//! The sandbox as seen from outside: kubectl, a shell in nodes, OVN's programs, metrics.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::pods::TELLS_ADDRESS;

/// Source tree: install.sh and packaging/.
pub fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| default.into(), PathBuf::from)
}

pub struct Node {
    pub name: String,
    /// Its first InternalIP.
    pub ip: String,
}

/// One sandbox; all programs of it by their paths.
pub struct Cluster {
    pub dir: PathBuf,
    kubectl: PathBuf,
    /// Programs of the nodes' own system, static.
    busybox: PathBuf,
}

/// How a command ended: its standard output, or all that it said.
pub type Answer = Result<String, String>;

impl Cluster {
    pub fn at(dir: PathBuf) -> Self {
        let cache = folder("SANDBOX_CACHE", "/var/cache/kube-ovn-sandbox");
        Cluster {
            dir,
            kubectl: cache.join("kubernetes/bin/kubectl"),
            busybox: cache.join("node-rootfs/usr/bin/busybox"),
        }
    }

    /// The cluster of all stories; made if there is none.
    pub fn get() -> &'static Cluster {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(|| {
            let cluster = Cluster::at(folder("SANDBOX_DIR", "/var/lib/kube-ovn-sandbox"));
            if !cluster.is_ready() {
                cluster.install(&[]);
            }
            cluster
        })
    }

    fn is_ready(&self) -> bool {
        let agents = self.kubectl(&[
            "-n",
            "kube-system",
            "rollout",
            "status",
            "daemonset/kube-ovn-cni",
            "--timeout=60s",
        ]);
        self.dir.join("kubeconfig").exists() && agents.is_ok()
    }

    /// `install.sh --sandbox`, which also shows that the result carries traffic.
    pub fn install(&self, options: &[&str]) {
        let status = self.program("install.sh").arg("--sandbox").args(options).status();
        assert!(
            status.expect("run install.sh").success(),
            "install.sh --sandbox failed, see above"
        );
    }

    /// Another value for a flag of a workload in kube-system, as the manual has administrators edit
    /// it; waits until it runs with that.
    pub fn set_flag(&self, workload: &str, flag: &str, value: &str) {
        let mut object = self.objects(&["-n", "kube-system", workload]).remove(0);
        let (start, mut found) = (format!("{flag}="), 0);
        let containers = object["spec"]["template"]["spec"]["containers"].as_array_mut();
        for container in containers.into_iter().flatten() {
            for field in ["args", "command"] {
                for arg in container[field].as_array_mut().into_iter().flatten() {
                    if text(arg).starts_with(&start) {
                        (*arg, found) = (format!("{start}{value}").into(), found + 1);
                    }
                }
            }
        }
        assert_eq!(found, 1, "{workload} has {flag} once");
        for key in ["resourceVersion", "uid", "managedFields"] {
            object["metadata"][key].take();
        }
        self.apply(&[object]);
        let rollout = ["-n", "kube-system", "rollout", "status", workload, "--timeout=120s"];
        self.kubectl(&rollout).expect("rollout");
    }

    /// A program of the source tree that acts on this sandbox.
    pub fn program(&self, path: &str) -> Command {
        let mut command = Command::new(tree().join(path));
        command
            .env("SANDBOX_DIR", &self.dir)
            .env("KUBECONFIG", self.dir.join("kubeconfig"))
            .env("KUBECTL", &self.kubectl)
            .current_dir(tree());
        command
    }

    /// A program of the host that finds this cluster's kubectl.
    pub fn shell(&self, command: &mut Command) -> Answer {
        let own = self.kubectl.parent().unwrap_or(Path::new("/")).display();
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("KUBECONFIG", self.dir.join("kubeconfig")).env("PATH", format!("{own}:{path}"));
        answer(run(command, ""), "a shell")
    }

    pub fn kubectl(&self, args: &[&str]) -> Answer {
        self.kubectl_with(args, "")
    }

    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> Answer {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.dir.join("kubeconfig")).args(args);
        answer(run(&mut command, stdin), &format!("kubectl {}", args.join(" ")))
    }

    /// `kubectl get ... -o json`; a list gives its items.
    pub fn objects(&self, args: &[&str]) -> Vec<Value> {
        let text = retry(30, || self.kubectl(&[&["get", "-o", "json"], args].concat()));
        let value: Value = serde_json::from_str(&text).expect("JSON of kubectl");
        match value.get("items") {
            Some(items) => items.as_array().cloned().unwrap_or_default(),
            None => vec![value],
        }
    }

    pub fn apply(&self, objects: &[Value]) {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl_with(&["apply", "-f", "-"], &list.to_string()).expect("apply objects");
    }

    /// Names and addresses, node1 first.
    pub fn nodes(&self) -> Vec<Node> {
        let nodes = self.objects(&["nodes"]).into_iter().map(|node| {
            let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
            let internal = addresses.iter().find(|a| a["type"] == "InternalIP");
            Node { name: text(&node["metadata"]["name"]), ip: text(&internal.unwrap()["address"]) }
        });
        let mut nodes: Vec<Node> = nodes.collect();
        nodes.sort_by_key(|n| (n.name.len(), n.name.clone()));
        assert!(nodes.len() >= 3, "{} nodes, three are needed", nodes.len());
        nodes
    }

    /// A command in all namespaces of a node, or in the outside world (`fabric`).
    pub fn enter(&self, node: &str, args: &[&str]) -> Answer {
        self.enter_with(node, args, "")
    }

    /// A busybox program in the namespace that plays the outside. Not the host's own busybox: a
    /// static one of another release may crash where it looks up names.
    pub fn ask_from_outside(&self, args: &[&str]) -> Answer {
        let busybox = self.busybox.to_string_lossy();
        let command: Vec<&str> = [&*busybox].into_iter().chain(args.iter().copied()).collect();
        self.enter("fabric", &command)
    }

    pub fn enter_with(&self, node: &str, args: &[&str], stdin: &str) -> Answer {
        let mut command = self.program("packaging/sandbox/enter");
        answer(run(command.arg(node).args(args), stdin), &format!("{node}: {}", args.join(" ")))
    }

    /// kubectl exec in the ready pod of kube-system that has these labels, on a node or anywhere.
    pub fn exec_system(&self, labels: &str, node: Option<&str>, args: &[&str]) -> Answer {
        let mut selector = vec!["-n", "kube-system", "pods", "-l", labels];
        let field = node.map(|n| format!("--field-selector=spec.nodeName={n}"));
        selector.extend(field.as_deref());
        let pods = self.objects(&selector);
        let running = pods.iter().find(|p| is_ready(p)).ok_or(format!("no ready pod {labels}"))?;
        let name = text(&running["metadata"]["name"]);
        self.kubectl(&[&["-n", "kube-system", "exec", &name, "--"], args].concat())
    }

    /// ovn-nbctl where the database leads.
    pub fn nbctl(&self, args: &[&str]) -> Answer {
        let socket = ["ovn-nbctl", "--no-leader-only"];
        self.exec_system("app=ovn-central,ovn-nb-leader=true", None, &[&socket, args].concat())
    }

    pub fn vsctl(&self, node: &str, args: &[&str]) -> Answer {
        self.exec_system("app=ovs", Some(node), &[&["ovs-vsctl"], args].concat())
    }

    /// Name of the controller pod that leads.
    pub fn leader(&self) -> String {
        let lease = self.objects(&["-n", "kube-system", "lease", "kube-ovn-controller"]);
        let holder = text(&lease[0]["spec"]["holderIdentity"]);
        holder.split('_').next().unwrap_or_default().to_owned()
    }

    /// A controller that stories killed often gets a new pod: the kubelet waits longer and longer
    /// (5 minutes at last) to start the old one again.
    pub fn renew_worn_controller(&self) {
        const OFTEN: u64 = 3;
        let pods = self.objects(&["-n", "kube-system", "pods", "-l", "app=kube-ovn-controller"]);
        let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        let worn = pods.iter().filter(|pod| restarts(pod).is_some_and(|n| n >= OFTEN));
        let worn: Vec<String> = worn.map(|pod| text(&pod["metadata"]["name"])).collect();
        for pod in &worn {
            let delete = ["-n", "kube-system", "delete", "pod", "--ignore-not-found", pod];
            self.kubectl(&delete).expect("the old pod of the controller goes");
        }
        if !worn.is_empty() {
            retry(120, || self.settled_metric("kube_ovn_rows"));
        }
    }

    /// Metrics without labels of the leading controller.
    pub fn controller_metrics(&self) -> Result<BTreeMap<String, f64>, String> {
        let leader = self.leader();
        let pods = self.objects(&["-n", "kube-system", "pods", "-l", "app=kube-ovn-controller"]);
        let pod = pods.iter().find(|p| text(&p["metadata"]["name"]) == leader);
        let pod = pod.ok_or(format!("no pod for the holder of the lease, {leader}"))?;
        let ip = text(&pod["status"]["podIP"]);
        let node = text(&pod["spec"]["nodeName"]);
        let url = format!("http://{}:10660/metrics", bracketed(&ip));
        let page = self.enter(&node, &["busybox", "wget", "-qO-", "-T", "5", &url])?;
        let samples = page.lines().filter(|l| !l.starts_with('#') && !l.contains('{'));
        Ok(samples
            .filter_map(|l| {
                l.split_once(' ').map(|(n, v)| (n.to_owned(), v.parse().unwrap_or(f64::NAN)))
            })
            .collect())
    }

    /// The figure, once the controller says that all it knows is applied.
    pub fn settled_metric(&self, name: &str) -> Result<f64, String> {
        let metrics = self.controller_metrics()?;
        if metrics.get("kube_ovn_settled") != Some(&1.0) {
            return Err("the controller is not settled".to_owned());
        }
        metrics.get(name).copied().ok_or(format!("no metric {name}"))
    }

    /// Address of the web server that is outside of the cluster.
    pub fn outside(&self) -> &'static str {
        let config = fs::read_to_string(self.dir.join("config")).unwrap_or_default();
        if config.contains("FAMILY=v6") { "fd00:172:31::1" } else { "172.31.255.1" }
    }

    /// The first text where nodes have IPv4 addresses, else the second.
    pub fn choose<'t>(&self, v4: &'t str, v6: &'t str) -> &'t str {
        if self.outside().contains(':') { v6 } else { v4 }
    }

    /// The text for an IPv4 or an IPv6 cluster; both, with a comma, for a dual-stack one.
    pub fn by_family(&self, v4: &str, v6: &str) -> String {
        let config = fs::read_to_string(self.dir.join("config")).unwrap_or_default();
        if config.contains("FAMILY=v6") {
            v6.to_owned()
        } else if config.contains("FAMILY=dual") {
            format!("{v4},{v6}")
        } else {
            v4.to_owned()
        }
    }

    /// Lets the web server outside answer `/cgi-bin/me` with the address that it sees.
    pub fn outside_tells_addresses(&self) {
        use std::os::unix::fs::PermissionsExt;
        let folder = self.dir.join("run/fabric/www/cgi-bin");
        fs::create_dir_all(&folder).expect("folder of the outside web server");
        let script = folder.join("me");
        fs::write(&script, TELLS_ADDRESS).expect("script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("script mode");
    }
}

fn run(command: &mut Command, stdin: &str) -> std::io::Result<Output> {
    let input = if stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends without reading it says why by itself.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    child.wait_with_output()
}

fn answer(output: std::io::Result<Output>, what: &str) -> Answer {
    let output = output.unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {}: {stdout}{}", output.status, stderr.trim()))
}

/// Asks again until there is an answer; panics with the last refusal after `seconds`.
#[track_caller]
pub fn retry<T>(seconds: u64, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match ask() {
            Ok(found) => return found,
            Err(refusal) if Instant::now() > end => panic!("after {seconds} s still: {refusal}"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// A JSON string's text; empty for anything else.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An address as it stands in a URL.
pub fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// `name = value` rows of `--format=json list` as objects of strings, sets and maps kept as JSON.
pub fn ovs_rows(json: &str) -> Vec<BTreeMap<String, Value>> {
    let table: Value = serde_json::from_str(json).expect("JSON of an OVS tool");
    let headings: Vec<String> = table["headings"].as_array().unwrap().iter().map(text).collect();
    let rows = table["data"].as_array().unwrap().iter();
    rows.map(|row| headings.iter().cloned().zip(row.as_array().unwrap().iter().cloned()).collect())
        .collect()
}

/// A value of an OVSDB map, `["map", [[key, value]...]]`.
pub fn map_value(map: &Value, key: &str) -> Option<String> {
    let pairs = map[1].as_array()?;
    pairs.iter().find(|pair| pair[0] == key).map(|pair| text(&pair[1]))
}

/// The address 100 higher in the network of an address.
pub fn another_in_its_network(address: &str) -> String {
    let (prefix, last, radix, separator) = match address.rsplit_once(':') {
        Some((prefix, last)) => (prefix, last, 16, ':'),
        None => address.rsplit_once('.').map(|(p, l)| (p, l, 10, '.')).expect("an address"),
    };
    let last = u32::from_str_radix(last, radix).expect("its last part") + 100;
    if radix == 16 { format!("{prefix}{separator}{last:x}") } else { format!("{prefix}.{last}") }
}
