//! A cluster of its own, in a folder of its own: three masters, installed from the air-gapped
//! tarball with no way out and TLS between all components; then masters die.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::PoisonError,
    time::Instant,
};

use serde_json::json;

use crate::{
    churn::kill,
    cluster::{Cluster, is_ready, retry, text, tree},
    pods::Pod,
    story::{TURN, say},
};

const NS: &str = "e2e-masters";
const SYSTEM: [&str; 2] = ["-n", "kube-system"];

/// Removes the cluster and the unpacked tarball whatever happens.
struct Masters {
    cluster: Cluster,
    work: PathBuf,
    last: Cell<Instant>,
}

impl Drop for Masters {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.diagnose();
        }
        let _ = self.cluster.program("cleanup.sh").arg("--sandbox").status();
        let _ = fs::remove_dir_all(&self.work);
    }
}

/// Runs a program to its end; all it says goes to the terminal.
fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}

impl Masters {
    fn new() -> Self {
        let main = std::env::var("SANDBOX_DIR").unwrap_or("/var/lib/kube-ovn-sandbox".into());
        let dir = format!("{main}-masters");
        let work = PathBuf::from(format!("{dir}.work"));
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(&work).expect("folder for the tarball");
        Masters { cluster: Cluster::at(dir.into()), work, last: Cell::new(Instant::now()) }
    }

    fn step(&self, done: &str) {
        say(&format!("   {:5.1} s  {done}", self.last.get().elapsed().as_secs_f64()));
        self.last.set(Instant::now());
    }

    /// The tarball, unpacked and checked, as its README tells.
    fn unpack(&self) -> PathBuf {
        let tarball = self.work.join("airgap.tar.gz");
        let mut binary = Command::new(tree().join("packaging/image/binary"));
        let binary = String::from_utf8(binary.output().expect("the executable").stdout).unwrap();
        let mut pack = Command::new(tree().join("packaging/airgap"));
        run(pack.arg(&tarball).args(["--binary", binary.trim()]));
        run(Command::new("tar").arg("-C").arg(&self.work).arg("-xzf").arg(&tarball));
        let version = fs::read_to_string(tree().join("packaging/VERSION")).unwrap();
        let root = self.work.join(format!("kube-ovn-{}", version.trim()));
        run(Command::new("sha256sum")
            .args(["--check", "--quiet", "SHA256SUMS"])
            .current_dir(&root));
        self.step("the tarball, packed, unpacked and checked");
        root
    }

    /// A bare cluster; nothing in it or beside it has a route out, and there is no registry.
    fn install(&self, root: &Path) {
        self.cluster.install(&["--masters", "3", "--no-network"]);
        self.step("a cluster of three masters without a network");
        let images = self.cluster.enter("node2", &["ctr", "-n", "k8s.io", "images", "ls", "-q"]);
        assert!(!images.unwrap().contains("kubeovn/kube-ovn:"), "the image is there already");
        let mut import = self.cluster.program("packaging/sandbox/image");
        run(import.arg("import").arg(root.join("kube-ovn.tar")));
        self.step("its image on every node");
        // The installer runs where only the nodes can be reached.
        let given = fs::read_to_string(self.cluster.dir.join("kubeconfig")).unwrap();
        let server = given.lines().find_map(|l| l.trim().strip_prefix("server: ")).unwrap();
        let inside = given.replace(server, "https://172.30.0.11:6443");
        let kubeconfig = self.work.join("kubeconfig");
        fs::write(&kubeconfig, inside).unwrap();
        let route = self.cluster.enter("fabric", &["ip", "route", "show", "default"]).unwrap();
        assert_eq!(route, "", "no way out");
        let mut install = self.cluster.program("packaging/sandbox/enter");
        install.arg("fabric").arg(root.join("install.sh")).current_dir(root);
        install.envs([("IMAGE_PULL_POLICY", "Never"), ("IFACE", "eth1"), ("ENABLE_SSL", "true")]);
        run(install.env("KUBECONFIG", &kubeconfig));
        self.step("installed from the tarball, ENABLE_SSL=true");
    }

    /// A write through the member of a node; one that does not lead passes it on.
    fn writes(&self, node: &str) -> Result<(), String> {
        let write = ["set", "NB_Global", ".", "external_ids:e2e=1"];
        let nbctl = ["ovn-nbctl", "--no-leader-only", "--timeout=3"];
        let central = "app=ovn-central";
        self.cluster.exec_system(central, Some(node), &[&nbctl[..], &write].concat()).map(drop)
    }

    /// Databases answer by TLS only, to those with a certificate; everybody else uses it, too.
    fn is_all_tls(&self) {
        let nbctl = |arguments: &[&str]| {
            let command = [&["ovn-nbctl", "--no-leader-only", "--timeout=3"], arguments].concat();
            self.cluster.exec_system("app=ovn-central", Some("node1"), &command)
        };
        let files = ["-p", "/var/run/tls/key", "-c", "/var/run/tls/cert", "-C"];
        let authority = "/var/run/tls/cacert";
        let list = ["ls-list"];
        let secure = ["--db=ssl:[172.30.0.11]:6641"];
        retry(20, || nbctl(&[&secure[..], &files, &[authority], &list].concat()));
        assert!(nbctl(&["--db=tcp:[172.30.0.11]:6641", "ls-list"]).is_err(), "plain text");
        for node in ["node1", "node2", "node3"] {
            let ids = ["get", "Open_vSwitch", ".", "external_ids:ovn-remote"];
            let remote = self.cluster.vsctl(node, &ids).unwrap();
            assert!(remote.contains("ssl:") && !remote.contains("tcp:"), "{node}: {remote}");
        }
        self.step("databases speak TLS only");
    }

    fn start(&self, pod: Pod) {
        let name = format!("pod/{}", pod.name);
        self.cluster.apply(&[pod.manifest(NS)]);
        let wait = ["-n", NS, "wait", "--for=condition=Ready", "--timeout=120s", &name];
        self.cluster.kubectl(&wait).expect("the pod gets ready");
    }

    #[track_caller]
    fn pings(&self, from: &str, to: &str) {
        let pod = self.cluster.objects(&["-n", NS, "pod", to]).remove(0);
        let ip = text(&pod["status"]["podIP"]);
        let ping = ["-n", NS, "exec", from, "--", "ping", "-c", "1", "-W", "1", &ip];
        retry(30, || self.cluster.kubectl(&ping));
    }

    /// Both databases have three members again, as the member of `node` sees it.
    fn is_whole(&self, node: &str) -> Result<(), String> {
        for (socket, database) in [("nb", "OVN_Northbound"), ("sb", "OVN_Southbound")] {
            let socket = format!("/var/run/ovn/ovn{socket}_db.ctl");
            let status = ["ovn-appctl", "-t", &socket, "cluster/status", database];
            let said = self.cluster.exec_system("app=ovn-central", Some(node), &status)?;
            let members = said.lines().filter(|l| l.contains(" at ssl:")).count();
            if members != 3 || !said.contains("Status: cluster member") {
                return Err(format!("{node} {database}: {said}"));
            }
        }
        Ok(())
    }

    fn central_ready(&self) -> Result<(), String> {
        let pods =
            self.cluster.objects(&[&SYSTEM[..], &["pods", "-l", "app=ovn-central"]].concat());
        let ready = pods.iter().filter(|p| is_ready(p)).count();
        if ready == 3 { Ok(()) } else { Err(format!("{ready} of 3 central pods are ready")) }
    }

    fn databases_die(&self) {
        for node in ["node1", "node2", "node3"] {
            kill(&self.cluster, node, "ovsdb-server ").expect("kill the databases of a master");
            retry(60, || self.writes(node));
            self.step(&format!("databases of {node} killed, writable there again"));
            retry(120, || self.central_ready());
        }
    }

    fn controller_dies(&self) {
        let leader = self.cluster.leader();
        let pod = self.cluster.objects(&[&SYSTEM[..], &["pod", &leader]].concat()).remove(0);
        kill(&self.cluster, &text(&pod["spec"]["nodeName"]), "start-controller").unwrap();
        // Its container may be back first and take its own lease again: who leads does not matter.
        retry(60, || self.cluster.settled_metric("kube_ovn_rows"));
        self.step("the leading controller killed, everything applied again");
    }

    /// node1 has the only API server of a sandbox; any other master may lose its power.
    fn master_loses_power(&self) {
        let power = |verb: &str| {
            run(self.cluster.program("packaging/sandbox/node").args([verb, "node3"]));
        };
        power("stop");
        self.last.set(Instant::now());
        retry(60, || self.writes("node1"));
        self.step("power of node3 lost, databases writable");
        self.start(Pod::new("after-loss").on("node2"));
        self.pings("first", "after-loss");
        self.step("and a new pod talks");
        power("start");
        self.last.set(Instant::now());
        retry(120, || self.is_whole("node3"));
        self.step("power is back, both databases have three members");
        retry(120, || self.central_ready());
        self.start(Pod::new("after-return").on("node3"));
        self.pings("first", "after-return");
        self.pings("after-return", "after-loss");
        retry(60, || self.cluster.settled_metric("kube_ovn_rows"));
        self.step("and a new pod on it talks");
    }

    fn diagnose(&self) {
        for args in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["-n", NS, "get", "events", "--sort-by=.lastTimestamp"],
            &[&SYSTEM[..], &["logs", "-l", "app=ovn-central", "--tail=15", "--prefix"]].concat(),
            &[&SYSTEM[..], &["logs", "-l", "app=kube-ovn-controller", "--tail=15", "--prefix"]]
                .concat(),
        ] {
            let output = self.cluster.kubectl(args).unwrap_or_else(|error| error);
            say(&format!("--- kubectl {}\n{output}", args.join(" ")));
        }
    }
}

#[test]
fn three_masters_from_a_tarball_over_tls_survive_the_loss_of_any() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    say("\n== masters");
    let begun = Instant::now();
    let all = Masters::new();
    let root = all.unpack();
    all.install(&root);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}});
    all.cluster.apply(&[namespace]);
    let account = ["-n", NS, "get", "serviceaccount", "default"];
    retry(20, || all.cluster.kubectl(&account));
    all.start(Pod::new("first").on("node1"));
    all.start(Pod::new("second").on("node3"));
    all.pings("first", "second");
    all.step("pods of two nodes talk");
    all.is_all_tls();
    all.databases_die();
    all.controller_dies();
    all.master_loses_power();
    say(&format!("   {:5.1} s in all: masters", begun.elapsed().as_secs_f64()));
}
