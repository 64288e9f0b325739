//! The cluster as the commands see it: raw objects by path, pods by role, commands in them.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;

use super::{
    exec::{self, Ended, Input, Place},
    tape::{Said, Tape},
};
use crate::api::names::label;

/// The two databases of OVN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Northbound,
    Southbound,
}

impl Database {
    pub const BOTH: [Database; 2] = [Database::Northbound, Database::Southbound];

    /// `nb` or `sb`, as in file names and commands.
    pub fn short(self) -> &'static str {
        match self {
            Database::Northbound => "nb",
            Database::Southbound => "sb",
        }
    }

    pub fn schema(self) -> &'static str {
        match self {
            Database::Northbound => "OVN_Northbound",
            Database::Southbound => "OVN_Southbound",
        }
    }

    pub fn control_socket(self) -> String {
        format!("/var/run/ovn/ovn{}_db.ctl", self.short())
    }

    pub fn socket(self) -> String {
        format!("unix:/var/run/ovn/ovn{}_db.sock", self.short())
    }

    pub fn file(self) -> String {
        format!("/etc/ovn/ovn{}_db.db", self.short())
    }

    fn leader_label(self) -> &'static str {
        match self {
            Database::Northbound => label::NB_LEADER,
            Database::Southbound => label::SB_LEADER,
        }
    }
}

/// How the cluster answers.
#[derive(Clone)]
enum Source {
    Live,
    /// Live, and every answer is kept.
    Recording(Arc<Tape>),
    Replay(Arc<Tape>),
}

#[derive(Clone)]
pub struct Cluster {
    /// Asks through the tape if there is one.
    pub client: Client,
    /// Goes past the tape, for what is no list of objects.
    direct: Client,
    source: Source,
    /// Of Kube-OVN itself.
    pub namespace: String,
    /// Address of the API server, for messages.
    pub server: String,
}

impl Cluster {
    /// By kubeconfig file and context; without them as kubectl does it.
    pub async fn connect(
        kubeconfig: Option<&str>,
        context: Option<&str>,
        namespace: &str,
    ) -> anyhow::Result<Self> {
        let options =
            KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
        let mut config = match (kubeconfig, context) {
            (Some(path), _) => {
                let file = Kubeconfig::read_from(path)
                    .with_context(|| format!("read kubeconfig {path}"))?;
                Config::from_custom_kubeconfig(file, &options).await.context("use kubeconfig")?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.context("use kubeconfig")?,
            (None, None) => Config::infer().await.context("find the Kubernetes API")?,
        };
        // Captures and database dumps take as long as they take.
        (config.read_timeout, config.write_timeout) = (None, None);
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).context("make a Kubernetes client")?;
        let direct = client.clone();
        let namespace = namespace.to_owned();
        Ok(Cluster { client, direct, source: Source::Live, namespace, server })
    }

    /// A cluster that only exists on tape.
    pub fn replay(tape: Arc<Tape>, namespace: &str) -> Self {
        let client = tape.client(None);
        Cluster {
            direct: client.clone(),
            client,
            source: Source::Replay(tape),
            namespace: namespace.to_owned(),
            server: "support bundle".to_owned(),
        }
    }

    /// The same cluster; every answer goes to the tape.
    pub fn recording(&self, tape: &Arc<Tape>) -> Self {
        Cluster {
            client: tape.client(Some(self.direct.clone())),
            source: Source::Recording(Arc::clone(tape)),
            ..self.clone()
        }
    }

    pub fn is_live(&self) -> bool {
        !matches!(self.source, Source::Replay(_))
    }

    /// An object or list by path and query; `None` when there is no such object or resource.
    pub async fn get(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let request = get_request(path)?;
        match self.client.request::<Value>(request).await {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(anyhow!(error).context(format!("ask {} for {path}", self.server))),
        }
    }

    /// The objects of a list; none when the resource does not exist.
    pub async fn list(&self, path: &str, labels: &str) -> anyhow::Result<Vec<Value>> {
        let query = match labels {
            "" => path.to_owned(),
            labels => format!("{path}?labelSelector={}", labels.replace('=', "%3D")),
        };
        let list = self.get(&query).await?;
        let items = list.and_then(|mut list| match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Some(items),
            _ => None,
        });
        Ok(items.unwrap_or_default())
    }

    /// Merges a change into an object.
    pub async fn patch(&self, path: &str, change: &Value) -> anyhow::Result<()> {
        let request = axum::http::Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(change.to_string().into_bytes())?;
        self.direct.request::<Value>(request).await.with_context(|| format!("change {path}"))?;
        Ok(())
    }

    /// Creates an object in a list.
    pub async fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        let request = axum::http::Request::post(path)
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())?;
        self.direct.request(request).await.with_context(|| format!("create {}", name(object)))
    }

    /// Deletes an object; one that does not exist is no error.
    pub async fn delete(&self, path_and_query: &str) -> anyhow::Result<()> {
        let request = axum::http::Request::delete(path_and_query).body(Vec::new())?;
        match self.direct.request::<Value>(request).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(anyhow!(error).context(format!("delete {path_and_query}"))),
        }
    }

    /// Path of a workload of Kube-OVN: `deployments/ovn-central`, `daemonsets/ovs-ovn`.
    pub fn workload(&self, kind_and_name: &str) -> String {
        format!("/apis/apps/v1/namespaces/{}/{kind_and_name}", self.namespace)
    }

    /// A document of an HTTP endpoint of a pod, through the API server.
    pub async fn page(&self, pod: &str, port: u16, path: &str) -> anyhow::Result<String> {
        let question = format!("http {pod} {port} {path}");
        if let Source::Replay(tape) = &self.source {
            let said = tape.said(&question).context("the bundle has no such page")?;
            return Ok(said.stdout);
        }
        let ns = &self.namespace;
        let uri = format!("/api/v1/namespaces/{ns}/pods/{pod}:{port}/proxy{path}");
        let request = get_request(&uri)?;
        let text = self.direct.request_text(request).await?;
        if let Source::Recording(tape) = &self.source {
            tape.note(&question, Said { stdout: text.clone(), ..Said::default() });
        }
        Ok(text)
    }

    /// The end of a container's log.
    pub async fn log(&self, pod: &str, container: &str, lines: &str) -> anyhow::Result<String> {
        self.must_be_live()?;
        let ns = &self.namespace;
        let path = format!(
            "/api/v1/namespaces/{ns}/pods/{pod}/log?container={container}&tailLines={lines}"
        );
        let text = self.direct.request_text(get_request(&path)?).await;
        text.with_context(|| format!("read the log of {pod}"))
    }

    pub async fn system_pods(&self, labels: &str) -> anyhow::Result<Vec<Value>> {
        self.list(&format!("/api/v1/namespaces/{}/pods", self.namespace), labels).await
    }

    /// A ready container of the pods with these labels, on a node or anywhere. Ready is the
    /// container, not the pod: one that others injected does not count (upstream wanted `1/1`).
    pub async fn place(
        &self,
        labels: &str,
        container: &str,
        node: Option<&str>,
    ) -> anyhow::Result<Option<Place>> {
        let pods = self.system_pods(labels).await?;
        let on_node = pods.iter().filter(|p| node.is_none_or(|n| p["spec"]["nodeName"] == n));
        Ok(on_node.filter(|pod| is_ready(pod, container)).map(|p| place_of(p, container)).next())
    }

    /// All ready containers of a component, by node.
    pub async fn places(&self, app: &str, container: &str) -> anyhow::Result<Vec<Place>> {
        let pods = self.system_pods(&format!("app={app}")).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod, container));
        let mut all: Vec<Place> = ready.map(|pod| place_of(pod, container)).collect();
        all.sort_by(|a, b| (a.node.len(), &a.node).cmp(&(b.node.len(), &b.node)));
        Ok(all)
    }

    /// The ovn-central container that leads a database.
    pub async fn leader(&self, database: Database) -> anyhow::Result<Place> {
        let labels = format!("app=ovn-central,{}=true", database.leader_label());
        let found = self.place(&labels, "ovn-central", None).await?;
        found.with_context(|| {
            format!(
                "no {} leader: no ready ovn-central pod in {} has the label {}=true",
                database.short(),
                self.namespace,
                database.leader_label()
            )
        })
    }

    /// The Open vSwitch container of a node.
    pub async fn switch(&self, node: &str) -> anyhow::Result<Place> {
        self.on_node(node, "ovs", "openvswitch").await
    }

    /// The node agent.
    pub async fn agent(&self, node: &str) -> anyhow::Result<Place> {
        self.on_node(node, "kube-ovn-cni", "cni-server").await
    }

    async fn on_node(&self, node: &str, app: &str, container: &str) -> anyhow::Result<Place> {
        if let Some(place) = self.place(&format!("app={app}"), container, Some(node)).await? {
            return Ok(place);
        }
        if self.get(&format!("/api/v1/nodes/{node}")).await?.is_none() {
            bail!("there is no node {node:?}; 'kubectl get nodes' lists them");
        }
        bail!("no ready {app} pod on node {node}");
    }

    /// Runs a command and returns all it said; a support bundle knows only what was asked then.
    pub async fn ask<S: AsRef<str>>(&self, at: &Place, command: &[S]) -> anyhow::Result<Ended> {
        let command: Vec<String> = command.iter().map(|word| word.as_ref().to_owned()).collect();
        let question = format!("{} {}", at.pod, exec::shown(&command));
        if let Source::Replay(tape) = &self.source {
            let said = tape.said(&question);
            let said = said.with_context(|| format!("the bundle has no answer to: {question}"))?;
            let (code, stdout, stderr) = (said.code, said.stdout.into_bytes(), said.stderr);
            return Ok(Ended { code, stdout, stderr });
        }
        let ended = exec::capture(&self.direct, at, &command).await?;
        if let Source::Recording(tape) = &self.source {
            let stdout = String::from_utf8_lossy(&ended.stdout).into_owned();
            let (code, stderr) = (ended.code, ended.stderr.clone());
            tape.note(&question, Said { code, stdout, stderr });
        }
        Ok(ended)
    }

    /// As [`Cluster::ask`]; the command must succeed.
    pub async fn text<S: AsRef<str>>(&self, at: &Place, command: &[S]) -> anyhow::Result<String> {
        let ended = self.ask(at, command).await?;
        let stdout = String::from_utf8_lossy(&ended.stdout).into_owned();
        if ended.code != 0 {
            let program = command.first().map(AsRef::as_ref).unwrap_or_default();
            let said = format!("{}{stdout}", ended.stderr);
            bail!("{program} in {} ended with {}: {}", at.pod, ended.code, said.trim());
        }
        Ok(stdout)
    }

    /// Runs a command on our own standard streams.
    pub async fn stream(&self, at: &Place, command: &[String], input: Input) -> anyhow::Result<u8> {
        self.must_be_live()?;
        exec::stream(&self.direct, at, command, input).await
    }

    /// Runs a command that reads `input`; it must succeed.
    pub async fn feed(&self, at: &Place, command: &[&str], input: &[u8]) -> anyhow::Result<()> {
        self.must_be_live()?;
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let ended = exec::feed(&self.direct, at, &command, input).await?;
        if ended.code != 0 {
            bail!("{} in {}: {}", exec::shown(&command), at.pod, ended.stderr.trim());
        }
        Ok(())
    }

    pub fn must_be_live(&self) -> anyhow::Result<()> {
        if self.is_live() { Ok(()) } else { bail!("this needs a cluster, not a support bundle") }
    }
}

fn get_request(path_and_query: &str) -> anyhow::Result<axum::http::Request<Vec<u8>>> {
    axum::http::Request::get(path_and_query).body(Vec::new()).context("path of a request")
}

/// A JSON string; empty for anything else.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `metadata.name`
pub fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

/// The elements of a JSON array; none for anything else.
pub fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The container is ready and its pod stays.
pub fn is_ready(pod: &Value, container: &str) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
        && each(&pod["status"]["containerStatuses"])
            .any(|c| text(&c["name"]) == container && c["ready"] == true)
}

fn place_of(pod: &Value, container: &str) -> Place {
    Place {
        namespace: text(&pod["metadata"]["namespace"]).to_owned(),
        pod: name(pod).to_owned(),
        container: container.to_owned(),
        node: text(&pod["spec"]["nodeName"]).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Upstream wanted READY to be 1/1, and found no leader behind a service mesh.
    #[test]
    fn trap_an_injected_sidecar_hides_no_leader() {
        let with = |ours: bool, sidecar: bool| {
            let all = [("ovn-central", ours), ("istio-proxy", sidecar)];
            let all = all.map(|(name, ready)| json!({"name": name, "ready": ready}));
            json!({"metadata": {"name": "p"}, "status": {"containerStatuses": all}})
        };
        assert!(is_ready(&with(true, true), "ovn-central"));
        assert!(is_ready(&with(true, false), "ovn-central"));
        assert!(!is_ready(&with(false, true), "ovn-central"));
    }
}
