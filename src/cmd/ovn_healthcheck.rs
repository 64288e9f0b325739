//! Probes the ovn-central container.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches};

use super::{Applet, runtime};
use crate::central::{
    config::Paths,
    health::{self, Probe},
};

pub const APPLET: Applet = Applet {
    name: "ovn-healthcheck",
    aliases: &[],
    about: "Probe the OVN databases and ovn-northd of this container",
    example: "ovn-healthcheck --live",
    command,
    run,
};

fn command() -> clap::Command {
    clap::Command::new("ovn-healthcheck").arg(live())
}

pub(super) fn live() -> Arg {
    Arg::new("live")
        .long("live")
        .action(ArgAction::SetTrue)
        .help("Only ask whether the daemons answer, and give busy ones 30 s (for a liveness probe)")
}

pub(super) fn probe(matches: &ArgMatches) -> Probe {
    if matches.get_flag("live") { Probe::Live } else { Probe::Ready }
}

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let probe = probe(matches);
    runtime::block_on(async move { Ok(report(&health::check_ovn(&Paths::system(), probe).await)) })
}

/// Prints the findings for the kubelet's event; any finding fails the probe.
pub(super) fn report(findings: &[String]) -> ExitCode {
    for finding in findings {
        println!("{finding}");
    }
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
