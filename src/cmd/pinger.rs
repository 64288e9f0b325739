//! Network quality as a pod sees it.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use clap::ArgMatches;
use k8s_openapi::api::core::v1 as core;
use kube::{Api, Client};
use tokio::time::sleep;

use super::{
    Applet, Usage, api_client,
    options::{self, Environment},
    pinger_options::{self, Mode, PingerOptions},
    runtime,
};
use crate::{
    node::check_ports::serve_check_ports,
    pinger::{
        dns::Resolver,
        metrics::{OVS_FAMILIES, families},
        round::{Own, Pinger, Plan},
        target,
    },
    telemetry::{self, Probes, Recorder, Snapshot},
};

pub const APPLET: Applet = Applet {
    name: "kube-ovn-pinger",
    aliases: &[],
    about: "Probe Open vSwitch, OVN, the API server, pods, nodes, DNS and the outside",
    example: "POD_NAME=$HOSTNAME NODE_NAME=node1 kube-ovn-pinger --mode=job --exit-code=1",
    command: pinger_options::command,
    run,
};

/// Reads of the own pod at start.
const ATTEMPTS: u32 = 3;
/// Half seconds that the addresses may take to appear in it.
const ADDRESS_ATTEMPTS: u32 = 60;

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let options = PingerOptions::parse(matches, &Environment::current())?;
    telemetry::log::init(&options.log).context("start the log")?;
    options.notes.iter().for_each(|note| tracing::info!("{note}"));
    runtime::block_on(probe(options))
}

async fn probe(options: PingerOptions) -> anyhow::Result<ExitCode> {
    let config = options::kube_config(options.kubeconfig.as_deref()).await?;
    let client = api_client::client(config).context("make a Kubernetes client")?;
    let own = own(&options, client.clone()).await?;
    let registry = telemetry::metrics::registry();
    let recorder = Recorder::register(registry, &families()).context("register metrics")?;
    let ovs = match options.mode {
        Mode::Server => Some(Snapshot::register(registry, OVS_FAMILIES)?),
        Mode::Job => None,
    };
    let mut pinger = Pinger::new(own, plan(&options)?, client, recorder, ovs);
    let failed = match options.mode {
        Mode::Job => pinger.run().await.failures > 0,
        Mode::Server => serve(&options, pinger).await?,
    };
    let code = if failed { options.exit_code } else { 0 };
    Ok(ExitCode::from(code))
}

/// Rounds until a signal; whether any failed.
async fn serve(options: &PingerOptions, mut pinger: Pinger) -> anyhow::Result<bool> {
    let asked = Arc::new(AtomicBool::new(false));
    let ready = Arc::clone(&asked);
    let probes = Probes {
        live: Arc::new(|| Ok(())),
        ready: Arc::new(move || match ready.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("the first round is not over".to_owned()),
        }),
    };
    let _serving = telemetry::serve(&options.serving, probes, None).await?;
    if let Some((tcp, udp)) = options.peer_ports {
        tokio::spawn(async move {
            if let Err(error) = serve_check_ports(tcp, udp).await {
                tracing::error!(tcp, udp, %error, "connectivity check ports are not served");
            }
        });
    }
    let failed = AtomicBool::new(false);
    let rounds = async {
        loop {
            let outcome = pinger.run().await;
            asked.store(true, Ordering::Relaxed);
            failed.fetch_or(outcome.failures > 0, Ordering::Relaxed);
            sleep(options.interval).await;
        }
    };
    tokio::select! {
        signal = runtime::shutdown() => signal?,
        () = rounds => {}
    }
    Ok(failed.load(Ordering::Relaxed))
}

/// The own pod tells the families that can be probed.
async fn own(options: &PingerOptions, client: Client) -> anyhow::Result<Own> {
    if options.pod.is_empty() {
        let text = "POD_NAME is not set; set it by the downward API (metadata.name)";
        return Err(Usage(text.to_owned()).into());
    }
    let pods: Api<core::Pod> = Api::namespaced(client, &options.namespace);
    let (mut attempt, mut unnamed) = (1, 0);
    let pod = loop {
        match pods.get(&options.pod).await {
            // kubelet starts the container before it has told the API server the addresses.
            Ok(pod) if target::addresses_of(&pod).is_empty() && unnamed < ADDRESS_ATTEMPTS => {
                unnamed += 1;
                sleep(Duration::from_millis(500)).await;
            }
            Ok(pod) => break pod,
            Err(error) if attempt < ATTEMPTS => {
                tracing::warn!(%error, pod = options.pod, "cannot read the own pod yet");
                attempt += 1;
                sleep(Duration::from_secs(1)).await;
            }
            Err(error) => {
                let pod = format!("{}/{}", options.namespace, options.pod);
                return Err(error).with_context(|| format!("read the own pod {pod}"));
            }
        }
    };
    let addresses = target::addresses_of(&pod);
    let families = target::families_of(&addresses);
    anyhow::ensure!(!families.is_empty(), "pod {} has no address", options.pod);
    let address = match options.pod_address.as_str() {
        "" => addresses.first().map(ToString::to_string).unwrap_or_default(),
        given => given.to_owned(),
    };
    let of_pod = |node: Option<String>, given: &str| match given {
        "" => node.unwrap_or_default(),
        given => given.to_owned(),
    };
    Ok(Own {
        node: of_pod(pod.spec.and_then(|s| s.node_name), &options.node),
        node_address: of_pod(pod.status.and_then(|s| s.host_ip), &options.node_address),
        address,
        families,
    })
}

fn plan(options: &PingerOptions) -> anyhow::Result<Plan> {
    let text = std::fs::read_to_string("/etc/resolv.conf").context("read /etc/resolv.conf")?;
    Ok(Plan {
        namespace: options.namespace.clone(),
        daemon_set: options.daemon_set.clone(),
        internal_dns: options.internal_dns.clone(),
        external_dns: options.external_dns.clone(),
        external_addresses: options.external_addresses.clone(),
        port_checks: options.port_checks.clone(),
        peer_ports: options.peer_ports,
        local: options.local.clone(),
        resolver: Resolver::parse(&text),
    })
}
