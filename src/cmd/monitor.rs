//! OVN databases, northd and raft as metrics.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::ArgMatches;

use super::{
    Applet, api_client,
    monitor_options::{self, MonitorOptions},
    options::{self, Environment},
    runtime,
};
use crate::{
    monitor::{metrics::FAMILIES, observe::Monitor},
    telemetry::{self, Probes, Snapshot, Transport},
};

pub const APPLET: Applet = Applet {
    name: "kube-ovn-monitor",
    aliases: &["start-ovn-monitor"],
    about: "Serve the state of the OVN databases beside it as metrics",
    example: "kube-ovn-monitor --ovs.poll-interval=15 --metrics-port=10661",
    command: monitor_options::command,
    run,
};

/// Before the first reading.
const SETTLING: Duration = Duration::from_secs(1);

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let hostname = nix::unistd::gethostname().context("read the host name")?;
    let hostname = hostname.to_string_lossy();
    let options = MonitorOptions::parse(matches, &Environment::current(), &hostname)?;
    telemetry::log::init(&options.log).context("start the log")?;
    options.notes.iter().for_each(|note| tracing::info!("{note}"));
    runtime::block_on(serve(options))
}

async fn serve(options: MonitorOptions) -> anyhow::Result<ExitCode> {
    // Only the reviews of tokens need the Kubernetes API.
    let client = match options.serving.transport {
        Transport::Plain => None,
        Transport::Secure(_) => {
            let config = options::kube_config(options.kubeconfig.as_deref()).await?;
            Some(api_client::client(config).context("make a Kubernetes client")?)
        }
    };
    let snapshot = Snapshot::register(telemetry::metrics::registry(), FAMILIES)?;
    let probes = Probes { live: Arc::new(|| Ok(())), ready: Arc::new(|| Ok(())) };
    let mut monitor = Monitor::start(options.sources);
    let _serving = telemetry::serve(&options.serving, probes, client).await?;
    let rounds = async {
        // The replicas are there a moment after the connection.
        tokio::time::sleep(SETTLING).await;
        loop {
            snapshot.replace(monitor.observe().await);
            tokio::time::sleep(options.interval).await;
        }
    };
    tokio::select! {
        signal = runtime::shutdown() => signal?,
        () = rounds => {}
    }
    Ok(ExitCode::SUCCESS)
}
