//! The CNI plugin and its installation on a node.

use std::process::ExitCode;

use clap::ArgMatches;

use super::Applet;

/// The plugin: no runtime, no flags. Owned by the `cni` module.
pub fn plugin() -> ExitCode {
    println!(
        "{{\"cniVersion\":\"1.1.0\",\"code\":100,\"msg\":\"the CNI plugin is not in this build\"}}"
    );
    ExitCode::FAILURE
}

pub const INSTALL: Applet = Applet {
    name: "install-cni",
    aliases: &[],
    about: "Copy the CNI plugins and the conflist to the node",
    example: "install-cni --cni-conf-name=01-kube-ovn.conflist",
    command: clap::Command::default,
    run: install,
};

fn install(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not in this build")
}
