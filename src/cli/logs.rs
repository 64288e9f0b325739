//! `log`: the logs of all nodes, and what Linux says there, in `./kubectl-ko-log/<node>/`.

use std::path::Path;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};
use futures::StreamExt;

use super::{Arguments, Session, Tool, argument, cluster::Cluster, exec::Place};

pub const TOOL: Tool = Tool {
    name: "log",
    aliases: &[],
    about: "Save the logs of all nodes below ./kubectl-ko-log",
    example: "log all\nlog ovn",
    arguments: Arguments::Own,
    command: |command: Command| {
        command.arg(
            Arg::new("component")
                .required(true)
                .value_name("COMPONENT")
                .value_parser(["kube-ovn", "ovn", "ovs", "linux", "all"]),
        )
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

const FOLDER: &str = "kubectl-ko-log";

/// Component, its folder, who has it, and where.
const LOGS: &[(&str, &str, &str, &str, &str)] = &[
    ("kube-ovn", "kube-ovn", "kube-ovn-cni", "cni-server", "/var/log/kube-ovn"),
    ("ovn", "ovn", "ovs", "openvswitch", "/var/log/ovn"),
    ("ovs", "openvswitch", "ovs", "openvswitch", "/var/log/openvswitch"),
];

/// File, and what is written into it.
const LINUX: &[(&str, &str)] = &[
    ("dmesg", "dmesg"),
    (
        "iptables-legacy",
        "for p in iptables-legacy ip6tables-legacy; do $p -V; for t in filter nat; do echo \"----- $p $t -----\"; $p-save -t $t; done; done",
    ),
    (
        "iptables-nft",
        "for p in iptables-nft ip6tables-nft; do $p -V; for t in filter nat; do echo \"----- $p $t -----\"; $p-save -t $t; done; done",
    ),
    ("route", "ip route show table all; ip -6 route show table all; ip rule"),
    ("link", "ip -d -s link"),
    ("neigh", "ip neigh"),
    ("memory", "free -m"),
    ("top", "top -b -n 1"),
    ("sysctl", "sysctl -a"),
    ("netstat", "ss -tunlp"),
    ("addr", "ip address"),
    ("ipset", "ipset list"),
    ("tcp", "cat /proc/net/sockstat /proc/net/sockstat6"),
    ("ipsec", "cat /etc/ipsec.conf; ls -l /etc/ovs_ipsec_keys; ipsec statusall"),
    ("xfrm", "ip xfrm policy; ip xfrm state | grep -v -E 'auth|enc|aead'"),
];

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let wish = argument(matches, "component");
    let cluster = session.cluster().await?;
    cluster.must_be_live()?;
    let folder = std::env::current_dir().context("find the current directory")?.join(FOLDER);
    for (component, name, app, container, path) in LOGS {
        if wish == *component || wish == "all" {
            println!("Collecting {name} logging files");
            // Logs grow while they are read: tar says so with exit code 1.
            let script = format!("cd {path} && tar cf - --exclude='*.gz' . ; [ $? -le 1 ]");
            collect(&cluster, (app, container), &script, (&folder, name)).await?;
        }
    }
    if wish == "linux" || wish == "all" {
        println!("Collecting linux files");
        collect(&cluster, ("kube-ovn-cni", "cni-server"), &linux(), (&folder, "linux")).await?;
    }
    println!("Collected files have been saved in the directory {}", folder.display());
    Ok(0)
}

/// Nodes that are asked at a time.
const AT_ONCE: usize = 8;

/// Everything that Linux says of itself, as one tar.
fn linux() -> String {
    let mut script = "d=$(mktemp -d) || exit 1; trap 'rm -rf \"$d\"' EXIT\n".to_owned();
    for (name, command) in LINUX {
        script.push_str(&format!("( {command} ) >\"$d/{name}.log\" 2>&1\n"));
    }
    script + "tar cf - -C \"$d\" ."
}

/// What a script writes as a tar, of every node in a folder of its own. What one node cannot give
/// does not keep the others back.
async fn collect(
    cluster: &Cluster,
    (app, container): (&str, &str),
    script: &str,
    (folder, name): (&Path, &str),
) -> anyhow::Result<()> {
    let places = cluster.places(app, container).await?;
    let all = futures::stream::iter(&places).for_each_concurrent(AT_ONCE, async |at| {
        let target = folder.join(&at.node).join(name);
        if let Err(error) = unpack(cluster, at, script, &target).await {
            eprintln!("kubectl ko: {}: {error:#}", at.node);
        }
    });
    all.await;
    Ok(())
}

async fn unpack(cluster: &Cluster, at: &Place, script: &str, target: &Path) -> anyhow::Result<()> {
    let ended = cluster.ask(at, &["sh", "-c", script]).await?;
    anyhow::ensure!(ended.code == 0, "read for {}: {}", target.display(), ended.stderr.trim());
    std::fs::create_dir_all(target).with_context(|| format!("make {}", target.display()))?;
    let mut archive = tar::Archive::new(&ended.stdout[..]);
    archive.set_preserve_permissions(false);
    archive.unpack(target).with_context(|| format!("write {}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_script_asks_for_all_of_linux_and_leaves_nothing() {
        let script = linux();
        assert_eq!(script.matches(".log\" 2>&1").count(), LINUX.len());
        assert!(script.contains("trap 'rm -rf") && script.ends_with("tar cf - -C \"$d\" ."));
    }
}
