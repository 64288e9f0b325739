//! Making a database anew.
//!
//! With a backup file the content is replaced while the servers run, in one transaction. Without
//! one (all files are damaged, or quorum is lost for good) the servers have to stop: ovn-central
//! is scaled to nothing, a pod on each master reads and moves the files, and the first member
//! starts from the best of them. Whatever happens on the way, ovn-central gets its replicas back.
//! (Upstream did the second in the ovs pods, which do not see those files any more, and left
//! ovn-central stopped.)

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Database, each, is_ready, name, text},
    exec::{INTERRUPTED, Place},
};

const CONTAINER: &str = "restore";
const DEPLOYMENT: &str = "deployments/ovn-central";
const PATIENCE: Duration = Duration::from_secs(180);

pub async fn restore(cluster: &Cluster, database: Database, file: &str) -> anyhow::Result<u8> {
    cluster.must_be_live()?;
    if !file.is_empty() {
        return restore_content(cluster, database, file).await;
    }
    if database == Database::Southbound {
        println!("restore is for the northbound database: ovn-northd refills the southbound one");
        return Ok(0);
    }
    let path = cluster.workload(DEPLOYMENT);
    let deployment = cluster.get(&path).await?.context("there is no deployment ovn-central")?;
    let replicas = deployment["spec"]["replicas"].as_u64().unwrap_or(1).max(1);
    println!("ovn-central original replicas is {replicas}");
    let members = members(cluster, &deployment).await?;
    println!(
        "without a backup file: ovn-central stops on {}, the newest of its files founds a new \
         cluster; pods go on talking, changes wait",
        members.iter().map(|m| m.node.as_str()).collect::<Vec<_>>().join(", ")
    );
    let result = tokio::select! {
        result = rebuild(cluster, &deployment, &members) => result.map(|()| 0),
        _ = tokio::signal::ctrl_c() => Ok(INTERRUPTED),
    };
    for member in &members {
        remove(cluster, &member.pod).await;
    }
    cluster.patch(&path, &json!({"spec": {"replicas": replicas}})).await?;
    println!("ovn-central has its replicas back");
    let code = result?;
    if code == 0 {
        wait("ovn-central gets available", || async {
            let now = cluster.get(&path).await?.unwrap_or_default();
            Ok(now["status"]["availableReplicas"].as_u64() == Some(replicas))
        })
        .await?;
        restart(cluster, "daemonsets/ovs-ovn").await?;
        println!("finish restore nb db file and ovn-central replicas");
    }
    Ok(code)
}

/// Replaces the content by that of a backup.
async fn restore_content(cluster: &Cluster, database: Database, file: &str) -> anyhow::Result<u8> {
    let content = std::fs::read(file).with_context(|| format!("read {file}"))?;
    if !content.starts_with(b"OVSDB JSON ") {
        bail!("{file} is no backup of a database (written by 'kubectl ko nb backup')");
    }
    let at = cluster.leader(database).await?;
    let socket = database.socket();
    // ovsdb-client seeks in what it reads, which a pipe does not allow.
    let script = r#"umask 077; f=$(mktemp) || exit 1; trap 'rm -f "$f"' EXIT
cat >"$f" && ovsdb-client restore "$1" "$2" <"$f""#;
    let command = ["sh", "-c", script, "sh", &socket, database.schema()];
    cluster.feed(&at, &command, &content).await?;
    println!("restored ovn-{} db from {file}", database.short());
    Ok(0)
}

/// One master, and the pod that works on its files.
#[derive(Debug, Clone)]
struct Member {
    node: String,
    pod: String,
}

/// The masters, the first of NODE_IPS first: only that one may found the new cluster.
async fn members(cluster: &Cluster, deployment: &Value) -> anyhow::Result<Vec<Member>> {
    let template = &deployment["spec"]["template"]["spec"];
    let env = each(&template["containers"]).flat_map(|c| each(&c["env"]));
    let listed = env.filter(|e| e["name"] == "NODE_IPS").map(|e| text(&e["value"])).next();
    let ips: Vec<&str> =
        listed.unwrap_or_default().split(',').filter(|ip| !ip.is_empty()).collect();
    let nodes = cluster.list("/api/v1/nodes", "kube-ovn/role=master").await?;
    // Refused before anything stops. Its files would stay, and two such masters that come back later
    // are a majority of the old cluster.
    if let Some(down) = nodes.iter().find(|node| !is_node_ready(node)) {
        let down = name(down);
        bail!(
            "node {down} is not Ready, so its database files cannot be moved away: start it, or take \
             it out of the masters first (kubectl label node {down} kube-ovn/role- \
             node-role.kubernetes.io/control-plane-; ./install.sh)"
        );
    }
    let rank = |node: &Value| {
        let own: Vec<&str> =
            each(&node["status"]["addresses"]).map(|a| text(&a["address"])).collect();
        ips.iter().position(|ip| own.contains(ip)).unwrap_or(usize::MAX)
    };
    let mut ranked: Vec<(usize, &str)> = nodes.iter().map(|n| (rank(n), name(n))).collect();
    ranked.sort();
    if ranked.is_empty() {
        bail!("no node has the label kube-ovn/role=master");
    }
    let member = |(_, node): (usize, &str)| Member {
        node: node.to_owned(),
        pod: format!("ko-restore-{node}").chars().take(63).collect(),
    };
    Ok(ranked.into_iter().map(member).collect())
}

async fn rebuild(cluster: &Cluster, deployment: &Value, members: &[Member]) -> anyhow::Result<()> {
    let path = cluster.workload(DEPLOYMENT);
    cluster.patch(&path, &json!({"spec": {"replicas": 0}})).await?;
    println!("deployment.apps/ovn-central scaled to 0");
    wait("the ovn-central pods end", || async {
        Ok(cluster.system_pods("app=ovn-central").await?.is_empty())
    })
    .await?;
    let mut places = Vec::new();
    for member in members {
        places.push(start(cluster, deployment, member).await?);
    }
    for place in &places {
        wait("the helper pods start", || async {
            let pods = cluster.system_pods("app=ko-restore").await?;
            Ok(pods.iter().any(|p| name(p) == place.pod && is_ready(p, CONTAINER)))
        })
        .await?;
    }
    let content = best_content(cluster, &places).await?;
    println!("backup nb db file");
    for place in &places {
        let script = "d=/etc/ovn/before-restore-$(date +%s); mkdir -p $d; \
                      for f in /etc/ovn/ovn?b_db.db /etc/ovn/ovn?b_db.hdr; do \
                      [ ! -e $f ] || mv $f $d/; done; echo $d";
        let folder = cluster.text(place, &["sh", "-c", script]).await?;
        println!("{}: the old files are in {} (of ovn-central)", place.node, folder.trim());
    }
    let first = places.first().context("no master")?;
    println!("restore nb db file on {}", first.node);
    let script = "umask 077; cat > /etc/ovn/ovnnb_db.new && \
                  chown --reference=/etc/ovn /etc/ovn/ovnnb_db.new && \
                  mv /etc/ovn/ovnnb_db.new /etc/ovn/ovnnb_db.db";
    cluster.feed(first, &["sh", "-c", script], &content).await
}

fn is_node_ready(node: &Value) -> bool {
    each(&node["status"]["conditions"]).any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Term and index of the last entry of a raft log, as `ovsdb-tool show-log` tells them; nothing for
/// a file that is not clustered.
fn last_entry(log: &str) -> (u64, u64) {
    let last = |key: &str| {
        let values = log.lines().filter_map(|line| line.trim().strip_prefix(key));
        values.filter_map(|value| value.trim().parse().ok()).next_back().unwrap_or_default()
    };
    (last("term:"), last("index:"))
}

/// The content of the file with the newest entry: the first one that can be read may be that of a
/// member which had fallen behind.
async fn best_content(cluster: &Cluster, places: &[Place]) -> anyhow::Result<Vec<u8>> {
    let script = "t=$(mktemp -d); trap 'rm -rf $t' EXIT; f=/etc/ovn/ovnnb_db.db; \
                  ovsdb-tool cluster-to-standalone $t/db $f 2>$t/err || \
                  { ovsdb-tool db-name $f >/dev/null && cp $f $t/db; } || { cat $t/err >&2; exit 1; }; \
                  cat $t/db";
    let newest = "ovsdb-tool show-log /etc/ovn/ovnnb_db.db 2>/dev/null | \
                  grep -E '^ *(term|index): ' | tail -n 40";
    let mut reasons = Vec::new();
    let mut best: Option<((u64, u64), &Place, Vec<u8>)> = None;
    for place in places {
        let ended = cluster.ask(place, &["sh", "-c", script]).await?;
        if ended.code != 0 || !ended.stdout.starts_with(b"OVSDB JSON ") {
            reasons.push(format!("{}: {}", place.node, ended.stderr.trim()));
            continue;
        }
        let log = cluster.ask(place, &["sh", "-c", newest]).await?;
        let entry = last_entry(&String::from_utf8_lossy(&log.stdout));
        if best.as_ref().is_none_or(|(older, ..)| entry > *older) {
            best = Some((entry, place, ended.stdout));
        }
    }
    if let Some((_, place, content)) = best {
        println!("the newest readable file is on node {}", place.node);
        return Ok(content);
    }
    bail!(
        "no member has a readable file ({}); the controller rebuilds an empty database from the \
         Kubernetes API: remove /etc/origin/ovn/ovn*_db.* on the masters instead",
        reasons.join("; ")
    )
}

/// A pod on the member's node that sees the folder of the databases.
async fn start(cluster: &Cluster, deployment: &Value, member: &Member) -> anyhow::Result<Place> {
    let template = &deployment["spec"]["template"]["spec"];
    let container = each(&template["containers"]).next().context("ovn-central has no container")?;
    let mount = each(&container["volumeMounts"]).find(|m| m["mountPath"] == "/etc/ovn");
    let volume = mount.map(|m| text(&m["name"])).context("ovn-central does not mount /etc/ovn")?;
    let volume = each(&template["volumes"]).find(|v| v["name"] == volume).cloned();
    let mut volume = volume.context("ovn-central has no volume for /etc/ovn")?;
    volume["name"] = json!("databases");
    remove(cluster, &member.pod).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": member.pod, "labels": {"app": "ko-restore"}},
        "spec": {
            "nodeName": member.node, "hostNetwork": true, "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "activeDeadlineSeconds": 900,
            "tolerations": [{"operator": "Exists"}],
            "volumes": [volume],
            "containers": [{
                "name": CONTAINER, "image": container["image"],
                "imagePullPolicy": container["imagePullPolicy"],
                "command": ["sleep", "900"], "securityContext": {"runAsUser": 0},
                "volumeMounts": [{"mountPath": "/etc/ovn", "name": "databases"}],
            }],
        },
    });
    let path = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    wait("an older helper pod ends", || async {
        Ok(cluster.get(&format!("{path}/{}", member.pod)).await?.is_none())
    })
    .await?;
    cluster.create(&path, &pod).await?;
    Ok(Place {
        namespace: cluster.namespace.clone(),
        pod: member.pod.clone(),
        container: CONTAINER.to_owned(),
        node: member.node.clone(),
    })
}

async fn remove(cluster: &Cluster, pod: &str) {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}", cluster.namespace);
    if let Err(error) = cluster.delete(&path).await {
        eprintln!("kubectl ko: {error:#}; delete it by hand");
    }
}

/// `kubectl rollout restart`
pub async fn restart(cluster: &Cluster, workload: &str) -> anyhow::Result<()> {
    let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
    let change = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    cluster.patch(&cluster.workload(workload), &change).await
}

/// Asks twice a second how much is left until nothing is. There is no limit for the whole: a
/// thousand nodes take their time. There is one for the next step.
pub async fn progress<F, R>(what: &str, mut left: F) -> anyhow::Result<()>
where
    F: FnMut() -> R,
    R: Future<Output = anyhow::Result<usize>>,
{
    let (mut least, mut end) = (usize::MAX, tokio::time::Instant::now() + PATIENCE);
    loop {
        // A moment without the API server (the network restarts) is no step back.
        let last = match left().await {
            Ok(0) => return Ok(()),
            Ok(now) if now < least => {
                (least, end) = (now, tokio::time::Instant::now() + PATIENCE);
                String::new()
            }
            Ok(now) => format!(": {now} left"),
            Err(error) => format!(": {error:#}"),
        };
        if tokio::time::Instant::now() >= end {
            bail!("waited {} s for the next step until {what}{last}", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Asks twice a second until it is so.
pub async fn wait<F, R>(what: &str, mut is_so: F) -> anyhow::Result<()>
where
    F: FnMut() -> R,
    R: Future<Output = anyhow::Result<bool>>,
{
    let end = tokio::time::Instant::now() + PATIENCE;
    let mut last = String::new();
    while tokio::time::Instant::now() < end {
        match is_so().await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = format!(": {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    bail!("waited {} s until {what}{last}", PATIENCE.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_a_raft_log_counts() {
        let log = "record 0:\n name: \"OVN_Northbound\"\n prev_term: 1\n prev_index: 1\n\
                   record 1:\n term: 1\n index: 2\nrecord 2:\n term: 3\n index: 17\n";
        assert_eq!(last_entry(log), (3, 17));
        assert!(last_entry(log) > last_entry("record 0:\n term: 2\n index: 400\n"));
        assert_eq!(last_entry("record 0: \"OVN_Northbound\" schema\n"), (0, 0));
    }

    #[test]
    fn a_node_without_power_is_not_ready() {
        let node = |status: &str| {
            json!({"status": {"conditions": [
            {"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": status}]}})
        };
        assert!(is_node_ready(&node("True")));
        assert!(!is_node_ready(&node("Unknown")) && !is_node_ready(&json!({})));
    }
}
