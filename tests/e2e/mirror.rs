//! Chapter 3.11 of the manual: traffic of a pod on the node's mirror interface. What comes to the
//! pod is copied; what it sends is not, as with upstream.

use crate::{cluster::retry, pods::Pod, story::story};

#[test]
fn traffic_of_a_pod_is_mirrored() {
    story("manual-3-11", |s| {
        let nodes = s.cluster.nodes();
        let node = &nodes[1].name;
        let seen = || {
            let file = "/sys/class/net/mirror0/statistics/rx_packets";
            let count = s.cluster.enter(node, &["cat", file])?;
            count.trim().parse::<u64>().map_err(|e| e.to_string())
        };
        s.start(&[
            Pod::new("a").on(&nodes[0].name),
            Pod::new("mirror-pod").on(node).with("mirror", "true"),
            Pod::new("quiet").on(node),
        ]);
        let echoes = |target: &str| {
            let ping = ["ping", "-q", "-i", "0.05", "-c", "40", "-W", "2", target];
            s.exec("a", &ping).expect("echoes")
        };
        let (mirrored, quiet) = (s.ip("mirror-pod"), s.ip("quiet"));
        s.pings("a", &quiet);
        let passed = retry(60, || {
            let before = seen()?;
            echoes(&mirrored);
            match seen()? - before {
                passed if passed >= 40 => Ok(passed),
                passed => Err(format!("{passed} of 40 packets came to mirror0")),
            }
        });
        s.step(&format!("40 echoes of the pod: {passed} packets on mirror0"));
        retry(60, || {
            let before = seen()?;
            echoes(&quiet);
            match seen()? - before {
                passed if passed < 40 => Ok(()),
                passed => Err(format!("{passed} packets of another pod came to mirror0")),
            }
        });
        s.step("those of another pod do not come there");
    });
}
