//! `log`: the logs of all nodes, and what Linux says there, in `./kubectl-ko-log/<node>/`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};

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
            for at in cluster.places(app, container).await? {
                let target = folder.join(&at.node).join(name);
                note(&at, copy(&cluster, &at, path, &target).await);
            }
        }
    }
    if wish == "linux" || wish == "all" {
        let agents = cluster.places("kube-ovn-cni", "cni-server").await?;
        for (name, script) in LINUX {
            println!("Collecting linux {name} files");
            for at in &agents {
                let target = folder.join(&at.node).join("linux");
                note(at, say(&cluster, at, script, &target.join(format!("{name}.log"))).await);
            }
        }
    }
    println!("Collected files have been saved in the directory {}", folder.display());
    Ok(0)
}

/// What one node cannot give does not keep the others back.
fn note(at: &Place, result: anyhow::Result<()>) {
    if let Err(error) = result {
        eprintln!("kubectl ko: {}: {error:#}", at.node);
    }
}

/// A folder of a pod, as a tar over the wire.
async fn copy(cluster: &Cluster, at: &Place, path: &str, target: &Path) -> anyhow::Result<()> {
    // Logs grow while they are read: tar says so with exit code 1.
    let script = format!("cd {path} && tar cf - --exclude='*.gz' . ; [ $? -le 1 ]");
    let ended = cluster.ask(at, &["sh", "-c", &script]).await?;
    anyhow::ensure!(ended.code == 0, "read {path}: {}", ended.stderr.trim());
    std::fs::create_dir_all(target).with_context(|| format!("make {}", target.display()))?;
    let mut archive = tar::Archive::new(&ended.stdout[..]);
    archive.set_preserve_permissions(false);
    archive.unpack(target).with_context(|| format!("write {}", target.display()))
}

async fn say(cluster: &Cluster, at: &Place, script: &str, file: &PathBuf) -> anyhow::Result<()> {
    let ended = cluster.ask(at, &["sh", "-c", script]).await?;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let content = [&ended.stdout[..], ended.stderr.as_bytes()].concat();
    std::fs::write(file, content).with_context(|| format!("write {}", file.display()))
}
