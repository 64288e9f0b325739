//! Removes Open vSwitch state from a node.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{Applet, ovn_healthcheck::report, runtime};
use crate::{
    central::{ovs_paths::OvsPaths, uninstall},
    net::Place,
    telemetry::{self, LogOptions},
};

pub const APPLET: Applet = Applet {
    name: "uninstall-ovs",
    aliases: &["uninstall"],
    about: "Stop Open vSwitch on this node and remove its state",
    example: "uninstall-ovs",
    command: clap::Command::default,
    run,
};

fn run(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    telemetry::log::init(&LogOptions::default())?;
    runtime::block_on(async {
        let findings = uninstall::run(&OvsPaths::system(), "", &Place::Host).await?;
        Ok(report(&findings))
    })
}
