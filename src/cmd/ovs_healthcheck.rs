//! Probes the ovs container.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{Applet, ovn_healthcheck::report, runtime};
use crate::central::{health, ovs_paths::OvsPaths};

pub const APPLET: Applet = Applet {
    name: "ovs-healthcheck",
    aliases: &[],
    about: "Probe Open vSwitch and ovn-controller of this node",
    example: "ovs-healthcheck",
    command: clap::Command::default,
    run,
};

fn run(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    runtime::block_on(async { Ok(report(&health::check_ovs(&OvsPaths::system()).await)) })
}
