//! Flags and environment of kube-ovn-controller.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::ArgMatches;

use super::{
    Usage,
    flags::{self, Flag, Given, Support},
    options::{self, Environment, check_disjoint, cidrs, wrong},
};
use crate::{
    api::{EXTERNAL_GATEWAY_CONFIG, ExternalSettings, LoadBalancerSettings, Settings},
    net::{Cidr, DualStack, Family, IpRange, parse_ip},
    telemetry::{LogOptions, Serving},
};

const LATER_VLAN: Support = Support::Later("an underlay default network");
/// Only means something together with a flag that is refused.
const VLAN_DETAIL: Support = Support::Ignored("it describes an underlay default network");
const PATCHED_OVN: Support = Support::Ignored("it steers patched OVN; stock OVN behaves right");
const OWN_DELAYS: Support = Support::Ignored("what failed is retried with growing delays");
const NO_GC: Support = Support::Ignored("what is not desired is removed at once, and every 10 min");

/// Every flag of kube-ovn-controller but those of klog.
pub const FLAGS: &[Flag] = &[
    Flag::text("ovn-nb-addr", "", "northbound endpoints, comma list of tcp:[ip]:port, ssl:, unix:"),
    Flag::text("ovn-sb-addr", "", "southbound endpoints"),
    Flag::number("ovn-timeout", "60", 86_400, "seconds that a transaction may take"),
    Flag::number("ovsdb-con-timeout", "3", 86_400, "seconds that a connect may take"),
    Flag::number("ovsdb-con-maxretry", "60", 1_000_000, "")
        .support(Support::Ignored("the databases are tried until they answer")),
    Flag::number("ovsdb-inactivity-timeout", "10", 86_400, "seconds between probes; 0 = off"),
    Flag::number("cust-crd-retry-min-delay", "1", 86_400, "").support(OWN_DELAYS),
    Flag::number("cust-crd-retry-max-delay", "20", 86_400, "").support(OWN_DELAYS),
    Flag::text("default-ls", "ovn-default", "name of the default subnet"),
    Flag::text("default-cidr", "10.16.0.0/16", "prefixes of the default subnet, v4,v6"),
    Flag::text("default-gateway", "", "gateways of the default subnet; empty = first addresses"),
    Flag::switch("default-gateway-check", "true", "probe the gateway before a pod starts"),
    Flag::switch("default-logical-gateway", "false", "").support(LATER_VLAN),
    Flag::text("default-exclude-ips", "", "addresses never given to pods: a or a..b, comma list"),
    Flag::switch("default-u2o-interconnection", "false", "").support(LATER_VLAN),
    Flag::text("cluster-router", "ovn-cluster", "name of the default VPC and its router"),
    Flag::text("node-switch", "join", "name of the subnet that joins the nodes"),
    Flag::text("node-switch-cidr", "100.64.0.0/16", "prefixes of the join subnet, v4,v6"),
    Flag::text("node-switch-gateway", "", "gateways of the join subnet; empty = first addresses"),
    Flag::text("service-cluster-ip-range", "10.96.0.0/12", "prefixes of Services, v4,v6"),
    Flag::text("cluster-tcp-loadbalancer", "cluster-tcp-loadbalancer", "first part of names"),
    Flag::text("cluster-udp-loadbalancer", "cluster-udp-loadbalancer", "first part of names"),
    Flag::text("cluster-sctp-loadbalancer", "cluster-sctp-loadbalancer", "first part of names"),
    Flag::text(
        "cluster-tcp-session-loadbalancer",
        "cluster-tcp-session-loadbalancer",
        "first part of names",
    ),
    Flag::text(
        "cluster-udp-session-loadbalancer",
        "cluster-udp-session-loadbalancer",
        "first part of names",
    ),
    Flag::text(
        "cluster-sctp-session-loadbalancer",
        "cluster-sctp-session-loadbalancer",
        "first part of names",
    ),
    Flag::number("worker-num", "3", 100_000, "").support(Support::Ignored("there are no queues")),
    Flag::switch("enable-pprof", "false", "").support(Support::Ignored("this is not a Go program")),
    Flag::number("pprof-port", "10660", 65_535, "port of metrics and health"),
    Flag::number("nodepg-probe-time", "1", 1_000_000, "").support(NO_GC),
    Flag::text("network-type", "geneve", "geneve or vxlan"),
    Flag::text("default-provider-name", "provider", "").support(VLAN_DETAIL),
    Flag::text("default-interface-name", "", "").support(VLAN_DETAIL),
    Flag::switch("default-exchange-link-name", "false", "").support(VLAN_DETAIL),
    Flag::text("default-vlan-name", "ovn-vlan", "").support(VLAN_DETAIL),
    Flag::number("default-vlan-id", "1", 4095, "").support(VLAN_DETAIL),
    Flag::switch("ls-dnat-mod-dl-dst", "true", "").support(PATCHED_OVN),
    Flag::switch("ls-ct-skip-dst-lport-ips", "true", "").support(PATCHED_OVN),
    Flag::text("pod-nic-type", "veth-pair", "default NIC type of pods")
        .support(Support::Later("a default NIC type other than veth-pair")),
    Flag::switch("enable-lb", "true", "Services as OVN load balancers"),
    Flag::switch("enable-np", "true", "NetworkPolicy"),
    Flag::switch("enable-eip-snat", "true", "eip and snat annotations of pods"),
    Flag::switch("enable-external-vpc", "false", "").support(Support::Later("import of VPCs")),
    Flag::switch("enable-ecmp", "false", "").support(Support::Later("ECMP by flag (deprecated)")),
    Flag::switch("keep-vm-ip", "true", "addresses of VirtualMachines outlive their pods"),
    Flag::switch("enable-lb-svc", "false", "").support(Support::Later("LoadBalancer Services")),
    Flag::switch("enable-ovn-lb-prefer-local", "false", "policy Local falls back to other nodes"),
    Flag::switch("enable-anp", "false", "AdminNetworkPolicy and BaselineAdminNetworkPolicy"),
    Flag::switch("enable-ovn-ipsec", "false", "").support(Support::Later("IPsec")),
    Flag::switch("enable-live-migration-optimize", "true", "")
        .support(Support::Ignored("ports of migrating machines follow the pod that runs")),
    Flag::text("external-gateway-config-ns", "kube-system", "namespace of ovn-external-gw-config"),
    Flag::text("external-gateway-switch", "external", "switch of the external network"),
    Flag::text("external-gateway-net", "external", "its name in bridge mappings"),
    Flag::number("external-gateway-vlanid", "0", 4095, "its VLAN; 0 = untagged"),
    Flag::text("node-local-dns-ip", "", "addresses of node-local DNS, comma list"),
    Flag::number("gc-interval", "360", 1_000_000, "").support(NO_GC),
    Flag::number("inspect-interval", "20", 1_000_000, "").support(NO_GC),
    Flag::number("bfd-min-tx", "100", 1_000_000, "").support(Support::Later("BFD")),
    Flag::number("bfd-min-rx", "100", 1_000_000, "").support(Support::Later("BFD")),
    Flag::number("detect-mult", "3", 255, "").support(Support::Later("BFD")),
    Flag::text("image", "", "").support(Support::Ignored("no Deployments are generated")),
    Flag::switch("accept-plan", "false", "carry out one plan that deletes unusually much"),
];

/// A subnet that the controller makes at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSeed {
    pub name: String,
    pub cidrs: DualStack<Cidr>,
    /// One for each family of `cidrs`.
    pub gateways: DualStack<IpAddr>,
    pub excludes: Vec<IpRange>,
    /// Pods wait until the gateway answers.
    pub check_gateway: bool,
}

/// How to reach the OVN databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Databases {
    /// `tcp:[ip]:port`, `ssl:[ip]:port` or `unix:path`; at least one.
    pub northbound: Vec<String>,
    pub southbound: Vec<String>,
    pub transaction_timeout: Duration,
    pub connect_timeout: Duration,
    pub inactivity_probe: Option<Duration>,
}

/// What to do with a plan that the fuse stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OversizedPlan {
    Wait,
    AcceptOnce,
}

/// Validated options of kube-ovn-controller.
#[derive(Debug, Clone, PartialEq)]
pub struct ControllerOptions {
    pub databases: Databases,
    pub kubeconfig: Option<PathBuf>,
    pub default_subnet: SubnetSeed,
    pub join_subnet: SubnetSeed,
    pub settings: Settings,
    pub oversized_plan: OversizedPlan,
    pub serving: Serving,
    pub log: LogOptions,
    /// Holder name of the lease.
    pub identity: String,
    pub namespace: String,
    /// Lines to log once the log is up.
    pub notes: Vec<String>,
}

pub fn command() -> clap::Command {
    flags::build(&[FLAGS, options::SERVING])
}

impl ControllerOptions {
    pub fn parse(matches: &ArgMatches, env: &Environment) -> Result<Self, Usage> {
        let given = Given(matches);
        let notes = flags::check(&[FLAGS, options::SERVING], matches)?;
        let default_subnet = SubnetSeed {
            check_gateway: given.is_on("default-gateway-check"),
            excludes: excludes(&given)?,
            ..seed(&given, ["default-ls", "default-cidr", "default-gateway"])?
        };
        let join_subnet = seed(&given, ["node-switch", "node-switch-cidr", "node-switch-gateway"])?;
        // A name instead of an address says nothing about ranges.
        let api_server = env.get("KUBERNETES_SERVICE_HOST").and_then(|host| parse_ip(host).ok());
        let settings = Settings { api_server, ..settings(&given)? };
        check_disjoint(&[
            ("node-switch-cidr", join_subnet.cidrs),
            ("default-cidr", default_subnet.cidrs),
            ("service-cluster-ip-range", settings.service_cidrs),
        ])?;
        if let Some(family) =
            default_subnet.cidrs.families().find(|f| join_subnet.cidrs.get(*f).is_none())
        {
            let remedy = format!("lacks the IPv{} prefix that --default-cidr has", family.digit());
            return Err(wrong("node-switch-cidr", join_subnet.cidrs, remedy));
        }
        Ok(ControllerOptions {
            databases: databases(&given, env)?,
            kubeconfig: options::kubeconfig(&given),
            default_subnet,
            join_subnet,
            settings,
            oversized_plan: match given.is_on("accept-plan") {
                true => OversizedPlan::AcceptOnce,
                false => OversizedPlan::Wait,
            },
            serving: options::serving(&given, env)?,
            log: options::log_options(&given)?,
            identity: identity(env),
            namespace: env.get("KUBE_NAMESPACE").unwrap_or("kube-system").to_owned(),
            notes,
        })
    }
}

fn seconds(given: &Given<'_>, flag: &str) -> Duration {
    Duration::from_secs(given.small(flag))
}

fn identity(env: &Environment) -> String {
    let fallback = || format!("kube-ovn-controller-{}", std::process::id());
    env.get("POD_NAME").map_or_else(fallback, str::to_owned)
}

/// `flags`: name, prefixes, gateways.
fn seed(given: &Given<'_>, flags: [&str; 3]) -> Result<SubnetSeed, Usage> {
    let [name_flag, cidr_flag, gateway_flag] = flags;
    let name = given.text(name_flag);
    if name.is_empty() {
        return Err(wrong(name_flag, name, "must not be empty"));
    }
    let cidrs = cidrs(given, cidr_flag)?;
    for (_, cidr) in cidrs.iter() {
        if cidr.family().bits() - cidr.prefix < 2 {
            return Err(wrong(cidr_flag, cidrs, "too small; it must hold more than two addresses"));
        }
    }
    Ok(SubnetSeed {
        name,
        gateways: gateways(given, gateway_flag, cidrs)?,
        cidrs,
        excludes: Vec::new(),
        check_gateway: true,
    })
}

fn gateways(
    given: &Given<'_>,
    flag: &str,
    cidrs: DualStack<Cidr>,
) -> Result<DualStack<IpAddr>, Usage> {
    let text = given.text(flag);
    let mut gateways = cidrs.map(|cidr| cidr.first_usable());
    if text.is_empty() {
        return Ok(gateways);
    }
    let asked = DualStack::parse_addresses(&text).map_err(|error| wrong(flag, &text, error))?;
    for (family, ip) in asked.iter() {
        let fits = |cidr: &Cidr| cidr.contains(*ip) && !cidr.is_network_or_broadcast(*ip);
        if !cidrs.get(family).is_some_and(fits) {
            return Err(wrong(flag, &text, format!("{ip} is no host address of {cidrs}")));
        }
        gateways.set(family, Some(*ip));
    }
    Ok(gateways)
}

fn excludes(given: &Given<'_>) -> Result<Vec<IpRange>, Usage> {
    let parse = |text: String| {
        let range = IpRange::parse(&text).ok().filter(|_| !text.contains('/'));
        range.ok_or_else(|| wrong("default-exclude-ips", &text, "write an address or first..last"))
    };
    given.list("default-exclude-ips").into_iter().map(parse).collect()
}

pub(super) fn settings(given: &Given<'_>) -> Result<Settings, Usage> {
    let network_type = given.text("network-type");
    let refused = match network_type.as_str() {
        "geneve" | "vxlan" => None,
        "vlan" => Some("an underlay default network is not supported by this version; use geneve"),
        "stt" => Some("Open vSwitch 3.5 has no STT; use geneve"),
        _ => Some("write geneve or vxlan"),
    };
    if let Some(remedy) = refused {
        return Err(wrong("network-type", network_type, remedy));
    }
    let dns =
        |text: String| parse_ip(&text).map_err(|error| wrong("node-local-dns-ip", text, error));
    Ok(Settings {
        cluster_router: given.text("cluster-router").into(),
        default_subnet: given.text("default-ls").into(),
        node_switch: given.text("node-switch").into(),
        service_cidrs: cidrs(given, "service-cluster-ip-range")?,
        api_server: None,
        pod_nic_type: given.text("pod-nic-type").into(),
        enable_lb: given.is_on("enable-lb"),
        enable_np: given.is_on("enable-np"),
        load_balancers: LoadBalancerSettings {
            prefer_local: given.is_on("enable-ovn-lb-prefer-local"),
            ..LoadBalancerSettings::named(|flag| given.text(flag))
        },
        enable_anp: given.is_on("enable-anp"),
        keep_vm_ip: given.is_on("keep-vm-ip"),
        node_local_dns: given
            .list("node-local-dns-ip")
            .into_iter()
            .map(dns)
            .collect::<Result<_, _>>()?,
        network_type: network_type.into(),
        enable_ipsec: given.is_on("enable-ovn-ipsec"),
        external: ExternalSettings {
            enabled: given.is_on("enable-eip-snat"),
            config: format!(
                "{}/{EXTERNAL_GATEWAY_CONFIG}",
                given.text("external-gateway-config-ns")
            )
            .into(),
            switch: given.text("external-gateway-switch").into(),
            network: given.text("external-gateway-net").into(),
            vlan: given.small("external-gateway-vlanid"),
        },
    })
}

fn databases(given: &Given<'_>, env: &Environment) -> Result<Databases, Usage> {
    let connect_timeout = seconds(given, "ovsdb-con-timeout");
    let probe = seconds(given, "ovsdb-inactivity-timeout");
    if !probe.is_zero() && probe <= connect_timeout {
        let remedy = format!("must exceed --ovsdb-con-timeout={}", connect_timeout.as_secs());
        return Err(wrong("ovsdb-inactivity-timeout", probe.as_secs(), remedy));
    }
    Ok(Databases {
        northbound: endpoints(given, env, Database::Northbound)?,
        southbound: endpoints(given, env, Database::Southbound)?,
        transaction_timeout: seconds(given, "ovn-timeout"),
        connect_timeout,
        inactivity_probe: (!probe.is_zero()).then_some(probe),
    })
}

#[derive(Clone, Copy)]
enum Database {
    Northbound,
    Southbound,
}

/// The flag; else OVN_DB_IPS at the fixed port; else the Service's address and port.
fn endpoints(given: &Given<'_>, env: &Environment, db: Database) -> Result<Vec<String>, Usage> {
    let (flag, service, port) = match db {
        Database::Northbound => ("ovn-nb-addr", "OVN_NB_SERVICE", 6641),
        Database::Southbound => ("ovn-sb-addr", "OVN_SB_SERVICE", 6642),
    };
    let listed = given.list(flag);
    if let Some(bad) = listed.iter().find(|e| !is_endpoint(e)) {
        return Err(wrong(flag, bad, "write tcp:[ip]:port, ssl:[ip]:port or unix:path"));
    }
    if !listed.is_empty() {
        return Ok(listed);
    }
    let scheme = if env.is_true("ENABLE_SSL") { "ssl" } else { "tcp" };
    let nodes = env.addresses("OVN_DB_IPS")?;
    if !nodes.is_empty() {
        return Ok(nodes.iter().map(|ip| format!("{scheme}:[{ip}]:{port}")).collect());
    }
    let host = env.get(&format!("{service}_HOST")).map(str::to_owned);
    let service_port = env.get(&format!("{service}_PORT")).map_or(port.to_string(), str::to_owned);
    let Some(host) = host else {
        let remedy = format!("give endpoints here, or set OVN_DB_IPS or {service}_HOST");
        return Err(wrong(flag, "", remedy));
    };
    let endpoint = format!("{scheme}:[{host}]:{service_port}");
    if !is_endpoint(&endpoint) {
        return Err(Usage(format!("environment {service}_HOST={host}: not an IP address")));
    }
    Ok(vec![endpoint])
}

/// `tcp:ip:port` with optional brackets, `ssl:`, or `unix:path`.
fn is_endpoint(text: &str) -> bool {
    if let Some(path) = text.strip_prefix("unix:") {
        return !path.is_empty();
    }
    let Some(rest) = text.strip_prefix("tcp:").or_else(|| text.strip_prefix("ssl:")) else {
        return false;
    };
    let Some((host, port)) = rest.rsplit_once(':') else { return false };
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let ip = parse_ip(inner.unwrap_or(host));
    let bracketed = inner.is_some();
    port.parse::<u16>().is_ok_and(|port| port > 0)
        && ip.is_ok_and(|ip| bracketed || Family::of(ip) == Family::V4)
}
