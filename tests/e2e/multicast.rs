//! Chapter 3.2.9 of the manual: with enableMulticastSnoop a group reaches its members only.

use serde_json::json;

use crate::{
    cluster::retry,
    guard::{Undo, undo},
    pods::Pod,
    story::{Story, story},
};

const GROUP: &str = "239.1.2.3";
const SUBNET: &str = "sample1";

/// A process of the node that is a member of the group in the pod's network until it is dropped.
fn member<'a>(s: &'a Story, pod: &str, node: &'a str) -> Undo<'a> {
    // Pods have their name as HOSTNAME; the node's system has perl, the pods have not.
    let join = format!(
        r#"use Socket; socket(S, AF_INET, SOCK_DGRAM, 0) or die $!;
setsockopt(S, 0, Socket::IP_ADD_MEMBERSHIP(), inet_aton("{GROUP}") . INADDR_ANY) or die $!; sleep 300;"#
    );
    let script = format!(
        r#"for p in /proc/[0-9]*; do
    tr '\0' '\n' <"$p/environ" 2>/dev/null | grep -qx 'HOSTNAME={pod}' && break
done
nsenter -t "${{p#/proc/}}" -n perl -e '{join}' </dev/null >/dev/null 2>&1 &
echo $!"#
    );
    let pid = s.cluster.enter(node, &["sh", "-c", &script]).expect("a member of the group");
    let pid = pid.trim().to_owned();
    undo(move || drop(s.cluster.enter(node, &["kill", &pid])))
}

fn received(s: &Story, pod: &str) -> u64 {
    let file = "/sys/class/net/eth0/statistics/rx_packets";
    let count = s.exec(pod, &["cat", file]).expect("packets of the pod");
    count.trim().parse().expect("a number")
}

/// What two pods get of 40 packets to the group.
fn share(s: &Story) -> [u64; 2] {
    let pods = ["member", "other"];
    let before = pods.map(|pod| received(s, pod));
    // Nobody answers these.
    let _ = s.exec("sender", &["ping", "-q", "-i", "0.05", "-c", "40", "-W", "1", GROUP]);
    let after = pods.map(|pod| received(s, pod));
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn multicast_reaches_members_only() {
    story("manual-3-2-9", |s| {
        let nodes = s.cluster.nodes();
        let spec =
            |snoop: bool| json!({"cidrBlock": "10.64.0.0/24", "enableMulticastSnoop": snoop});
        s.subnet(SUBNET, spec(false));
        let on =
            |name: &str, n: usize| Pod::new(name).on(&nodes[n].name).with("logical_switch", SUBNET);
        s.start(&[on("sender", 0), on("member", 1), on("other", 1)]);
        retry(60, || match share(s) {
            [a, b] if a >= 40 && b >= 40 => Ok(()),
            few => Err(format!("without snooping all pods get all packets: {few:?} of 40")),
        });
        s.step("without snooping: all pods get it");
        let _member = member(s, "member", &nodes[1].name);
        s.put_subnet(SUBNET, spec(true));
        retry(90, || match share(s) {
            [member, other] if member >= 40 && other < 20 => Ok(()),
            shares => Err(format!("the member alone gets the packets: {shares:?} of 40")),
        });
        s.step("with snooping: the member alone");
    });
}
