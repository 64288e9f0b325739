//! Composition roots, one file per applet: flags -> configuration -> wiring -> run.
//!
//! One executable holds every program. The applet is chosen by the name of the link it is called
//! through (an optional `.sh` is cut off, so upstream's script paths are links to it) or by the
//! first argument. Called as `kube-ovn` with CNI_COMMAND set it is the CNI plugin; that path
//! builds no flag trees, starts no runtime and reads nothing but stdin (< 3 ms, < 5 MB).
//!
//! A new applet: one file here with a `pub const APPLET: Applet`, one line in [`APPLETS`].

pub mod api_client;
mod cni;
mod controller;
pub mod controller_metrics;
pub mod controller_options;
mod daemon;
pub mod daemon_options;
pub mod flags;
mod kubectl_ko;
mod leader_checker;
mod monitor;
pub mod monitor_options;
pub mod options;
mod ovn_healthcheck;
mod ovs_healthcheck;
mod pinger;
pub mod pinger_options;
pub mod runtime;
mod start_db;
mod start_ovs;
mod uninstall_ovs;
mod webhook;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::ArgMatches;

/// Version reported by every applet; compatible with Kube-OVN of the same minor version.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Exit code of a wrong command line, as in every getopt program.
pub const EXIT_USAGE: u8 = 2;

/// One program of the executable.
pub struct Applet {
    pub name: &'static str,
    /// Further names: upstream's binary and script names without `.sh`.
    pub aliases: &'static [&'static str],
    pub about: &'static str,
    /// A whole command line that works, shown by `--help`.
    pub example: &'static str,
    /// Flags and arguments; name, version, about and example are added by the caller.
    pub command: fn() -> clap::Command,
    /// An error is printed as one line and ends the program with code 1, a [`Usage`] with 2.
    pub run: fn(&ArgMatches) -> anyhow::Result<ExitCode>,
}

/// Every applet, in the order of `--list`.
pub const APPLETS: &[Applet] = &[
    controller::APPLET,
    controller::START,
    daemon::APPLET,
    daemon::START,
    cni::INSTALL,
    start_db::APPLET,
    start_ovs::APPLET,
    ovn_healthcheck::APPLET,
    ovs_healthcheck::APPLET,
    leader_checker::APPLET,
    pinger::APPLET,
    monitor::APPLET,
    webhook::APPLET,
    uninstall_ovs::APPLET,
    kubectl_ko::APPLET,
    kubectl_ko::COMPLETE,
];

/// A wrong value on the command line or in the environment: flag, value and remedy in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Who starts the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// CNI_COMMAND is set.
    ContainerRuntime,
    Other,
}

/// What a command line asks for; the pure part of the dispatch.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// The CNI plugin.
    Plugin,
    /// Index into [`APPLETS`], and the arguments after the applet's name.
    Applet(usize, Vec<OsString>),
    List,
    Version,
    Help,
    /// No applet of this name.
    Unknown(String),
}

/// Entry of the executable. `args` includes argv[0].
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let caller = match std::env::var_os("CNI_COMMAND") {
        Some(_) => Caller::ContainerRuntime,
        None => Caller::Other,
    };
    let call = resolve(&args, caller);
    if call == Call::Plugin {
        return cni::plugin();
    }
    quiet_broken_pipe();
    // kube and our own TLS need one process-wide provider; it fails only if one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match call {
        Call::Plugin => ExitCode::SUCCESS,
        Call::Applet(index, rest) => match APPLETS.get(index) {
            Some(applet) => start(applet, rest),
            None => ExitCode::FAILURE,
        },
        Call::List => {
            APPLETS.iter().for_each(|applet| println!("{}", applet.name));
            ExitCode::SUCCESS
        }
        Call::Version => {
            println!("kube-ovn {VERSION}");
            ExitCode::SUCCESS
        }
        Call::Help => {
            print!("{}", help());
            ExitCode::SUCCESS
        }
        Call::Unknown(name) => {
            eprintln!("kube-ovn: no applet {name:?}; 'kube-ovn --list' names them all");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Chooses what to run.
pub fn resolve(args: &[OsString], caller: Caller) -> Call {
    let called = args.first().map(base_name).unwrap_or_default();
    if caller == Caller::ContainerRuntime && called == "kube-ovn" {
        return Call::Plugin;
    }
    if let Some(index) = find(&called) {
        return Call::Applet(index, args.get(1..).unwrap_or_default().to_vec());
    }
    let Some(first) = args.get(1) else { return Call::Help };
    match first.to_string_lossy().as_ref() {
        "--list" => Call::List,
        "--version" | "-V" | "version" => Call::Version,
        "--help" | "-h" | "help" => Call::Help,
        _ => {
            let name = base_name(first);
            match find(&name) {
                Some(index) => Call::Applet(index, args.get(2..).unwrap_or_default().to_vec()),
                None => Call::Unknown(name),
            }
        }
    }
}

/// File name of a path, without `.sh`.
fn base_name(path: &OsString) -> String {
    let name = Path::new(path).file_name().map(|n| n.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    name.strip_suffix(".sh").map(str::to_owned).unwrap_or(name)
}

fn find(name: &str) -> Option<usize> {
    APPLETS.iter().position(|a| a.name == name || a.aliases.contains(&name))
}

/// The clap command of an applet with everything that all have in common.
pub fn command(applet: &Applet) -> clap::Command {
    let command = (applet.command)();
    let example = format!("Example:\n  {}", applet.example);
    // What a program adds to `--help` itself must not hide the example.
    let more = command.get_after_long_help();
    let long = more.map_or(example.clone(), |more| format!("{example}\n\n{more}"));
    command
        .name(applet.name)
        .version(VERSION)
        .about(applet.about)
        .after_help(example)
        .after_long_help(long)
        // The last of a repeated flag wins, as in Go's flag packages.
        .args_override_self(true)
}

fn start(applet: &Applet, rest: Vec<OsString>) -> ExitCode {
    let mut command = command(applet);
    let rest = flags::normalize(&command, rest);
    let args = std::iter::once(OsString::from(applet.name)).chain(rest);
    let result = match command.try_get_matches_from_mut(args) {
        Ok(matches) => (applet.run)(&matches),
        Err(error) if !error.use_stderr() => {
            print!("{}", error.render());
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(Usage(one_line(&error)).into()),
    };
    result.unwrap_or_else(|error| {
        let usage = error.is::<Usage>();
        let hint = if usage { format!(" (see '{} --help')", applet.name) } else { String::new() };
        eprintln!("{}: {}{hint}", applet.name, format!("{error:#}").replace('\n', " "));
        if usage { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
    })
}

/// clap explains over several paragraphs; scripts and pod logs want the first one on one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let words = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").map(str::to_owned).unwrap_or(line)
}

fn help() -> String {
    let mut text = format!(
        "kube-ovn {VERSION}: Kubernetes networking on unmodified OVN and Open vSwitch\n\n\
         Usage: kube-ovn APPLET [FLAGS]   (or a link named like the applet)\n       \
         kube-ovn --list | --version | --help\n\n\
         With CNI_COMMAND set it is the CNI plugin (configuration on stdin).\n\nApplets:\n"
    );
    for applet in APPLETS {
        let mut names = applet.name.to_owned();
        for alias in applet.aliases {
            names.push_str(", ");
            names.push_str(alias);
        }
        text.push_str(&format!("  {names}\n      {}\n", applet.about));
        text.push_str(&format!("      Example: {}\n", applet.example));
    }
    text
}

/// `kubectl ko ... | head` must end in silence. Rust ignores SIGPIPE and makes `println!` panic;
/// restoring the signal needs unsafe code, this hook does not, and works with `panic = "abort"`.
fn quiet_broken_pipe() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(128 + 13);
        }
        default(info);
    }));
}
