//! The cluster controller: flags -> leader election -> watches, northbound client, reconcile loop.

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use clap::ArgMatches;
use k8s_openapi::api::{
    apps::v1 as apps, core::v1 as core, discovery::v1 as discovery, networking::v1::NetworkPolicy,
};
use kube::{Client, Config, api::ApiResource};
use tokio::sync::watch;

use super::{
    Applet, api_client, controller_metrics,
    controller_options::{self, ControllerOptions, OversizedPlan, SubnetSeed},
    options::{self, Environment},
    runtime,
};
use crate::{
    api::{
        Kind, Settings, crd, names,
        parse::{
            parse_admin_network_policy, parse_attachment, parse_baseline_admin_network_policy,
            parse_endpoint_slice, parse_external_gateway, parse_ip, parse_ippool, parse_namespace,
            parse_network_policy, parse_node, parse_pod, parse_security_group, parse_service,
            parse_service_cidr, parse_stateful_set, parse_subnet, parse_virtual_machine,
            parse_virtual_machine_instance, parse_vpc,
        },
    },
    controller::{
        chassis,
        commit::{self, AcceptPlan},
        figures::Figures,
        gateway_probe::probe_gateways,
        leader::{self, Leadership},
        patience::Rivals,
        publish::Publisher,
        reconcile::{self, Ended, Inputs, Progress, SharedProgress},
        records::{self, Seed},
        unsupported::tell_unsupported,
    },
    ovn::FEATURES,
    ovsdb::{
        client::{Client as OvsdbClient, Options as OvsdbOptions},
        endpoint::Endpoint,
        schema::{Database, nb, sb},
        tls::TlsFiles,
    },
    store::watch::{Scope, Watches},
    telemetry,
};

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

/// How long the API server may be away at start.
const START_RETRY: Duration = Duration::from_secs(3);
/// Longer than another candidate takes to try for the lease (2 to 5 s).
const STAND_BACK: Duration = Duration::from_secs(8);

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let options = ControllerOptions::parse(matches, &Environment::current())?;
    telemetry::log::init(&options.log).context("start the log")?;
    for note in &options.notes {
        tracing::info!("{note}");
    }
    runtime::block_on(serve(options))
}

async fn serve(options: ControllerOptions) -> anyhow::Result<ExitCode> {
    let config = options::kube_config(options.kubeconfig.as_deref()).await?;
    let client = api_client::client(config.clone()).context("make a Kubernetes client")?;
    let progress = SharedProgress::default();
    controller_metrics::register(&progress).context("register metrics")?;
    let figures = Figures::register(telemetry::metrics::registry()).context("register metrics")?;
    let mut election = elect(&options, config.clone())?;
    let standing = Arc::new(Mutex::new(election.watch()));
    let probes = probes(&progress, &standing);
    let _serving = telemetry::serve(&options.serving, probes, Some(client.clone())).await?;
    let shutdown = runtime::shutdown();
    tokio::pin!(shutdown);
    loop {
        let (mut state, mut watched) = (election.watch(), election.watch());
        *standing.lock().unwrap_or_else(PoisonError::into_inner) = election.watch();
        let shared = (Arc::clone(&progress), figures.clone());
        let outcome = tokio::select! {
            signal = &mut shutdown => signal.map(|()| End::Asked)?,
            lost = lost_leadership(&mut watched) => End::Fatal(lost),
            end = lead_when_elected(&options, client.clone(), &mut state, shared) => end,
        };
        election.resign().await;
        match outcome {
            End::Asked => return Ok(ExitCode::SUCCESS),
            // The process ends, as upstream's does: a fresh start is the safest way back.
            End::Fatal(reason) => anyhow::bail!("{reason}"),
            End::StandBack(reason) => tracing::warn!("{reason}; standing back"),
        }
        *progress.lock().unwrap_or_else(PoisonError::into_inner) = Progress::default();
        tokio::select! {
            signal = &mut shutdown => return signal.map(|()| ExitCode::SUCCESS),
            () = tokio::time::sleep(STAND_BACK) => {}
        }
        election = elect(&options, config.clone())?;
    }
}

/// Why a turn as candidate and leader ended.
enum End {
    Asked,
    Fatal(String),
    /// Others are to try. The process stays: with all databases away for minutes, the kubelet would
    /// start a process that ends every 30 s later and later.
    StandBack(String),
}

fn elect(options: &ControllerOptions, config: Config) -> anyhow::Result<leader::Election> {
    let client = leader::lease_client(config).context("make a client for the lease")?;
    Ok(leader::run(client, &options.namespace, names::LEASE, &options.identity))
}

async fn lost_leadership(state: &mut watch::Receiver<Leadership>) -> String {
    let lost = |s: &Leadership| matches!(s, Leadership::Lost { .. } | Leadership::Resigned);
    match state.wait_for(lost).await {
        Ok(state) => format!("leadership ended: {:?}", *state),
        Err(_) => "the leader election ended".to_owned(),
    }
}

async fn lead_when_elected(
    options: &ControllerOptions,
    client: Client,
    state: &mut watch::Receiver<Leadership>,
    shared: (SharedProgress, Figures),
) -> End {
    let elected = state.wait_for(|s| matches!(s, Leadership::Leading { .. })).await.is_ok();
    if !elected {
        return End::Fatal("the leader election ended".to_owned());
    }
    tracing::info!(identity = options.identity, "leading");
    match lead(options, client, shared).await {
        Ok(ended @ Ended::CutOff(_)) => End::StandBack(ended.to_string()),
        Ok(ended) => End::Fatal(ended.to_string()),
        Err(error) => End::Fatal(format!("{error:#}")),
    }
}

async fn lead(
    options: &ControllerOptions,
    client: Client,
    shared: (SharedProgress, Figures),
) -> anyhow::Result<Ended> {
    let (progress, figures) = shared;
    let settings = &options.settings;
    let (default, join) = (seed(&options.default_subnet), seed(&options.join_subnet));
    while let Err(error) = records::ensure_defaults(&client, settings, &default, &join).await {
        tracing::warn!(%error, "cannot make the default VPC and subnets yet");
        tokio::time::sleep(START_RETRY).await;
    }
    let northbound = OvsdbOptions {
        monitored: commit::monitored(),
        ..database(options, &nb::DATABASE, &options.databases.northbound)?
    };
    let southbound = OvsdbOptions {
        monitored: chassis::monitored(),
        ..database(options, &sb::DATABASE, &options.databases.southbound)?
    };
    let (ovsdb, ovsdb_events) = OvsdbClient::connect(northbound);
    let (sb_client, sb_events) = OvsdbClient::connect(southbound);
    let (nodes, known_nodes) = watch::channel(None);
    let _chassis =
        AbortOnDrop(tokio::spawn(chassis::keep_chassis(sb_client, sb_events, known_nodes)));
    let (gateways, known_gateways) = watch::channel(Default::default());
    let (silence, silent) = watch::channel(Default::default());
    let _probes = AbortOnDrop(tokio::spawn(probe_gateways(known_gateways, silence)));
    let unsupported = tell_unsupported(client.clone(), APPLET.name);
    let _unsupported = AbortOnDrop(tokio::spawn(unsupported));
    let (mut watches, updates) = Watches::new(client.clone());
    let kinds = start_watches(&mut watches, settings);
    let inputs = Inputs {
        publisher: Publisher::new(client.clone(), "kube-ovn-controller"),
        kube: client,
        ovsdb,
        ovsdb_events,
        watch: updates,
        kinds,
        settings: settings.clone(),
        accept: match options.oversized_plan {
            OversizedPlan::AcceptOnce => AcceptPlan::Yes,
            OversizedPlan::Wait => AcceptPlan::No,
        },
        progress,
        nodes,
        gateways,
        silent,
        figures,
        rivals: match options.databases.northbound.len() {
            0 | 1 => Rivals::None,
            _ => Rivals::Some,
        },
    };
    Ok(reconcile::reconcile(FEATURES, inputs).await)
}

/// Ends the task with the leadership.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn seed(of: &SubnetSeed) -> Seed {
    Seed {
        name: of.name.clone(),
        cidrs: of.cidrs,
        gateways: of.gateways,
        excludes: of.excludes.clone(),
        check_gateway: of.check_gateway,
    }
}

/// Client options for a database at `addresses`, monitoring nothing yet.
fn database(
    options: &ControllerOptions,
    database: &'static Database,
    addresses: &[String],
) -> anyhow::Result<OvsdbOptions> {
    let endpoints =
        addresses.iter().map(|text| text.parse::<Endpoint>()).collect::<Result<Vec<_>, _>>()?;
    let secure = endpoints.iter().any(|e| matches!(e, Endpoint::Ssl { .. }));
    Ok(OvsdbOptions {
        tls: secure.then(|| TlsFiles {
            key: "/var/run/tls/key".into(),
            certificate: "/var/run/tls/cert".into(),
            authority: "/var/run/tls/cacert".into(),
        }),
        probe: options.databases.inactivity_probe.unwrap_or_default(),
        connect_timeout: options.databases.connect_timeout,
        transact_timeout: options.databases.transaction_timeout,
        ..OvsdbOptions::new(database, endpoints)
    })
}

/// Starts all watches; returns the kinds whose first list must be complete before any write.
pub(super) fn start_watches(watches: &mut Watches, settings: &Settings) -> BTreeSet<Kind> {
    let of_subnet = settings.clone();
    watches.custom(|raw: &crd::Vpc| {
        let (mut vpc, invalid) = parse_vpc(raw);
        vpc.invalid = invalid;
        Ok(vpc)
    });
    watches.custom(move |raw: &crd::Subnet| parse_subnet(raw, &of_subnet));
    watches.custom(parse_ip);
    watches.custom(parse_ippool);
    watches.custom(|raw: &crd::SecurityGroup| Ok(parse_security_group(raw)));
    watches.core(&Scope::ALL, |raw: &core::Node| Ok(parse_node(raw)));
    watches.core(&Scope::ALL, |raw: &core::Namespace| Ok(parse_namespace(raw)));
    watches.core(&Scope::ALL, |raw: &core::Pod| Ok(parse_pod(raw)));
    watches.core(&Scope::ALL, |raw: &NetworkPolicy| Ok(parse_network_policy(raw)));
    watches.core(&Scope::object(&settings.external.config), |raw: &core::ConfigMap| {
        Ok(parse_external_gateway(raw))
    });
    watches.core(&Scope::ALL, |raw: &core::Service| Ok(parse_service(raw)));
    watches.core(&Scope::ALL, |raw: &discovery::EndpointSlice| Ok(parse_endpoint_slice(raw)));
    watches.core(&Scope::ALL, |raw: &apps::StatefulSet| Ok(parse_stateful_set(raw)));
    watches.foreign(
        &foreign(
            "k8s.cni.cncf.io",
            "NetworkAttachmentDefinition",
            "network-attachment-definitions",
        ),
        parse_attachment,
    );
    watches.foreign(&service_cidrs(), parse_service_cidr);
    watches.foreign(&machines("VirtualMachine"), parse_virtual_machine);
    watches.foreign(&machines("VirtualMachineInstance"), parse_virtual_machine_instance);
    let mut kinds = BTreeSet::from([
        Kind::StatefulSet,
        Kind::Vpc,
        Kind::Subnet,
        Kind::Ip,
        Kind::IpPool,
        Kind::SecurityGroup,
        Kind::Node,
        Kind::Namespace,
        Kind::Pod,
        Kind::NetworkPolicy,
        Kind::ExternalGateway,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::ServiceCidr,
    ]);
    if settings.enable_anp {
        // The CRDs are the user's; without them the list is empty.
        watches.custom(parse_admin_network_policy);
        watches.custom(parse_baseline_admin_network_policy);
        kinds.extend([Kind::AdminNetworkPolicy, Kind::BaselineAdminNetworkPolicy]);
    }
    kinds
}

/// Kubernetes has them since 1.33.
pub(super) fn service_cidrs() -> ApiResource {
    foreign("networking.k8s.io", "ServiceCIDR", "servicecidrs")
}

fn machines(kind: &str) -> ApiResource {
    foreign("kubevirt.io", kind, &format!("{}s", kind.to_ascii_lowercase()))
}

/// `v1` of a kind of other software.
fn foreign(group: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{group}/v1"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// The state of the election that this process takes part in now.
type Standing = Arc<Mutex<watch::Receiver<Leadership>>>;

/// Live while the process runs; ready as a standby, and as a leader once everything known was
/// applied (and not stuck since).
fn probes(progress: &SharedProgress, standing: &Standing) -> telemetry::Probes {
    let (progress, standing) = (Arc::clone(progress), Arc::clone(standing));
    telemetry::Probes {
        live: Arc::new(|| Ok(())),
        ready: Arc::new(move || {
            let state = standing.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(*state.borrow(), Leadership::Leading { .. }) {
                return Ok(());
            }
            let progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            if progress.ready {
                Ok(())
            } else {
                Err(format!("waiting for {}", progress.waiting_for.join(", ")))
            }
        }),
    }
}
