//! Programs of the ovn-central and ovs containers.

use std::process::ExitCode;

use clap::ArgMatches;

use super::Applet;

pub const START_DB: Applet = Applet {
    name: "start-db",
    aliases: &[],
    about: "Run the OVN databases and ovn-northd of this master",
    example: "NODE_IPS=10.0.0.1,10.0.0.2,10.0.0.3 POD_IP=10.0.0.1 start-db",
    command: clap::Command::default,
    run: absent,
};

pub const START_OVS: Applet = Applet {
    name: "start-ovs",
    aliases: &[],
    about: "Run Open vSwitch and ovn-controller on this node",
    example: "OVN_DB_IPS=10.0.0.1 KUBE_NODE_NAME=node1 start-ovs",
    command: clap::Command::default,
    run: absent,
};

pub const OVN_HEALTH: Applet = Applet {
    name: "ovn-healthcheck",
    aliases: &[],
    about: "Probe the OVN databases and ovn-northd of this container",
    example: "ovn-healthcheck",
    command: clap::Command::default,
    run: absent,
};

pub const OVS_HEALTH: Applet = Applet {
    name: "ovs-healthcheck",
    aliases: &[],
    about: "Probe Open vSwitch and ovn-controller of this node",
    example: "ovs-healthcheck",
    command: clap::Command::default,
    run: absent,
};

fn absent(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not in this build")
}
