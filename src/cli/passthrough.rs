//! The programs of OVN and Open vSwitch, run in the pod that has them.

use std::io::IsTerminal;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};

use super::{
    Arguments, Session, Tool, argument,
    cluster::{Cluster, Database},
    exec::{Input, Place},
    handed_on, words,
};
use crate::api::names::label;

macro_rules! handed_on_tool {
    ($tool:ident, $name:literal, $about:literal, $example:literal, $command:expr, $run:expr) => {
        pub const $tool: Tool = Tool {
            name: $name,
            aliases: &[],
            about: $about,
            example: $example,
            arguments: Arguments::HandedOn,
            command: $command,
            run: |session, matches| Box::pin($run(session, matches)),
        };
    };
}

handed_on_tool!(
    NBCTL,
    "nbctl",
    "Run ovn-nbctl at the leader of the northbound database",
    "nbctl show ovn-default",
    anywhere,
    |s, m| database(s, m, Database::Northbound)
);
handed_on_tool!(
    SBCTL,
    "sbctl",
    "Run ovn-sbctl at the leader of the southbound database",
    "sbctl list Chassis",
    anywhere,
    |s, m| database(s, m, Database::Southbound)
);
handed_on_tool!(
    ICNBCTL,
    "icnbctl",
    "Run ovn-ic-nbctl at the leader of the interconnection northbound database",
    "icnbctl show",
    anywhere,
    |s, m| interconnection(s, m, "ovn-ic-nbctl", label::IC_NB_LEADER)
);
handed_on_tool!(
    ICSBCTL,
    "icsbctl",
    "Run ovn-ic-sbctl at the leader of the interconnection southbound database",
    "icsbctl show",
    anywhere,
    |s, m| interconnection(s, m, "ovn-ic-sbctl", label::IC_SB_LEADER)
);
handed_on_tool!(VSCTL, "vsctl", "Run ovs-vsctl on a node", "vsctl node1 show", on_node, |s, m| {
    switch(s, m, "ovs-vsctl")
});
handed_on_tool!(
    OFCTL,
    "ofctl",
    "Run ovs-ofctl on a node",
    "ofctl node1 dump-flows br-int",
    on_node,
    |s, m| switch(s, m, "ovs-ofctl")
);
handed_on_tool!(DPCTL, "dpctl", "Run ovs-dpctl on a node", "dpctl node1 show", on_node, |s, m| {
    switch(s, m, "ovs-dpctl")
});
handed_on_tool!(
    APPCTL,
    "appctl",
    "Run ovs-appctl on a node",
    "appctl node1 vlog/list",
    on_node,
    |s, m| switch(s, m, "ovs-appctl")
);

fn anywhere(command: Command) -> Command {
    command.arg(handed_on("arguments"))
}

fn on_node(command: Command) -> Command {
    command
        .arg(Arg::new("node").value_name("NODE").required(true).help("Name of the node"))
        .arg(handed_on("arguments"))
}

/// Input that is piped in goes to the program; a terminal's does not.
pub fn input() -> Input {
    if std::io::stdin().is_terminal() { Input::Nothing } else { Input::Ours }
}

async fn hand_on(
    cluster: &Cluster,
    at: &Place,
    program: &[&str],
    arguments: Vec<String>,
) -> anyhow::Result<u8> {
    let mut command: Vec<String> = program.iter().map(|word| (*word).to_owned()).collect();
    command.extend(arguments);
    // Only words that ask for it read standard input (`ofctl add-flows br-int -`); a script's
    // own input must not be eaten by a command that does not.
    let reads = command.iter().any(|word| word == "-" || word == "/dev/stdin");
    let input = if reads { input() } else { Input::Nothing };
    cluster.stream(at, &command, input).await
}

async fn database(
    session: &Session<'_>,
    matches: &ArgMatches,
    database: Database,
) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    let at = cluster.leader(database).await?;
    // A leader that has just changed would be waited for without end; members pass writes on.
    let program = [
        match database {
            Database::Northbound => "ovn-nbctl",
            Database::Southbound => "ovn-sbctl",
        },
        "--no-leader-only",
    ];
    hand_on(&cluster, &at, &program, words(matches, "arguments")).await
}

async fn interconnection(
    session: &Session<'_>,
    matches: &ArgMatches,
    program: &str,
    leader: &str,
) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    let labels = format!("app=ovn-ic-server,{leader}=true");
    let found = cluster.place(&labels, "ovn-ic-server", None).await?;
    let at = found.with_context(|| {
        format!("no ready ovn-ic-server pod in {} has the label {leader}=true", cluster.namespace)
    })?;
    hand_on(&cluster, &at, &[program], words(matches, "arguments")).await
}

async fn switch(
    session: &Session<'_>,
    matches: &ArgMatches,
    program: &'static str,
) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    let at = cluster.switch(argument(matches, "node")).await?;
    hand_on(&cluster, &at, &[program], words(matches, "arguments")).await
}
