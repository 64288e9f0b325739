//! One user story: a namespace, steps with their seconds, removal of all it made, and what the
//! cluster knows when it fails.

use std::{
    cell::{Cell, RefCell},
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, retry, text},
    pods::Pod,
};

/// Stories change one cluster: one at a time.
pub static TURN: Mutex<()> = Mutex::new(());

/// Not captured by the harness, so that progress is seen while it happens.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub struct Story {
    pub cluster: &'static Cluster,
    /// Namespace of the story.
    pub ns: String,
    last: Cell<Instant>,
    /// Cluster-wide objects to delete, `KIND NAME`, in reverse order.
    extra: RefCell<Vec<(String, String)>>,
}

/// Runs `body` in a namespace `e2e-<name>`.
pub fn story(name: &str, body: impl FnOnce(&Story)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::get();
    let story = Story {
        cluster,
        ns: format!("e2e-{name}"),
        last: Cell::new(Instant::now()),
        extra: RefCell::default(),
    };
    say(&format!("\n== {name}"));
    let begun = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| {
        story.begin();
        body(&story);
    }));
    if let Err(reason) = &result {
        let message = reason.downcast_ref::<String>().map_or("", String::as_str);
        say(&format!("FAILED {name}: {message}"));
        story.diagnose();
    }
    let removed = catch_unwind(AssertUnwindSafe(|| story.remove()));
    say(&format!("   {:5.1} s in all: {name}", begun.elapsed().as_secs_f64()));
    for outcome in [result, removed] {
        if let Err(reason) = outcome {
            resume_unwind(reason);
        }
    }
}

impl Story {
    fn begin(&self) {
        self.cluster.renew_worn_controller();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": self.ns, "labels": {"e2e": "true"}}});
        // One of an earlier, aborted run may still be on its way out.
        retry(60, || {
            let found =
                self.cluster.kubectl(&["get", "namespace", &self.ns, "--ignore-not-found"])?;
            if found.contains("Terminating") { Err(found) } else { Ok(()) }
        });
        self.cluster.apply(&[namespace]);
        retry(20, || self.kubectl(&["get", "serviceaccount", "default"]));
        self.last.set(Instant::now());
    }

    /// Reports a finished step.
    pub fn step(&self, done: &str) {
        say(&format!("   {:5.1} s  {done}", self.last.get().elapsed().as_secs_f64()));
        self.last.set(Instant::now());
    }

    /// kubectl in the story's namespace.
    pub fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.cluster.kubectl(&[&["-n", &self.ns], args].concat())
    }

    /// Creates pods without waiting for them.
    pub fn create(&self, pods: &[Pod]) {
        let manifests: Vec<Value> = pods.iter().map(|pod| pod.manifest(&self.ns)).collect();
        self.cluster.apply(&manifests);
    }

    /// Creates pods and waits until they are ready.
    pub fn start(&self, pods: &[Pod]) {
        self.create(pods);
        let names: Vec<&str> = pods.iter().map(|p| p.name.as_str()).collect();
        self.wait_ready(&names);
        self.step(&format!("ready: {}", names.join(", ")));
    }

    pub fn wait_ready(&self, pods: &[&str]) {
        let pods: Vec<String> = pods.iter().map(|p| format!("pod/{p}")).collect();
        let mut args = vec!["wait", "--for=condition=Ready", "--timeout=90s"];
        args.extend(pods.iter().map(String::as_str));
        self.kubectl(&args).expect("pods get ready");
    }

    pub fn pod(&self, name: &str) -> Value {
        self.cluster.objects(&["-n", &self.ns, "pod", name]).remove(0)
    }

    pub fn ip(&self, pod: &str) -> String {
        retry(60, || {
            let ip = text(&self.pod(pod)["status"]["podIP"]);
            if ip.is_empty() { Err(format!("pod {pod} has no address")) } else { Ok(ip) }
        })
    }

    pub fn delete_pods(&self, pods: &[&str]) {
        let args = [&["delete", "pod", "--grace-period=0", "--force"], pods].concat();
        self.kubectl(&args).expect("delete pods");
    }

    /// Messages of the events of a reason on an object of the namespace.
    pub fn events(&self, object: &str, reason: &str) -> Vec<String> {
        let selector = format!("involvedObject.name={object},reason={reason}");
        let events =
            self.cluster.objects(&["-n", &self.ns, "events", "--field-selector", &selector]);
        events.iter().map(|e| text(&e["message"])).collect()
    }

    /// Waits for an event whose message holds all the words.
    pub fn wait_event(&self, object: &str, reason: &str, words: &[&str]) {
        retry(30, || {
            let events = self.events(object, reason);
            let told = events.iter().any(|m| words.iter().all(|w| m.contains(w)));
            if told {
                Ok(())
            } else {
                Err(format!("no event {reason} of {object} with {words:?} among {events:?}"))
            }
        });
    }

    /// The same of an object that has no namespace.
    pub fn wait_event_of_cluster(&self, object: &str, reason: &str, words: &[&str]) {
        let selector = format!("involvedObject.name={object},reason={reason}");
        retry(30, || {
            let events = self.cluster.objects(&["-A", "events", "--field-selector", &selector]);
            let messages: Vec<String> = events.iter().map(|e| text(&e["message"])).collect();
            let told = messages.iter().any(|m| words.iter().all(|w| m.contains(w)));
            if told { Ok(()) } else { Err(format!("no event {reason} of {object}: {messages:?}")) }
        });
    }

    /// A cluster-wide object to delete at the end.
    pub fn goes_with(&self, kind: &str, name: &str) {
        self.extra.borrow_mut().push((kind.into(), name.into()));
    }

    /// An object of the cluster that goes with the story.
    pub fn extra(&self, kind: &str, name: &str) {
        self.extra.borrow_mut().push((kind.into(), name.into()));
    }

    /// Objects that may not be taken just now.
    pub fn try_apply(&self, objects: &[Value]) -> Result<String, String> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.cluster.kubectl_with(&["apply", "-f", "-"], &list.to_string())
    }

    /// Creates a Subnet, which goes with the story.
    pub fn subnet(&self, name: &str, spec: Value) {
        self.goes_with("subnet", name);
        self.put_subnet(name, spec);
    }

    pub fn put_subnet(&self, name: &str, spec: Value) {
        self.cluster.apply(&[json!({"apiVersion": "kubeovn.io/v1", "kind": "Subnet",
            "metadata": {"name": name}, "spec": spec})]);
    }

    /// Waits for a condition of a Subnet; gives its message.
    pub fn wait_condition(&self, subnet: &str, kind: &str, status: &str) -> String {
        retry(30, || {
            let object = self.cluster.objects(&["subnet", subnet]).remove(0);
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.iter().find(|c| c["type"] == kind && c["status"] == status);
            found.map(|c| text(&c["message"])).ok_or_else(|| {
                format!("subnet {subnet} has no condition {kind}={status}: {conditions:?}")
            })
        })
    }

    fn remove(&self) {
        self.step("(done)");
        let _ = self.kubectl(&[
            "delete",
            "deployments,statefulsets,pods",
            "--all",
            "--grace-period=0",
            "--force",
        ]);
        let extra = self.extra.take();
        for (kind, name) in extra.iter().rev() {
            self.cluster
                .kubectl(&["delete", kind, name, "--ignore-not-found", "--timeout=60s"])
                .expect("an object of the story goes");
        }
        self.cluster.kubectl(&["delete", "namespace", &self.ns, "--wait=false"]).expect("removal");
        self.step("removed what it made");
    }

    fn diagnose(&self) {
        let system = ["-n", "kube-system"];
        for args in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["-n", &self.ns, "get", "events", "--sort-by=.lastTimestamp"],
            &["-n", &self.ns, "describe", "pods"],
            &["get", "subnets,ips.kubeovn.io"],
        ] {
            self.show(args, 40);
        }
        for app in ["kube-ovn-controller", "kube-ovn-cni", "ovs", "ovn-central"] {
            let label = format!("app={app}");
            let logs = ["logs", "-l", &label, "--tail=15", "--prefix", "--ignore-errors"];
            self.show(&[&system[..], &logs].concat(), 60);
        }
    }

    fn show(&self, args: &[&str], lines: usize) {
        say(&format!("--- kubectl {}", args.join(" ")));
        let output = self.cluster.kubectl(args).unwrap_or_else(|error| error);
        let all: Vec<&str> = output.lines().collect();
        for line in &all[all.len().saturating_sub(lines)..] {
            say(&line.chars().take(240).collect::<String>());
        }
    }
}
