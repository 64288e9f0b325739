//! `reload`, `env-check`, `tuning`: the components and what surrounds them.

use anyhow::bail;
use clap::{ArgMatches, Command};
use serde_json::Value;

use super::{
    Arguments, Session, Tool,
    cluster::{Cluster, each, name},
    database_restore::{progress, restart},
};

pub const RELOAD: Tool = Tool {
    name: "reload",
    aliases: &[],
    about: "Restart all components of Kube-OVN, one after the other; traffic goes on",
    example: "reload",
    arguments: Arguments::Own,
    command: |command: Command| command,
    run: |session, matches| Box::pin(reload(session, matches)),
};

pub const ENV_CHECK: Tool = Tool {
    name: "env-check",
    aliases: &[],
    about: "Look on every node for what is known to disturb the network; gives advice only",
    example: "env-check",
    arguments: Arguments::Own,
    command: |command: Command| command,
    run: |session, matches| Box::pin(env_check(session, matches)),
};

pub const TUNING: Tool = Tool {
    name: "tuning",
    aliases: &[],
    about: "Gone since v1.14: kernel modules for CentOS 7 and 8",
    example: "tuning",
    arguments: Arguments::HandedOn,
    command: |command: Command| command.hide(true).arg(super::handed_on("arguments")),
    run: |_, _| {
        Box::pin(async {
            bail!(
                "tuning installed kernel modules (fastpath, STT) for CentOS 7 and 8 and is gone \
                 since v1.14; the kernels of today need none"
            )
        })
    },
};

/// How a component is restarted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Means {
    /// All pods at once; the workload makes new ones.
    Delete,
    /// One after the other, as the workload's strategy says.
    Roll,
}

/// What is restarted: the workload, the label of its pods, and how.
const WORKLOADS: &[(&str, &str, Means)] = &[
    // Member by member: all at once would take the quorum away.
    ("deployments/ovn-central", "app=ovn-central", Means::Roll),
    // A new switch takes over from the old one on its node.
    ("daemonsets/ovs-ovn", "app=ovs", Means::Roll),
    ("deployments/kube-ovn-controller", "app=kube-ovn-controller", Means::Delete),
    ("daemonsets/kube-ovn-cni", "app=kube-ovn-cni", Means::Delete),
    ("daemonsets/kube-ovn-pinger", "app=kube-ovn-pinger", Means::Delete),
    ("deployments/kube-ovn-monitor", "app=kube-ovn-monitor", Means::Delete),
];

async fn reload(session: &Session<'_>, _: &ArgMatches) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    cluster.must_be_live()?;
    for (workload, labels, means) in WORKLOADS {
        if cluster.get(&cluster.workload(workload)).await?.is_none() {
            continue;
        }
        let old = cluster.system_pods(labels).await?;
        let old: Vec<String> = old.iter().map(|pod| name(pod).to_owned()).collect();
        match means {
            Means::Delete => delete_pods(&cluster, &old).await?,
            Means::Roll => restart(&cluster, workload).await?,
        }
        let what = format!("{workload} is rolled out");
        progress(&what, || replaced(&cluster, workload, labels, &old)).await?;
        println!("{workload} successfully rolled out");
    }
    Ok(0)
}

async fn delete_pods(cluster: &Cluster, pods: &[String]) -> anyhow::Result<()> {
    for pod in pods {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}", cluster.namespace);
        cluster.delete(&path).await?;
        println!("pod {pod:?} deleted");
    }
    Ok(())
}

/// How many pods are still to be replaced. The pods themselves are asked, too: the status of a
/// workload whose pods were deleted a moment ago still counts those.
async fn replaced(
    cluster: &Cluster,
    workload: &str,
    labels: &str,
    old: &[String],
) -> anyhow::Result<usize> {
    let pods = cluster.system_pods(labels).await?;
    let is_old = |pod: &&Value| old.iter().any(|old| old == name(pod));
    let ready = |pod: &&Value| {
        each(&pod["status"]["conditions"]).any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let remaining = pods.iter().filter(is_old).count();
    let new = pods.iter().filter(|pod| !is_old(pod)).filter(ready).count();
    let missing = remaining + old.len().saturating_sub(new);
    let done = missing == 0 && rolled_out(cluster, workload).await?;
    Ok(if done { 0 } else { missing.max(1) })
}

/// All pods are of the newest template, and ready.
pub async fn rolled_out(cluster: &Cluster, workload: &str) -> anyhow::Result<bool> {
    let object = cluster.get(&cluster.workload(workload)).await?;
    Ok(object.is_some_and(|object| is_rolled_out(&object)))
}

fn is_rolled_out(object: &Value) -> bool {
    let status = &object["status"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let observed = object["metadata"]["generation"] == status["observedGeneration"];
    let (wanted, now) = match object["spec"].get("replicas") {
        Some(replicas) => {
            (number(replicas), [&status["updatedReplicas"], &status["availableReplicas"]])
        }
        None => (
            number(&status["desiredNumberScheduled"]),
            [&status["updatedNumberScheduled"], &status["numberAvailable"]],
        ),
    };
    observed && wanted > 0 && now.into_iter().all(|n| number(n) == wanted)
}

/// `key value` lines about a node; the host's files are under the root of its first process.
const LOOK: &str = r#"r=/proc/1/root
for f in "$r"/etc/cni/net.d/*; do [ -e "$f" ] && echo "cni ${f##*/}"; done
echo "mtu_probing $(cat /proc/sys/net/ipv4/tcp_mtu_probing 2>/dev/null)"
echo "tw_recycle $(cat /proc/sys/net/ipv4/tcp_tw_recycle 2>/dev/null)"
awk '/^Tcp:/ {if (!n) {n=NF; for (i=1;i<=NF;i++) h[i]=$i} else for (i=1;i<=NF;i++) if (h[i]=="InCsumErrors") print "csum", $i}' /proc/net/snmp
grep -n '\.com' "$r/etc/resolv.conf" 2>/dev/null | sed 's/^/resolv /'
for p in /proc/[0-9]*/comm; do c=$(cat "$p" 2>/dev/null); case $c in *firewall*|*security*|*qax*|*safe*|*defence*|*vmsec*) echo "process $c";; esac; done
exit 0"#;

async fn env_check(session: &Session<'_>, _: &ArgMatches) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    let agents = cluster.places("kube-ovn-cni", "cni-server").await?;
    if agents.is_empty() {
        bail!("no ready kube-ovn-cni pod in {}", cluster.namespace);
    }
    for at in agents {
        println!("----- node {} -----", at.node);
        let advice = advice(&cluster.text(&at, &["sh", "-c", LOOK]).await?);
        advice.iter().for_each(|line| println!("{line}"));
        if advice.is_empty() {
            println!("nothing that is known to disturb");
        }
    }
    Ok(0)
}

/// What to think about, out of the lines of [`LOOK`].
fn advice(look: &str) -> Vec<String> {
    let line = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        match (key, value.trim()) {
            ("cni", file) if !file.contains("kube-ovn") => Some(format!(
                "/etc/cni/net.d/{file} is of another network plugin: the first file in order wins"
            )),
            ("mtu_probing", "0") => Some(
                "net.ipv4.tcp_mtu_probing is 0: set 1, so that TCP survives routers that drop \
                 fragments in silence"
                    .to_owned(),
            ),
            ("tw_recycle", "1") => {
                Some("net.ipv4.tcp_tw_recycle is 1: set 0, it breaks clients behind NAT".to_owned())
            }
            ("csum", n) if n != "0" => Some(format!(
                "{n} TCP segments had a wrong checksum: turn off tx checksum offload of the tunnel \
                 NIC if it grows"
            )),
            ("resolv", entry) => Some(format!(
                "resolv.conf has {entry:?}: a search domain that answers for every name makes pods \
                 resolve Services wrongly"
            )),
            ("process", name) => {
                Some(format!("process {name} runs: security software may drop tunnel packets"))
            }
            _ => None,
        }
    };
    look.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn advice_is_given_for_what_disturbs_only() {
        let good = "cni 01-kube-ovn.conflist\nmtu_probing 1\ntw_recycle \ncsum 0\n";
        assert!(advice(good).is_empty(), "{:?}", advice(good));
        let bad = "cni 10-calico.conflist\nmtu_probing 0\ntw_recycle 1\ncsum 7\nresolv 2:search \
                   x.com\nprocess firewalld\n";
        assert_eq!(advice(bad).len(), 6, "{:?}", advice(bad));
    }

    #[test]
    fn rollouts() {
        let daemon = |updated, available| {
            json!({"metadata": {"generation": 2}, "spec": {}, "status": {"observedGeneration": 2,
                "desiredNumberScheduled": 3, "updatedNumberScheduled": updated,
                "numberAvailable": available}})
        };
        assert!(is_rolled_out(&daemon(3, 3)));
        assert!(!is_rolled_out(&daemon(2, 3)));
        assert!(!is_rolled_out(&daemon(3, 2)));
        let deployment = json!({"metadata": {"generation": 1}, "spec": {"replicas": 1},
            "status": {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1}});
        assert!(is_rolled_out(&deployment));
    }
}
