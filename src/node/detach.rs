//! CNI DEL, CHECK, GC and STATUS.
//!
//! A sandbox is found by its container id alone. The pod of that name may long be another one
//! (BUG 14: upstream takes the newer pod's annotations and its port), so DEL asks nobody but the
//! kernel and the vswitch replica.

use std::collections::BTreeSet;

use super::{
    apply::ApplyError,
    attach::{Attacher, CniError},
    observe::dump,
    ovs_rows::{IFACE_ID, PortState, observe_ovs, observe_port, port_state},
    vswitch::Connection,
};
use crate::{
    api::Text,
    cni::wire::{GcRequest, Request},
    host::{NicNames, nic_names, plan_detach},
    kernel,
    net::{Link, LinkState, Place},
};

impl Attacher {
    /// CNI DEL. What is not there is fine, however little the request says.
    pub async fn del(&self, request: &Request) -> Result<(), CniError> {
        // No ADD can have succeeded under such a name, so there is nothing to undo.
        let Ok(ops) = plan_detach(&request.container_id, &request.if_name) else { return Ok(()) };
        let lock = self.locks.of(&request.container_id, &request.if_name);
        let _held = lock.lock().await;
        self.executor.vswitch().ready().await.map_err(ApplyError::from)?;
        if self.belongs_to_another(request) {
            return Ok(());
        }
        Ok(self.executor.apply(ops).await?)
    }

    /// Names hold only some characters of the container id, so two sandboxes may share one. The
    /// port says whose it is.
    fn belongs_to_another(&self, request: &Request) -> bool {
        let Ok(names) = nic_names(&request.container_id, &request.if_name) else { return true };
        let port = self.executor.vswitch().read(|r| observe_port(r, &names.host));
        let owner = port.and_then(|p| p.external_ids.get("pod_netns").cloned());
        owner.is_some_and(|netns| !request.net_ns.is_empty() && *netns != *request.net_ns)
    }

    /// CNI CHECK: is everything that ADD made still there?
    pub async fn check(&self, request: &Request) -> Result<(), CniError> {
        let names = nic_names(&request.container_id, &request.if_name)?;
        self.executor.vswitch().ready().await.map_err(ApplyError::from)?;
        let problem = |text: String| Err(CniError::Check(text));
        let Some(port) = self.executor.vswitch().read(|r| observe_port(r, &names.host)) else {
            return problem(format!("port {} is not on br-int", names.host));
        };
        if !port.external_ids.contains_key(IFACE_ID) {
            return problem(format!("another sandbox has taken the iface-id of {}", names.host));
        }
        let state = self.executor.vswitch().read(|r| port_state(r, &names.host));
        if state != PortState::Installed {
            return problem(format!("the flows of port {} are not installed", names.host));
        }
        let place = Place::Namespace(request.net_ns.as_str().into());
        let pod = kernel::within(Place::Host, move || dump(&place)).await?;
        let Some(link) = pod.links.iter().find(|l| *l.name == *request.if_name) else {
            return problem(format!("{} has no interface {}", request.net_ns, request.if_name));
        };
        if link.state == LinkState::Down {
            return problem(format!("interface {} is down", request.if_name));
        }
        let ips = port.external_ids.get("ip").map(|t| &**t).unwrap_or_default();
        for ip in ips.split(',').filter_map(|t| t.parse::<std::net::IpAddr>().ok()) {
            if !pod.addresses.iter().any(|a| a.link == link.name && a.cidr.address == ip) {
                return problem(format!("interface {} has lost address {ip}", request.if_name));
            }
        }
        Ok(())
    }

    /// CNI GC: removes attachments that the runtime no longer knows and whose pod side is gone.
    pub async fn gc(&self, request: &GcRequest) -> Result<(), CniError> {
        let valid = request.valid_attachments.iter();
        let valid: BTreeSet<Text> = valid
            .filter_map(|a| nic_names(&a.container_id, &a.if_name).ok())
            .map(|n| n.host)
            .collect();
        self.remove_stale(&valid).await.map(|_| ())
    }

    /// CNI STATUS: would an ADD be served now?
    pub fn status(&self) -> Result<(), CniError> {
        let problem = |text: &str| Err(CniError::Check(text.to_owned()));
        if self.executor.vswitch().connection() == Connection::Down {
            return problem("the vswitch database is not reachable; is the ovs-ovn pod running?");
        }
        if self.facts.borrow().overlay_mtu.is_none() {
            return problem("the tunnel interface of this node is not known yet");
        }
        Ok(())
    }

    /// Removes OVS ports of pods whose link no longer exists (reboot, daemon killed between two
    /// steps), except those in `keep` or with a request under way. Returns their names.
    pub async fn remove_stale(&self, keep: &BTreeSet<Text>) -> Result<Vec<Text>, CniError> {
        self.executor.vswitch().ready().await.map_err(ApplyError::from)?;
        // This order matters: a port seen here whose ADD is over by the time of the dump has its
        // link, and one whose ADD is not over is busy in between.
        let ports: Vec<Text> = self.executor.vswitch().read(|replica| {
            let ports = observe_ovs(replica).ports.into_values();
            ports.filter(|p| is_pod_port(&p.external_ids)).map(|p| p.name).collect()
        });
        let busy = self.busy_ends();
        let links = kernel::within(Place::Host, || dump(&Place::Host)).await?.links;
        let mut stale = stale_ports(&ports, &links);
        stale.retain(|name| !keep.contains(name) && !busy.contains(name));
        let removal = stale.iter().map(|name| crate::host::HostOp::RemoveOvsPort {
            bridge: crate::host::INTEGRATION_BRIDGE.into(),
            port: name.clone(),
        });
        self.executor.apply(removal.collect()).await?;
        Ok(stale)
    }

    fn busy_ends(&self) -> BTreeSet<Text> {
        let busy = self.locks.busy().into_iter();
        busy.filter_map(|(c, i)| nic_names(&c, &i).ok()).map(|NicNames { host, .. }| host).collect()
    }
}

/// `true` for ports that a CNI ADD made: ours, and of a network namespace.
pub fn is_pod_port(external_ids: &std::collections::BTreeMap<Text, Text>) -> bool {
    external_ids.contains_key("pod_netns") && external_ids.contains_key("pod_name")
}

/// Ports without a kernel link. A veth dies with its namespace, so its absence proves that the
/// sandbox is gone; a missing namespace file alone proves nothing (it may just not be mounted).
pub fn stale_ports<'a>(ports: impl IntoIterator<Item = &'a Text>, links: &[Link]) -> Vec<Text> {
    let names: BTreeSet<&str> = links.iter().map(|l| &*l.name).collect();
    ports.into_iter().filter(|p| !names.contains(&***p)).cloned().collect()
}
