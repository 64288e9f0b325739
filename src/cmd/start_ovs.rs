//! Runs the ovs container.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::ArgMatches;

use super::{Applet, Usage, runtime, start_db::private_files};
use crate::{
    central::{
        config::process_environment,
        guard,
        ovs_config::OvsConfig,
        ovs_paths::OvsPaths,
        start_ovs::{self, Ovs},
    },
    kernel::process::Launcher,
    net::Place,
    telemetry::{self, LogOptions},
};

pub const APPLET: Applet = Applet {
    name: "start-ovs",
    aliases: &[],
    about: "Run Open vSwitch and ovn-controller on this node",
    example: "OVN_DB_IPS=10.0.0.1 KUBE_NODE_NAME=node1 IFACE=eth1 start-ovs",
    command,
    run,
};

const ENVIRONMENT: &str = "\
Configuration by environment:
  OVN_DB_IPS                masters, comma separated; else OVN_SB_SERVICE_HOST, _PORT
  KUBE_NODE_NAME            name of this node
  POD_IP, POD_IPS           addresses of this host
  OVS_DATAPATH              auto, system or netdev (auto: netdev without the kernel module)
  IFACE                     NIC of the tunnels for netdev: a name or a comma list of expressions
  TUNNEL_TYPE               geneve, vxlan or stt (geneve)
  HW_OFFLOAD                true: offload flows to the NIC
  ENABLE_SSL                true: TLS with /var/run/tls/{key,cert,cacert}
  OVN_REMOTE_PROBE_INTERVAL probe of the SB database, ms (10000; of several 4000)
  OVN_REMOTE_OPENFLOW_INTERVAL  probe of ovs-vswitchd, s (180)
  OVN_OFCTRL_WAIT_BEFORE_CLEAR  how long a restarted ovn-controller leaves the rules of its
                            predecessor while it computes its own, ms (8000; 0: not at all)";

fn command() -> clap::Command {
    clap::Command::new("start-ovs").after_help(ENVIRONMENT)
}

fn run(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    let config = OvsConfig::parse(&process_environment).map_err(|e| Usage(e.to_string()))?;
    telemetry::log::init(&LogOptions::default())?;
    guard::check_kernel()?;
    private_files();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    runtime::block_on(async move {
        tracing::info!(?config, "ovs starts");
        let (paths, place) = (OvsPaths::system(), Place::Host);
        let ovs = Arc::new(Ovs { config, paths, launcher: Launcher::direct(), place, cpus });
        let (ask, stop) = tokio::sync::watch::channel(false);
        let mut program = tokio::spawn(start_ovs::run(ovs, stop));
        tokio::select! {
            end = &mut program => {
                end.context("run the daemons")??;
                anyhow::bail!("the daemons ended");
            }
            signal = runtime::shutdown() => signal?,
        }
        tracing::info!("asked to end, stopping the daemons");
        ask.send(true).context("stop the daemons")?;
        program.await.context("stop the daemons")??;
        Ok(ExitCode::SUCCESS)
    })
}
