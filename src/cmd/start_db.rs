//! Runs the ovn-central container.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::ArgMatches;

use super::{Applet, Usage, runtime};
use crate::{
    central::{
        config::{CentralConfig, Paths, process_environment},
        database::Central,
        guard, leader,
        start_db::{self, Labels},
    },
    kernel::process::Launcher,
    telemetry::{self, LogOptions},
};

pub const APPLET: Applet = Applet {
    name: "start-db",
    aliases: &[],
    about: "Run the OVN databases and ovn-northd of this master",
    example: "NODE_IPS=10.0.0.1,10.0.0.2,10.0.0.3 POD_IP=10.0.0.1 start-db",
    command,
    run,
};

const ENVIRONMENT: &str = "\
Configuration by environment:
  NODE_IPS                  raft members, comma separated; empty: one standalone server
  POD_IP, POD_IPS           addresses of this host
  DB_CLUSTER_ADDR           raft address if it is not POD_IP
  NB_PORT, SB_PORT          client ports (6641, 6642)
  NB_CLUSTER_PORT, SB_CLUSTER_PORT  raft ports (6643, 6644)
  ENABLE_BIND_LOCAL_IP      true: listen on POD_IPS instead of all addresses
  ENABLE_SSL                true: TLS with /var/run/tls/{key,cert,cacert}
  PROBE_INTERVAL            inactivity probe of clients, ms (180000)
  OVN_NORTHD_PROBE_INTERVAL probe of northd, ms (5000)
  OVN_NORTHD_N_THREADS      threads of northd (1)
  OVN_LEADER_PROBE_INTERVAL leader check, s (5)
  ENABLE_COMPACT            true: compact the databases at each leader check
  OVN_VERSION_COMPATIBILITY NB option during upgrades
  POD_NAME, POD_NAMESPACE   the pod that carries the leader labels";

fn command() -> clap::Command {
    clap::Command::new("start-db").after_help(ENVIRONMENT)
}

fn run(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    let config = CentralConfig::parse(&process_environment).map_err(|e| Usage(e.to_string()))?;
    telemetry::log::init(&LogOptions::default())?;
    guard::check_kernel()?;
    private_files();
    runtime::block_on(async move {
        let paths = Paths::system();
        start_db::make_folders(&paths).context("make the folders of the databases")?;
        tracing::info!(?config, "ovn-central starts");
        let central = Arc::new(Central { config, paths, launcher: Launcher::direct() });
        let (ask, stop) = tokio::sync::watch::channel(false);
        let program = tokio::spawn(start_db::run(central, labels(), stop));
        runtime::shutdown().await?;
        tracing::info!("asked to end, stopping the daemons");
        ask.send(true).context("stop the daemons")?;
        program.await.context("stop the daemons")?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Databases, sockets and key material are for our user only, also those that daemons make.
pub(super) fn private_files() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

fn labels() -> Labels {
    let pod = process_environment("POD_NAME").zip(process_environment("POD_NAMESPACE"));
    match pod {
        Some((name, namespace)) => Labels::Pod(leader::PodName { namespace, name }),
        None => {
            tracing::warn!("POD_NAME or POD_NAMESPACE is not set: no leader is labelled");
            Labels::Off
        }
    }
}
