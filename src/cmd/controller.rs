//! The cluster controller.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{Applet, controller_options};

pub const APPLET: Applet = Applet {
    name: "kube-ovn-controller",
    aliases: &[],
    about: "Cluster controller: Kubernetes objects -> OVN northbound database",
    example: "kube-ovn-controller --ovn-nb-addr=tcp:[10.0.0.1]:6641 \
              --ovn-sb-addr=tcp:[10.0.0.1]:6642 --default-cidr=10.16.0.0/16",
    command: controller_options::command,
    run,
};

pub const START: Applet = Applet {
    name: "start-controller",
    aliases: &[],
    about: "Run kube-ovn-controller with database addresses taken from the environment",
    example: "OVN_DB_IPS=10.0.0.1,10.0.0.2 ENABLE_SSL=false start-controller",
    command: APPLET.command,
    run,
};

fn run(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not in this build")
}
