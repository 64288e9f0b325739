//! `kubectl ko`: commands for operators. Each is a [`Tool`] in a file of its own.
//!
//! Everything goes through the Kubernetes API: lists of objects, and commands in Kube-OVN's own
//! pods. So a kubeconfig is all that is needed, and nothing of OVN has to be on this machine.
//! Adding a tool: a file here with a `pub const TOOL: Tool`, one line in [`TOOLS`].

pub mod adopt;
mod audit;
mod bundle;
mod capture;
pub mod cluster;
pub mod complete;
mod connectivity;
mod database;
mod database_restore;
pub mod desired;
mod diagnose;
pub mod differences;
pub mod exec;
mod explain;
pub mod explain_policy;
mod ipam;
mod ipam_check;
mod logs;
mod maintain;
mod measure;
pub mod output;
pub mod packet;
mod passthrough;
mod perf;
pub mod picture;
mod plan;
pub mod probe;
mod sender;
mod status;
pub mod tape;
mod topology;
mod trace;
pub mod trace_text;

use std::{collections::BTreeSet, process::ExitCode};

use clap::{Arg, ArgMatches, Command};
use futures::future::BoxFuture;

use crate::{
    api::{Kind, Settings},
    ovsdb::schema::{Column, Table},
    store::{
        Store,
        watch::{SeenMap, Watches},
    },
};
use cluster::Cluster;
use output::{Format, Paint};

/// What the commands share with the controller.
pub struct Engine {
    /// Settings of a controller with these arguments.
    pub settings: fn(&[String]) -> anyhow::Result<Settings>,
    /// Starts the controller's watches.
    pub watch: fn(&mut Watches, &Settings) -> BTreeSet<Kind>,
    /// Adds what the controller's state machines decide.
    pub derive: fn(&mut Store, &SeenMap),
    /// Tables and columns of the northbound database that the controller looks at.
    pub monitored: fn() -> Vec<(&'static Table, &'static [Column])>,
}

/// A wrong command line: exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// What a tool runs in.
pub struct Session<'a> {
    pub engine: &'a Engine,
    pub format: Format,
    pub paint: Paint,
    kubeconfig: Option<String>,
    context: Option<String>,
    namespace: String,
    bundle: Option<String>,
}

/// Exit code of a tool that ran well and found something wrong.
pub const FOUND: u8 = 3;

type Run = for<'a> fn(&'a Session<'a>, &'a ArgMatches) -> BoxFuture<'a, anyhow::Result<u8>>;

/// What a tool's arguments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// Own flags, with the common ones.
    Own,
    /// Handed on to a program of OVN or Open vSwitch, word by word.
    HandedOn,
}

/// One subcommand.
pub struct Tool {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub about: &'static str,
    pub example: &'static str,
    pub arguments: Arguments,
    pub command: fn(Command) -> Command,
    pub run: Run,
}

/// Every subcommand, in the order of `--help`.
pub const TOOLS: &[&Tool] = &[
    &passthrough::NBCTL,
    &passthrough::SBCTL,
    &passthrough::ICNBCTL,
    &passthrough::ICSBCTL,
    &passthrough::VSCTL,
    &passthrough::OFCTL,
    &passthrough::DPCTL,
    &passthrough::APPCTL,
    &database::NB,
    &database::SB,
    &capture::TOOL,
    &trace::TRACE,
    &trace::OVN_TRACE,
    &diagnose::TOOL,
    &logs::TOOL,
    &maintain::RELOAD,
    &maintain::ENV_CHECK,
    &perf::TOOL,
    &maintain::TUNING,
    &status::TOOL,
    &audit::TOOL,
    &explain::TOOL,
    &plan::TOOL,
    &adopt::TOOL,
    &ipam::TOOL,
    &topology::TOOL,
    &connectivity::TOOL,
    &bundle::TOOL,
    &probe::TOOL,
    &measure::TOOL,
    &complete::TOOL,
];

const EXIT_CODES: &str = "Exit codes:
  0    done, and nothing wrong was found
  1    it could not be done; the reason is on standard error
  2    the command line is wrong
  3    it ran, and what it looked at is not as it should be (audit, ipam check, status, ...)
  130  ended by Ctrl-C; nothing is left behind in the cluster
  Programs that are only handed on (nbctl, vsctl, ...) end with their own code.

Environment:
  KUBECONFIG   the cluster, as for kubectl
  KUBE_OVN_NS  namespace of Kube-OVN (kube-system)
  NO_COLOR     no colours, even on a terminal";

fn common() -> [Arg; 3] {
    [
        Arg::new("kubeconfig").long("kubeconfig").value_name("FILE").help("As for kubectl"),
        Arg::new("context").long("context").value_name("NAME").help("As for kubectl"),
        Arg::new("namespace")
            .long("namespace")
            .short('n')
            .value_name("NAME")
            .help("Namespace of Kube-OVN (KUBE_OVN_NS, else kube-system)"),
    ]
}

/// The argument `-o` of tools that print data.
pub fn output_arg() -> Arg {
    Arg::new("output")
        .long("output")
        .short('o')
        .value_name("FORMAT")
        .value_parser(["text", "json", "yaml"])
        .help("Form of the result (text)")
}

/// The argument `--bundle` of tools that only ask.
pub fn bundle_arg() -> Arg {
    Arg::new("bundle")
        .long("bundle")
        .value_name("FILE")
        .help("Ask a support bundle instead of a cluster")
}

/// The whole command line.
pub fn command() -> Command {
    let root = Command::new("kubectl-ko")
        .bin_name("kubectl ko")
        .args(common())
        .arg(
            Arg::new("color")
                .long("color")
                .value_name("WHEN")
                .value_parser(["auto", "always", "never"])
                .help("Colours (auto: on a terminal)"),
        )
        .subcommand_value_name("COMMAND")
        .subcommand_help_heading("Commands")
        .disable_help_subcommand(true)
        .after_long_help(EXIT_CODES);
    TOOLS.iter().fold(root, |root, tool| root.subcommand(subcommand(tool)))
}

fn subcommand(tool: &Tool) -> Command {
    let command = Command::new(tool.name).visible_aliases(tool.aliases.iter().copied());
    let command = match tool.arguments {
        Arguments::Own => command.args(common()),
        // Its flags are not ours, not even --help.
        Arguments::HandedOn => command.disable_help_flag(true),
    };
    let examples: Vec<String> =
        tool.example.lines().map(|line| format!("  kubectl ko {}", line.trim())).collect();
    (tool.command)(command)
        .about(tool.about)
        .disable_version_flag(true)
        .after_help(format!("Example:\n{}", examples.join("\n")))
}

/// A flag of the subcommand, or the one before it.
fn given<'m>(matches: &'m [&'m ArgMatches], name: &str) -> Option<&'m String> {
    matches.iter().rev().find_map(|m| m.try_get_one::<String>(name).ok().flatten())
}

/// Runs the command line.
pub async fn run(matches: &ArgMatches, engine: &Engine) -> anyhow::Result<ExitCode> {
    let Some((name, inner)) = matches.subcommand() else {
        print!("{}", command().render_help());
        return Ok(ExitCode::SUCCESS);
    };
    let Some(tool) = TOOLS.iter().find(|tool| tool.name == name) else {
        return Err(Usage(format!("no command {name:?}")).into());
    };
    let both = [matches, inner];
    let namespace = given(&both, "namespace").cloned();
    let environment = || std::env::var("KUBE_OVN_NS").ok().filter(|ns| !ns.is_empty());
    let session = Session {
        engine,
        format: Format::parse(given(&both, "output").map_or("text", String::as_str)),
        paint: Paint::choose(given(&both, "color").map_or("auto", String::as_str)),
        kubeconfig: given(&both, "kubeconfig").cloned(),
        context: given(&both, "context").cloned(),
        bundle: given(&both, "bundle").cloned(),
        namespace: namespace.or_else(environment).unwrap_or_else(|| "kube-system".to_owned()),
    };
    let code = (tool.run)(&session, inner).await?;
    Ok(ExitCode::from(code))
}

impl<'a> Session<'a> {
    /// With the format that an inner subcommand was given.
    fn with_format(&self, inner: &ArgMatches) -> Session<'a> {
        let format = given(&[inner], "output").map_or(self.format, |text| Format::parse(text));
        Session {
            format,
            engine: self.engine,
            paint: self.paint,
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            bundle: self.bundle.clone(),
            namespace: self.namespace.clone(),
        }
    }

    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        if let Some(file) = &self.bundle {
            let tape = bundle::read(std::path::Path::new(file))?;
            return Ok(Cluster::replay(tape, &self.namespace));
        }
        let (kubeconfig, context) = (self.kubeconfig.as_deref(), self.context.as_deref());
        Cluster::connect(kubeconfig, context, &self.namespace).await
    }
}

/// A text argument; empty when it was not given.
pub fn argument<'m>(matches: &'m ArgMatches, name: &str) -> &'m str {
    matches.try_get_one::<String>(name).ok().flatten().map_or("", String::as_str)
}

/// The words of a trailing argument.
pub fn words(matches: &ArgMatches, name: &str) -> Vec<String> {
    let all = matches.try_get_many::<String>(name).ok().flatten();
    all.into_iter().flatten().cloned().collect()
}

/// Trailing words that are handed on as they are.
pub fn handed_on(name: &'static str) -> Arg {
    Arg::new(name)
        .value_name("ARGUMENT")
        .num_args(0..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .help("Handed on as they are")
}
