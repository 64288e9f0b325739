//! Metric names of the monitor. They are upstream's, as its dashboards expect them.

use crate::telemetry::Family;

const HOST: &[&str] = &["hostname"];
const SWITCH: &[&str] = &["hostname", "uuid", "logical_switch_name"];
const MEMBER: &[&str] = &["hostname", "db_name", "server_id", "cluster_id"];
const PEER: &[&str] = &["hostname", "db_name", "server_id", "cluster_id", "peer_id"];
const PEER_ADDRESS: &[&str] =
    &["hostname", "db_name", "server_id", "cluster_id", "peer_id", "peer_address"];

macro_rules! families {
    ($table:ident: $($name:ident = $metric:literal, $labels:expr, $help:literal;)*) => {
        $(pub static $name: Family = Family::gauge(concat!("kube_ovn_", $metric), $help, $labels);)*
        /// All families of the monitor.
        pub static $table: &[Family] = &[$($name),*];
    };
}

families! { FAMILIES:
    STATUS = "ovn_status", &["hostname", "component"],
        "0 unhealthy, 1 leader or active, 2 follower or standby";
    STATUS_CONTENT = "ovn_status_content", &["hostname", "component", "status"],
        "Members of the cluster as the server lists them; always 1";
    FAILED_REQUESTS = "failed_req_count", HOST, "Requests to OVN that failed";
    LOG_SIZE = "log_file_size_bytes", &["hostname", "component", "filename"], "Size of a log file";
    DB_SIZE = "db_file_size_bytes", &["hostname", "db_name"], "Size of a database file";
    DB_STATUS = "db_status", &["hostname", "db_name"], "1 when the storage of a database is sound";
    CHASSIS = "chassis_info", &["hostname", "uuid", "name", "ip"], "A chassis; always 1";
    SWITCH_INFO = "logical_switch_info", &["hostname", "uuid", "name"], "A switch; always 1";
    SWITCH_ID = "logical_switch_external_id",
        &["hostname", "uuid", "key", "value", "logical_switch_name"], "An external id; always 1";
    SWITCH_PORT = "logical_switch_port_binding",
        &["hostname", "uuid", "port", "logical_switch_name"], "A port of a switch; always 1";
    SWITCH_KEY = "logical_switch_tunnel_key", SWITCH, "Tunnel key of a switch";
    SWITCH_PORTS = "logical_switch_ports_num", SWITCH, "Ports of a switch";
    PORT_INFO = "logical_switch_port_info",
        &["hostname", "uuid", "name", "chassis", "logical_switch_name", "datapath",
          "port_binding", "mac_address", "ip_address"], "A port; always 1";
    PORT_KEY = "logical_switch_port_tunnel_key",
        &["hostname", "uuid", "logical_switch_name", "port_name"], "Tunnel key of a port";
    CLUSTER_ENABLED = "cluster_enabled", &["hostname", "db_name"],
        "1 when the database is a cluster's (db_name is the path of its file)";
    ROLE = "cluster_role", &["hostname", "db_name", "server_id", "cluster_id", "server_role"],
        "Role of this member; always 1";
    CLUSTER_STATUS = "cluster_status",
        &["hostname", "db_name", "server_id", "cluster_id", "server_status"],
        "Status of this member; always 1";
    TERM = "cluster_term", MEMBER, "Raft term";
    LEADER_SELF = "cluster_leader_self", MEMBER, "1 when this member leads";
    VOTE_SELF = "cluster_vote_self", MEMBER, "1 when this member voted for itself";
    ELECTION_TIMER = "cluster_election_timer", MEMBER, "Milliseconds";
    NOT_COMMITTED = "cluster_log_not_committed", MEMBER, "Log entries not committed";
    NOT_APPLIED = "cluster_log_not_applied", MEMBER, "Log entries not applied";
    INDEX_START = "cluster_log_index_start", MEMBER, "First index of the log";
    INDEX_NEXT = "cluster_log_index_next", MEMBER, "Next index of the log";
    INBOUND = "cluster_inbound_connections_total", MEMBER, "Inbound connections";
    OUTBOUND = "cluster_outbound_connections_total", MEMBER, "Outbound connections";
    INBOUND_ERRORS = "cluster_inbound_connections_error_total", MEMBER, "Inbound, not working";
    OUTBOUND_ERRORS = "cluster_outbound_connections_error_total", MEMBER, "Outbound, not working";
    INBOUND_PEER = "cluster_inbound_peer_connected", PEER_ADDRESS, "1 when a peer is connected";
    OUTBOUND_PEER = "cluster_outbound_peer_connected", PEER_ADDRESS, "1 when connected to a peer";
    PEER_NEXT = "cluster_peer_next_index", PEER, "Next index of a peer, as the leader knows it";
    PEER_MATCH = "cluster_peer_match_index", PEER, "Match index of a peer, as the leader knows it";
    PEERS = "cluster_peer_count", MEMBER, "Other members";
    NEXT = "cluster_next_index", MEMBER, "Next index of this member, when it leads";
    MATCH = "cluster_match_index", MEMBER, "Match index of this member, when it leads";
}
