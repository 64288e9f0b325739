//! The CNI plugin and its installation on a node.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use clap::ArgMatches;

use super::{Applet, daemon_options};
use crate::cni::{client, plugin};

/// The plugin: no runtime, no flags.
pub fn plugin() -> ExitCode {
    let mut stdin = Vec::new();
    if io::stdin().read_to_end(&mut stdin).is_err() {
        stdin.clear();
    }
    let output = plugin::run(|name| std::env::var(name).ok(), &stdin, client::post);
    // The container runtime may be gone; there is nobody else to tell.
    let _ = writeln!(io::stdout(), "{}", output.stdout);
    ExitCode::from(output.exit_code)
}

pub const INSTALL: Applet = Applet {
    name: "install-cni",
    aliases: &[],
    about: "Copy the CNI plugins and the conflist to the node",
    example: "install-cni --cni-conf-name=01-kube-ovn.conflist",
    command: daemon_options::command,
    run: install,
};

fn install(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not in this build")
}
