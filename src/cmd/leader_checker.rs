//! Labels the pods of the database leaders. start-db runs the same loop itself; this applet serves
//! installations whose manifests start it on its own.

use std::{net::IpAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::ArgMatches;

use super::{
    Applet, Usage,
    flags::{self, Flag, Given, Support},
    options, runtime,
};
use crate::{
    central::{
        config::{CentralConfig, Compaction, Paths, process_environment},
        database::Central,
        leader::{self, Plan, PodName},
    },
    kernel::process::Launcher,
    telemetry,
};

pub const APPLET: Applet = Applet {
    name: "kube-ovn-leader-checker",
    aliases: &[],
    about: "Label the ovn-central pods that lead NB, SB and northd",
    example: "kube-ovn-leader-checker --probeInterval=5 --remoteAddresses=10.0.0.2,10.0.0.3",
    command,
    run,
};

const FLAGS: &[Flag] = &[
    Flag::number("probeInterval", "5", 3600, "seconds between two checks"),
    Flag::switch("enableCompact", "true", "compact the databases in every round"),
    Flag::switch("isICDBServer", "false", "check the interconnection databases")
        .support(Support::Later("OVN interconnection")),
    Flag::text("localAddress", "", "address of this server (default: $POD_IP)"),
    Flag::text("remoteAddresses", "", "addresses of all servers, comma separated"),
    Flag::text("kubeconfig", "", "path of a kubeconfig (default: the pod's account)"),
];

fn command() -> clap::Command {
    flags::build(&[FLAGS])
}

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    for note in flags::check(&[FLAGS], matches)? {
        tracing::warn!("{note}");
    }
    let given = Given(matches);
    telemetry::log::init(&options::log_options(&given)?)?;
    let (central, plan) = configure(given)?;
    runtime::block_on(async move {
        let (ask, stop) = tokio::sync::watch::channel(false);
        let kubeconfig = Some(given.text("kubeconfig")).filter(|path| !path.is_empty());
        let client = leader::client(kubeconfig.as_deref()).await.context("Kubernetes client")?;
        let checker = tokio::spawn(leader::run(Arc::new(central), plan, Some(client), stop));
        runtime::shutdown().await?;
        ask.send(true).context("stop")?;
        checker.await.context("stop")?;
        Ok(ExitCode::SUCCESS)
    })
}

fn configure(given: Given) -> anyhow::Result<(Central, Plan)> {
    let variable = |name: &'static str| {
        process_environment(name)
            .ok_or_else(|| Usage(format!("{name} is not set; set it by the downward API")))
    };
    let pod = PodName { namespace: variable("POD_NAMESPACE")?, name: variable("POD_NAME")? };
    let mut config = CentralConfig::parse(&|name| match name {
        // The flags take the place of start-db's variables.
        "NODE_IPS" => None,
        "POD_IP" => Some(given.text("localAddress"))
            .filter(|address| !address.is_empty())
            .or_else(|| process_environment(name)),
        _ => process_environment(name),
    })
    .map_err(|e| Usage(e.to_string()))?;
    config.members = addresses(&given.list("remoteAddresses"))?;
    let compaction =
        if given.is_on("enableCompact") { Compaction::EveryRound } else { Compaction::Server };
    let interval = Duration::from_secs(given.small::<u64>("probeInterval").max(1));
    let central = Central { config, paths: Paths::system(), launcher: Launcher::direct() };
    Ok((central, Plan { pod, interval, compaction }))
}

fn addresses(list: &[String]) -> Result<Vec<IpAddr>, Usage> {
    list.iter()
        .map(|text| {
            text.parse().map_err(|_| Usage(format!("--remoteAddresses: {text:?} is no address")))
        })
        .collect()
}
