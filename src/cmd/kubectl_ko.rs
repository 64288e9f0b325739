//! `kubectl ko`: the operator's tools. The commands are in `cli`; here they meet what they must
//! share with the controller, so that `audit` and `plan` compute exactly what it computes.

use std::{collections::BTreeSet, ffi::OsString, process::ExitCode};

use clap::ArgMatches;

use super::{
    Applet, Usage, command as applet_command, controller, controller_options::ControllerOptions,
    flags, options::Environment, runtime,
};
use crate::{
    api::{Gateway, Kind, Settings, Subnet, Text},
    cli::{self, Engine},
    controller::{commit, gateway},
    store::{Store, watch::SeenMap},
};

pub const APPLET: Applet = Applet {
    name: "kubectl-ko",
    aliases: &[],
    about: "Operate Kube-OVN from anywhere with a kubeconfig (kubectl ko ...)",
    example: "kubectl-ko trace default/client 10.16.0.9 tcp 80",
    command: cli::command,
    run,
};

/// Answers kubectl when the user presses TAB behind `kubectl ko`.
pub const COMPLETE: Applet = Applet {
    name: "kubectl_complete-ko",
    aliases: &[],
    about: "Completions of 'kubectl ko' for kubectl's own completion",
    example: "kubectl_complete-ko tr",
    command: cli::complete::command,
    run: |matches| {
        cli::complete::print_candidates(matches);
        Ok(ExitCode::SUCCESS)
    },
};

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let engine =
        Engine { settings, watch: controller::start_watches, derive, monitored: commit::monitored };
    let ended = runtime::block_on(async { cli::run(matches, &engine).await });
    ended.map_err(|error| match error.downcast::<cli::Usage>() {
        Ok(usage) => Usage(usage.0).into(),
        Err(error) => error,
    })
}

/// The settings that a controller with these arguments has.
fn settings(args: &[String]) -> anyhow::Result<Settings> {
    let command = applet_command(&controller::APPLET);
    let args = args.iter().filter(|arg| arg.starts_with('-')).map(OsString::from).collect();
    let words = flags::normalize(&command, args);
    let matches = command.try_get_matches_from(
        std::iter::once(OsString::from(controller::APPLET.name)).chain(words),
    )?;
    // The addresses are the pod's business.
    let environment = Environment::from([("OVN_DB_IPS", "127.0.0.1"), ("POD_IPS", "127.0.0.1")]);
    Ok(ControllerOptions::parse(&matches, &environment)?.settings)
}

/// What the controller's state machines add to the store.
fn derive(store: &mut Store, seen: &SeenMap) {
    let choices: Vec<Gateway> = store
        .iter::<Subnet>()
        .filter_map(|subnet| {
            let recorded = recorded_gateway(seen, &subnet.name);
            // Which chassis are silent only a running controller knows; its choice is recorded.
            gateway::choose(store, subnet, recorded.as_deref(), &BTreeSet::new())
        })
        .collect();
    for choice in choices {
        store.upsert(std::sync::Arc::new(choice));
    }
}

/// `status.activateGateway`: the choice of the leader.
fn recorded_gateway(seen: &SeenMap, subnet: &str) -> Option<Text> {
    let status = seen.get(Kind::Subnet, subnet)?.status.as_ref()?.value();
    let node = status.get("activateGateway")?.as_str()?;
    (!node.is_empty()).then(|| node.into())
}
