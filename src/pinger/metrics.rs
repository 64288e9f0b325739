//! Metric names of the pinger. They are upstream's, as its dashboards expect them.

use crate::telemetry::Family;

const NODE: &[&str] = &["nodeName"];
const POD_PING: &[&str] = &[
    "src_node_name",
    "src_node_ip",
    "src_pod_ip",
    "target_node_name",
    "target_node_ip",
    "target_pod_ip",
];
const NODE_PING: &[&str] =
    &["src_node_name", "src_node_ip", "src_pod_ip", "target_node_name", "target_node_ip"];
const EXTERNAL_PING: &[&str] = &["src_node_name", "src_node_ip", "src_pod_ip", "target_address"];

const ANSWER_MS: &[f64] = &[2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0];
const PING_MS: &[f64] = &[0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
const FAR_PING_MS: &[f64] = &[0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 50.0, 100.0];

/// A pair of gauges of which one is 1 and the other 0, and a histogram of the time it took.
pub struct Verdict {
    pub good: Family,
    pub bad: Family,
    pub latency: Option<Family>,
}

macro_rules! verdict {
    ($good:literal, $bad:literal, $what:literal) => {
        Verdict {
            good: Family::gauge($good, concat!($what, " (1 when it works)"), NODE),
            bad: Family::gauge($bad, concat!($what, " (1 when it fails)"), NODE),
            latency: None,
        }
    };
    ($good:literal, $bad:literal, $latency:literal, $what:literal) => {
        Verdict {
            latency: Some(Family::histogram(
                $latency,
                concat!($what, ": milliseconds"),
                NODE,
                ANSWER_MS,
            )),
            ..verdict!($good, $bad, $what)
        }
    };
}

pub static OVS: Verdict = verdict!("pinger_ovs_up", "pinger_ovs_down", "Open vSwitch of the node");
pub static OVN_CONTROLLER: Verdict = verdict!(
    "pinger_ovn_controller_up",
    "pinger_ovn_controller_down",
    "ovn-controller of the node"
);
pub static API_SERVER: Verdict = verdict!(
    "pinger_apiserver_healthy",
    "pinger_apiserver_unhealthy",
    "pinger_apiserver_latency_ms",
    "Request to the API server"
);
pub static INTERNAL_DNS: Verdict = verdict!(
    "pinger_internal_dns_healthy",
    "pinger_internal_dns_unhealthy",
    "pinger_internal_dns_latency_ms",
    "Resolution of a name of the cluster"
);
pub static EXTERNAL_DNS: Verdict = verdict!(
    "pinger_external_dns_healthy",
    "pinger_external_dns_unhealthy",
    "pinger_external_dns_latency_ms",
    "Resolution of a name outside the cluster"
);

pub static INCONSISTENT_PORTS: Family = Family::gauge(
    "pinger_inconsistent_port_binding",
    "Ports in Open vSwitch that the southbound database does not bind to this node",
    NODE,
);

/// Histogram, and counters of packets lost and sent (external pings count only the lost).
pub struct Ping {
    pub latency: Family,
    pub lost: Family,
    pub sent: Option<Family>,
}

pub static POD: Ping = Ping {
    latency: Family::histogram(
        "pinger_pod_ping_latency_ms",
        "Round trip to a pod, mean of a round, milliseconds",
        POD_PING,
        PING_MS,
    ),
    lost: Family::counter("pinger_pod_ping_lost_total", "Lost echoes to a pod", POD_PING),
    sent: Some(Family::counter("pinger_pod_ping_count_total", "Echoes to a pod", POD_PING)),
};
pub static NODE_PINGS: Ping = Ping {
    latency: Family::histogram(
        "pinger_node_ping_latency_ms",
        "Round trip to a node, mean of a round, milliseconds",
        NODE_PING,
        PING_MS,
    ),
    lost: Family::counter("pinger_node_ping_lost_total", "Lost echoes to a node", NODE_PING),
    sent: Some(Family::counter("pinger_node_ping_count_total", "Echoes to a node", NODE_PING)),
};
pub static EXTERNAL: Ping = Ping {
    latency: Family::histogram(
        "pinger_external_ping_latency_ms",
        "Round trip to an external address, mean of a round, milliseconds",
        EXTERNAL_PING,
        FAR_PING_MS,
    ),
    lost: Family::counter(
        "pinger_external_ping_lost_total",
        "Lost echoes to an external address",
        EXTERNAL_PING,
    ),
    sent: None,
};

/// All families that [`super::round`] records.
pub fn families() -> Vec<Family> {
    let mut all = vec![INCONSISTENT_PORTS];
    for verdict in [&OVS, &OVN_CONTROLLER, &API_SERVER, &INTERNAL_DNS, &EXTERNAL_DNS] {
        all.extend([verdict.good, verdict.bad]);
        all.extend(verdict.latency);
    }
    for ping in [&POD, &NODE_PINGS, &EXTERNAL] {
        all.extend([ping.latency, ping.lost]);
        all.extend(ping.sent);
    }
    all
}

const HOST: &[&str] = &["hostname"];
const DATAPATH: &[&str] = &["hostname", "datapath"];
const INTERFACE: &[&str] = &["hostname", "interfaceName"];

macro_rules! families {
    ($table:ident: $($name:ident = $metric:literal, $labels:expr, $help:literal;)*) => {
        $(pub static $name: Family = Family::gauge(concat!("kube_ovn_", $metric), $help, $labels);)*
        /// All families that [`super::report`] makes.
        pub static $table: &[Family] = &[$($name),*];
    };
}

families! { OVS_FAMILIES:
    STATUS = "ovs_status", &["hostname", "component"], "1 when the component answers, 0 otherwise";
    INFO = "ovs_info", &["hostname", "system_id", "rundir", "system_type", "system_version",
        "ovs_version", "db_version"], "Open vSwitch of the node; always 1";
    FAILED_REQUESTS = "failed_req_count", HOST, "Requests to Open vSwitch that failed";
    LOG_SIZE = "log_file_size_bytes", &["hostname", "component", "filename"], "Size of a log file";
    DB_SIZE = "db_file_size_bytes", &["hostname", "db_name"], "Size of the database file";
    DP = "datapath", &["hostname", "datapath", "type"], "A datapath; always 1";
    DP_TOTAL = "dp_total", HOST, "Datapaths";
    DP_IF = "dp_if", &["hostname", "datapath", "port", "type", "ofPort"], "A port; always 1";
    DP_IF_TOTAL = "dp_if_total", DATAPATH, "Ports of the datapath";
    DP_FLOWS = "dp_flows_total", DATAPATH, "Flows in the datapath";
    DP_HIT = "dp_flows_lookup_hit", DATAPATH, "Packets that met a flow";
    DP_MISSED = "dp_flows_lookup_missed", DATAPATH, "Packets that met no flow";
    DP_LOST = "dp_flows_lookup_lost", DATAPATH, "Packets dropped before ovs-vswitchd saw them";
    DP_MASKS_HIT = "dp_masks_hit", DATAPATH, "Masks visited";
    DP_MASKS = "dp_masks_total", DATAPATH, "Masks in the datapath";
    DP_MASKS_RATIO = "dp_masks_hit_ratio", DATAPATH, "Masks visited per packet";
    IF = "interface", &["hostname", "uuid", "interfaceName"], "An interface; always 1";
    IF_ADMIN = "interface_admin_state", INTERFACE, "down 0, up 1, other 2";
    IF_LINK = "interface_link_state", INTERFACE, "down 0, up 1, other 2";
    IF_MAC = "interface_mac_in_use", &["hostname", "interfaceName", "mac_address"], "Always 1";
    IF_MTU = "interface_mtu", INTERFACE, "MTU";
    IF_PORT = "interface_of_port", INTERFACE, "OpenFlow port";
    IF_INDEX = "interface_if_index", INTERFACE, "Index of the link";
    IF_TX_PACKETS = "interface_tx_packets", INTERFACE, "Packets sent";
    IF_TX_BYTES = "interface_tx_bytes", INTERFACE, "Bytes sent";
    IF_RX_PACKETS = "interface_rx_packets", INTERFACE, "Packets received";
    IF_RX_BYTES = "interface_rx_bytes", INTERFACE, "Bytes received";
    IF_RX_CRC = "interface_rx_crc_err", INTERFACE, "Received with wrong checksum";
    IF_RX_DROPPED = "interface_rx_dropped", INTERFACE, "Received and dropped";
    IF_RX_ERRORS = "interface_rx_errors", INTERFACE, "Received with errors";
    IF_RX_FRAME = "interface_rx_frame_err", INTERFACE, "Received with frame errors";
    IF_RX_MISSED = "interface_rx_missed_err", INTERFACE, "Missed by the receiver";
    IF_RX_OVER = "interface_rx_over_err", INTERFACE, "Receiver overruns";
    IF_TX_DROPPED = "interface_tx_dropped", INTERFACE, "Not sent but dropped";
    IF_TX_ERRORS = "interface_tx_errors", INTERFACE, "Errors in sending";
    IF_COLLISIONS = "interface_collisions", INTERFACE, "Collisions";
    IF_RX_MULTICAST = "interface_rx_multicast_packets", INTERFACE, "Multicast packets received";
}

/// Statistics of an Interface row and the family of each.
pub static STATISTICS: &[(&str, &Family)] = &[
    ("tx_packets", &IF_TX_PACKETS),
    ("tx_bytes", &IF_TX_BYTES),
    ("rx_packets", &IF_RX_PACKETS),
    ("rx_bytes", &IF_RX_BYTES),
    ("rx_crc_err", &IF_RX_CRC),
    ("rx_dropped", &IF_RX_DROPPED),
    ("rx_errors", &IF_RX_ERRORS),
    ("rx_frame_err", &IF_RX_FRAME),
    ("rx_missed_errors", &IF_RX_MISSED),
    ("rx_over_err", &IF_RX_OVER),
    ("tx_dropped", &IF_TX_DROPPED),
    ("tx_errors", &IF_TX_ERRORS),
    ("collisions", &IF_COLLISIONS),
    ("rx_multicast_packets", &IF_RX_MULTICAST),
];
