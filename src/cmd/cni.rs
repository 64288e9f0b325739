//! The CNI plugin and its installation on a node.

use std::{
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
};

use clap::ArgMatches;

use super::{Applet, daemon, daemon_options, options::Environment};
use crate::{
    cni::{client, plugin},
    kernel::{netns, sysctl},
    net::Place,
    node::install::install_plugins,
};

/// Folder of the runtime's plugins, on the node and, mounted, in the init container.
const PLUGIN_FOLDER: &str = "/opt/cni/bin";

/// A larger configuration is none.
const LONGEST_CONFIGURATION: u64 = 16 << 20;

/// The plugin: no runtime, no flags.
pub fn plugin() -> ExitCode {
    let mut stdin = Vec::new();
    if io::stdin().take(LONGEST_CONFIGURATION).read_to_end(&mut stdin).is_err() {
        stdin.clear();
    }
    let lookup = |name: &str| std::env::var(name).ok();
    if lookup("CNI_COMMAND").as_deref() == Some("ADD") {
        allow_ipv6(lookup("CNI_NETNS").unwrap_or_default());
    }
    let output = plugin::run(lookup, &stdin, client::post);
    if !output.stdout.is_empty() {
        // The container runtime may be gone; there is nobody else to tell.
        let _ = writeln!(io::stdout(), "{}", output.stdout);
    }
    ExitCode::from(output.exit_code)
}

/// Some runtimes switch IPv6 off in new sandboxes. The plugin can switch it on; the daemon's
/// container has /proc/sys read-only. Failures show later, if IPv6 is needed at all.
fn allow_ipv6(netns: String) {
    let place = Place::Namespace(netns.into());
    let _ = netns::enter(&place, || {
        for scope in ["all", "default"] {
            for key in ["disable_ipv6", "accept_ra"] {
                let name = format!("net.ipv6.conf.{scope}.{key}");
                // A write of disable_ipv6 takes the lock of all links, and spins while another
                // pod's has it.
                if sysctl::read(&name).ok().flatten().is_none_or(|value| value != "0") {
                    let _ = sysctl::write(&name, "0");
                }
            }
        }
    });
}

pub const INSTALL: Applet = Applet {
    name: "install-cni",
    aliases: &[],
    about: "Copy the CNI plugins to the node and enable forwarding",
    example: "install-cni --cni-conf-name=01-kube-ovn.conflist",
    command: daemon_options::command,
    run: install,
};

/// The conflist is not written here: the daemon does it when it can serve.
fn install(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    let written = install_plugins(Path::new("/"), Path::new(PLUGIN_FOLDER))?;
    println!("install-cni: {PLUGIN_FOLDER}: {} written", written.join(" "));
    daemon::enable_forwarding(&Environment::current())?;
    Ok(ExitCode::SUCCESS)
}
