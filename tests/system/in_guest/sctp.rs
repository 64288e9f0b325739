//! SCTP, which the kernels of many machines lack: a Service and a NetworkPolicy, judged by packets.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use kube_ovn::{kernel::netns, store::Stored};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    guest_test,
    rig::{Pod, kind_of, vsctl},
};
use crate::{
    central::eventually,
    central_ovs::{Node, stop},
    northd::Northd,
    support::{
        objects::settings,
        raw::{self, What},
    },
};

/// The objects of the file, without those of a kind.
fn objects(without: &str) -> Vec<Arc<dyn Stored>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let documents = raw::documents(&root.join("cases"), &root.join("system/in_guest/sctp.yaml"));
    let settings = raw::settings_of(&documents, &settings());
    let wanted = documents.iter().filter(|document| document["kind"] != without);
    let events = wanted.map(|document| raw::read(document, &settings).what);
    events
        .filter_map(|what| if let What::Present(object) = what { Some(object) } else { None })
        .collect()
}

const WAIT: Duration = Duration::from_secs(5);

fn socket(protocol: Protocol) -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).unwrap()
}

/// Whether data of one pod comes to another one's port through `address`.
fn arrives(protocol: Protocol, from: &Pod, to: (&Pod, u16), address: &str) -> bool {
    let (pod, port) = to;
    let listener = netns::enter(&pod.namespace.place, || socket(protocol)).unwrap();
    listener.bind(&SocketAddr::new(pod.address, port).into()).unwrap();
    listener.listen(1).unwrap();
    listener.set_nonblocking(true).unwrap();
    let client = netns::enter(&from.namespace.place, || socket(protocol)).unwrap();
    let address: SocketAddr = address.parse().unwrap();
    if client.connect_timeout(&address.into(), WAIT).is_err() {
        return false;
    }
    client.set_nonblocking(false).unwrap();
    client.send(b"hello").unwrap();
    let started = Instant::now();
    let accepted = loop {
        match listener.accept() {
            Ok((accepted, _)) => break accepted,
            Err(_) if started.elapsed() > WAIT => return false,
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    accepted.set_nonblocking(false).unwrap();
    accepted.set_read_timeout(Some(WAIT)).unwrap();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 16];
    accepted.recv(&mut buffer).is_ok_and(|length| length == 5)
}

guest_test! {
    fn services_and_policies() {
        let mut northd = Northd::start();
        let node = Node::new("gs");
        let running = node.start(&[("KUBE_NODE_NAME", "node1"), ("OVS_DATAPATH", "system")]);
        eventually("br-int", || kind_of(&node, "br-int").is_some());
        let remote = format!("external_ids:ovn-remote={}", northd.southbound());
        vsctl(&node, &["set", "Open_vSwitch", ".", &remote, "external_ids:ovn-encap-ip=10.99.0.5"]);
        northd.set(objects(""));
        let plug = |name: &str, host: u8| {
            let mac = format!("02:00:00:00:97:{host:02x}").parse().unwrap();
            let pod = Pod::plug(&node, name, &format!("10.16.0.{host}/16"), mac);
            pod.set_gateway("10.16.0.1");
            pod
        };
        let (a, b) = (plug("a.default", 5), plug("b.default", 6));
        eventually("SCTP to the allowed port", || {
            arrives(Protocol::SCTP, &a, (&b, 5001), "10.16.0.6:5001")
        });
        eventually("SCTP to the Service", || {
            arrives(Protocol::SCTP, &a, (&b, 5001), "10.96.0.50:5000")
        });
        assert!(!arrives(Protocol::SCTP, &a, (&b, 5002), "10.16.0.6:5002"), "another port");
        assert!(!arrives(Protocol::TCP, &a, (&b, 5001), "10.16.0.6:5001"), "another protocol");
        northd.set(objects("NetworkPolicy"));
        for (protocol, port) in [(Protocol::SCTP, 5002), (Protocol::TCP, 5001)] {
            let address = format!("10.16.0.6:{port}");
            eventually("open without the policy", || arrives(protocol, &a, (&b, port), &address));
        }
        stop(running);
    }
}
