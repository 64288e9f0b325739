//! The validating admission webhook.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::ArgMatches;
use kube::Client;

use super::{
    Applet, api_client, controller_options,
    flags::{self, Flag, Given},
    options::{self, Environment},
    runtime,
};
use crate::{
    api::Settings,
    telemetry::{self, Exposure, Probes, Serving, Transport},
    webhook::{
        certificate::{self, Current},
        serve::{Reviewer, serve},
    },
};

pub const APPLET: Applet = Applet {
    name: "kube-ovn-webhook",
    aliases: &[],
    about: "Refuse wrong subnets, VPCs, addresses and NAT rules when they are written",
    example: "kube-ovn-webhook --port=8443 --health-probe-port=8080",
    command,
    run,
};

const FLAGS: &[Flag] = &[
    Flag::number("port", "8443", 65_535, "port for the API server"),
    Flag::number("health-probe-port", "8080", 65_535, "port of /healthz and /readyz"),
    Flag::text("service-cluster-ip-range", "10.96.0.0/12", "prefixes of Services, v4,v6"),
    Flag::text("cluster-router", "ovn-cluster", "name of the default VPC"),
    Flag::text("default-ls", "ovn-default", "name of the default subnet"),
    Flag::text("node-switch", "join", "name of the subnet that joins the nodes"),
    Flag::text("log-perm", "640", "permissions of the log file, octal"),
    Flag::text("kubeconfig", "", "path of a kubeconfig; empty = service account of the pod"),
];

/// Certificate and configuration are looked at this often.
const UPKEEP: Duration = Duration::from_secs(3600);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

fn command() -> clap::Command {
    flags::build(&[FLAGS])
}

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let given = Given(matches);
    let notes = flags::check(&[FLAGS], matches)?;
    let settings = settings(&given)?;
    let addresses = Environment::current().addresses("POD_IP")?;
    telemetry::log::init(&options::log_options(&given)?).context("start the log")?;
    notes.iter().for_each(|note| tracing::info!("{note}"));
    runtime::block_on(async move {
        let config = options::kube_config(options::kubeconfig(&given).as_deref()).await?;
        let client = api_client::client(config).context("make a Kubernetes client")?;
        let identity = first_certificate(&client).await;
        let current = Current::new(&identity)?;
        let health = Serving {
            addresses: addresses.clone(),
            port: given.small("health-probe-port"),
            metrics: Exposure::Hidden,
            transport: Transport::Plain,
        };
        let probes = Probes { live: Arc::new(|| Ok(())), ready: Arc::new(|| Ok(())) };
        let _health = telemetry::serve(&health, probes, None).await?;
        let address = SocketAddr::new(any(&addresses), given.small("port"));
        let reviewer = Arc::new(Reviewer { client: client.clone(), settings });
        let served = serve(address, Arc::clone(&current), reviewer);
        tokio::select! {
            signal = runtime::shutdown() => signal?,
            ended = served => ended?,
            () = keep_certificate(&client, &current) => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The wildcard of the pod's own address; `::` takes both families where the node has IPv6.
fn any(addresses: &[IpAddr]) -> IpAddr {
    match addresses.first() {
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// What the controller's rules depend on: its own settings, by its own flags.
fn settings(given: &Given<'_>) -> anyhow::Result<Settings> {
    let names = ["service-cluster-ip-range", "cluster-router", "default-ls", "node-switch"];
    let words = names.iter().map(|name| format!("--{name}={}", given.text(name)));
    let words = std::iter::once("kube-ovn-controller".to_owned()).chain(words);
    let matches = controller_options::command().try_get_matches_from(words)?;
    Ok(controller_options::settings(&Given(&matches))?)
}

async fn first_certificate(client: &Client) -> certificate::Identity {
    loop {
        match certificate::ensure(client).await {
            Ok(identity) => return identity,
            Err(error) => tracing::warn!(%error, "no certificate yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Renews the certificate in time and keeps the API server trusting it.
async fn keep_certificate(client: &Client, current: &Current) {
    loop {
        let kept = async {
            let identity = certificate::ensure(client).await?;
            current.exchange(&identity)?;
            certificate::announce(client, &identity.authority).await
        };
        let pause = match kept.await {
            Ok(()) => UPKEEP,
            Err(error) => {
                tracing::warn!(%error, "the API server may not trust this webhook");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}
