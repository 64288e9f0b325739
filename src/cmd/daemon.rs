//! The node agent: CNI server, host networking, local OVS.

use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context;
use clap::ArgMatches;
use k8s_openapi::api::core::v1 as core;
use kube::Client;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Applet, api_client,
    controller::service_cidrs,
    daemon_options::{self, DaemonOptions, Task, TunnelType},
    options::{self, Environment},
    runtime,
};
use crate::{
    api::{ExternalGateway, Invalid, Node, Pod, ServiceCidr, Settings, Subnet, crd, parse},
    host::{Datapath, MirrorScope, NetworkType},
    kernel::{iptables, sysctl},
    node::{
        apply::Executor,
        attach::Attacher,
        chassis::annotate,
        check_ports::serve_check_ports,
        cni_server::{Socket, serve},
        datapath::report_datapath,
        events::PodEvents,
        feed::changes,
        figures,
        health::{JoinHealth, Reach},
        install::{Installed, install_conflist},
        metrics::Metrics,
        netem::watch_netem,
        reconcile::{HostConfig, HostLoop, HostStatus},
        resolve::{ConflictProbe, NodeFacts},
        service::handler,
        state::Cluster,
        vswitch::Vswitch,
    },
    store::watch::{Scope, Watches},
    telemetry::{self, Probes, Snapshot},
};

pub const APPLET: Applet = Applet {
    name: "kube-ovn-daemon",
    aliases: &["kube-ovn-cni"],
    about: "Node agent: CNI server, host networking, local Open vSwitch",
    example: "kube-ovn-daemon --node-name=node1 --iface=eth1 \
              --service-cluster-ip-range=10.96.0.0/12",
    command: daemon_options::command,
    run,
};

pub const START: Applet = Applet {
    name: "start-cniserver",
    aliases: &[],
    about: "Wait for Open vSwitch on this node, then run kube-ovn-daemon",
    example: "start-cniserver --iface=eth1",
    command: APPLET.command,
    run,
};

/// Lost links and files somebody removed are looked for this often.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let hostname = nix::unistd::gethostname().context("read the host name")?;
    let hostname = hostname.to_string_lossy();
    let options = DaemonOptions::parse(matches, &Environment::current(), &hostname)?;
    telemetry::log::init(&options.log)?;
    options.notes.iter().for_each(|note| tracing::info!("{note}"));
    match options.task {
        Task::InstallConflist => {
            conflist(&options)?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Serve => runtime::block_on(serve_node(options)),
    }
}

fn conflist(options: &DaemonOptions) -> anyhow::Result<()> {
    let target = options.conflist.folder.join(&options.conflist.name);
    if install_conflist(&options.conflist.source, &target)? == Installed::Written {
        tracing::info!(path = %target.display(), "conflist is installed");
    }
    Ok(())
}

/// A client for the cluster; an empty path means the service account of the pod.
async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        None => kube::Config::incluster().context("no service account; give --kubeconfig")?,
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path)
                .with_context(|| format!("read kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &Default::default()).await?
        }
    };
    options::limit_silence(&mut config);
    Ok(api_client::client(config)?)
}

/// Settings that decide how a Subnet is read; the watch takes a plain function.
static SETTINGS: OnceLock<Settings> = OnceLock::new();

fn parse_subnet(raw: &crd::Subnet) -> Result<Subnet, Vec<Invalid>> {
    match SETTINGS.get() {
        Some(settings) => parse::parse_accepted_subnet(raw, settings),
        None => Err(Vec::new()),
    }
}

/// The controller's flags that a node has, and defaults for the rest.
fn settings(options: &DaemonOptions) -> Settings {
    Settings {
        cluster_router: options.cluster_router.as_str().into(),
        default_subnet: "ovn-default".into(),
        node_switch: options.node_switch.as_str().into(),
        service_cidrs: options.service_cidrs,
        api_server: None,
        pod_nic_type: "veth-pair".into(),
        enable_lb: true,
        enable_np: true,
        load_balancers: Default::default(),
        enable_anp: false,
        keep_vm_ip: true,
        node_local_dns: Vec::new(),
        network_type: "geneve".into(),
        enable_ipsec: false,
        external: Default::default(),
    }
}

/// The watches of a node. They end when the set is dropped.
fn watch_cluster(
    client: Client,
    (node, config): (&str, &str),
    cluster: &Arc<Cluster>,
    tasks: &mut JoinSet<()>,
) {
    let (mut watches, mut updates) = Watches::new(client);
    watches.core::<core::Node, Node>(&Scope::ALL, |raw| Ok(parse::parse_node(raw)));
    watches.core::<core::Pod, Pod>(&Scope::pods_on(node), |raw| Ok(parse::parse_pod(raw)));
    watches.custom::<crd::Subnet, Subnet>(parse_subnet);
    watches.core::<core::ConfigMap, ExternalGateway>(&Scope::object(config), |raw| {
        Ok(parse::parse_external_gateway(raw))
    });
    watches.foreign::<ServiceCidr>(&service_cidrs(), parse::parse_service_cidr);
    let cluster = cluster.clone();
    tasks.spawn(async move {
        let _watches = watches;
        let mut batch = Vec::new();
        while updates.recv_many(&mut batch, 1024).await > 0 {
            cluster.apply(batch.drain(..).flat_map(changes));
        }
    });
}

fn host_config(options: &DaemonOptions) -> HostConfig {
    let tunnel = &options.tunnel;
    HostConfig {
        node: options.node_name.as_str().into(),
        tunnel_interface: tunnel.interfaces.join(",").into(),
        userspace_interface: tunnel.userspace_interface.as_str().into(),
        allow_host_masks: tunnel.host_prefix_allowed,
        pod_ip: tunnel.address,
        mtu: tunnel.mtu.map_or(0, u32::from),
        encap_checksum: tunnel.checksum,
        network_type: match tunnel.kind {
            TunnelType::Geneve => NetworkType::Geneve,
            TunnelType::Vxlan => NetworkType::Vxlan,
        },
        vxlan_tx_off: !tunnel.vxlan_checksum_offload,
        cluster_router: options.cluster_router.as_str().into(),
        service_cidrs: options.service_cidrs.iter().map(|(_, cidr)| *cidr).collect(),
        mirror: (
            options.mirror_interface.as_str().into(),
            if options.mirror_all { MirrorScope::All } else { MirrorScope::Pods },
        ),
        external: (
            options.external_switch.as_str().into(),
            options.external_config.as_str().into(),
        ),
    }
}

/// Why the daemon is not ready; the reason is the body of `/readyz`.
fn readiness(
    attacher: &Attacher,
    host: &watch::Receiver<HostStatus>,
    reach: &watch::Receiver<Reach>,
) -> Result<(), String> {
    attacher.status().map_err(|error| error.to_string())?;
    match &host.borrow().result {
        None => return Err("the host is not configured yet".to_owned()),
        Some(Err(problem)) => return Err(problem.clone()),
        Some(Ok(())) => {}
    }
    match *reach.borrow() {
        Reach::Reachable => Ok(()),
        _ => Err("the join gateway does not answer on ovn0".to_owned()),
    }
}

async fn serve_node(options: DaemonOptions) -> anyhow::Result<ExitCode> {
    let client = client(options.kubeconfig.as_deref()).await?;
    let _ = SETTINGS.set(settings(&options));
    let mut tasks = JoinSet::new();
    let cluster = Arc::new(Cluster::default());
    let watched = (options.node_name.as_str(), options.external_config.as_str());
    watch_cluster(client.clone(), watched, &cluster, &mut tasks);
    let vswitch = Vswitch::connect(&options.ovs_socket);
    let executor = Executor::new(vswitch.clone());
    let metrics = Metrics::register(telemetry::metrics::registry(), &options.node_name)?;
    let events = PodEvents::new(client.clone(), &options.node_name.as_str().into());
    tasks.spawn(watch_netem(cluster.clone(), vswitch.clone(), events.clone()));
    let (facts, seen_facts) = watch::channel(NodeFacts {
        node: options.node_name.as_str().into(),
        datapath: Datapath::System,
        overlay_mtu: None,
        conflict_probe: match options.detect_address_conflict {
            true => ConflictProbe::On,
            false => ConflictProbe::Off,
        },
    });
    let attacher =
        Attacher::new(cluster.clone(), executor.clone(), seen_facts, Some(metrics.clone()))
            .with_events(events.clone());
    let host = HostLoop::new(host_config(&options), cluster.clone(), executor.clone(), facts);
    let (reach_sender, reach) = watch::channel(Reach::Unknown);
    let health = JoinHealth {
        cluster: cluster.clone(),
        node: options.node_name.as_str().into(),
        client: Some(client.clone()),
        reach: reach_sender,
    };
    let host_status = host.status.subscribe();
    let ready = {
        let (attacher, reach) = (attacher.clone(), reach.clone());
        Arc::new(move || readiness(&attacher, &host_status, &reach))
    };
    let probes = Probes { live: Arc::new(|| Ok(())), ready };
    let _serving = telemetry::serve(&options.serving, probes, Some(client.clone())).await?;
    let shown = Snapshot::register(telemetry::metrics::registry(), figures::FAMILIES)?;
    let name = options.node_name.as_str().into();
    tasks.spawn(figures::show_node(name, executor.clone(), shown));
    prepare_firewall(executor);
    let stop = CancellationToken::new();
    let socket = Socket::bind(&options.cni_socket)?;
    let served = serve(socket, handler(attacher.clone()), Some(metrics), stop.clone());
    let server = tokio::spawn(served);
    let node: crate::api::Text = options.node_name.as_str().into();
    tasks.spawn(report_datapath(client.clone(), node.clone(), Arc::clone(&vswitch)));
    tasks.spawn(annotate(client, node, cluster, vswitch));
    tasks.spawn(health.run());
    if let Some((tcp, udp)) = options.check_ports {
        tasks.spawn(async move {
            if let Err(error) = serve_check_ports(tcp, udp).await {
                tracing::error!(tcp, udp, %error, "connectivity check ports are not served");
            }
        });
    }
    tasks.spawn(housekeeping(options, attacher, reach));
    let result = tokio::select! {
        signal = runtime::shutdown() => signal.map(|()| ExitCode::SUCCESS),
        ended = host.run() => match ended {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(error.into()),
        },
    };
    // Requests in flight undo themselves; the socket file goes with the server.
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(5), server).await;
    result
}

/// Container runtimes set FORWARD to DROP, which would cut off pods of other networks.
fn prepare_firewall(executor: Executor) {
    tokio::task::spawn_blocking(move || {
        let result = executor.backend().and_then(iptables::accept_forward);
        if let Err(error) = result {
            tracing::warn!(%error, "the policy of chain FORWARD is left as it is");
        }
    });
}

/// The conflist appears when an ADD can succeed, not before (upstream writes it from an init
/// container, and pods fail until the daemon is up), and is put back if it vanishes.
async fn housekeeping(
    options: DaemonOptions,
    attacher: Attacher,
    mut reach: watch::Receiver<Reach>,
) {
    let _ = reach.wait_for(|reach| *reach == Reach::Reachable).await;
    loop {
        if let Err(error) = conflist(&options) {
            tracing::error!(%error, "conflist cannot be installed");
        }
        match attacher.remove_stale().await {
            Ok(nics) if nics.is_empty() => {}
            Ok(nics) => tracing::info!(?nics, "attachments of vanished sandboxes are removed"),
            Err(error) => tracing::warn!(%error, "attachments of vanished sandboxes stay"),
        }
        tokio::time::sleep(HOUSEKEEPING).await;
    }
}

/// Forwarding between pods and the world, per family of the node: `net.ipv4.ip_forward=1` and
/// `rp_filter=0`, or `net.ipv6.conf.all.forwarding=1`.
pub(super) fn enable_forwarding(env: &Environment) -> anyhow::Result<()> {
    let addresses = env.addresses("POD_IPS")?;
    for (name, value, v4) in [
        ("net.ipv4.ip_forward", "1", true),
        ("net.ipv4.conf.all.rp_filter", "0", true),
        ("net.ipv6.conf.all.forwarding", "1", false),
    ] {
        if addresses.iter().any(|ip| ip.is_ipv4() == v4) {
            sysctl::write(name, value)?;
        }
    }
    Ok(())
}
