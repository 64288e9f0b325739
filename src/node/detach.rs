//! CNI DEL, CHECK, GC and STATUS.
//!
//! A sandbox is found by its container id alone. The pod of that name may long be another one
//! (BUG 14: upstream takes the newer pod's annotations and its port), so DEL asks nobody but the
//! kernel and the vswitch replica.

use std::collections::BTreeSet;

use super::{
    apply::ApplyError,
    attach::{Attacher, CniError},
    garbage::{Proof, garbage, has_pod},
    observe::dump,
    ovs_rows::{IFACE_ID, PortState, observe_ovs, observe_port, port_state},
    vswitch::Connection,
};
use crate::{
    api::{Text, names::DEFAULT_PROVIDER},
    cni::wire::{GcRequest, Request},
    host::{NicNames, OvsPort, nic_names, plan_detach, plan_removal},
    kernel,
    net::{LinkState, Place},
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

    /// CNI GC: removes every attachment of the network that the runtime no longer knows (CNI 1.1,
    /// section 2): port, link, and by the next turn of the host loop what was kept for them.
    pub async fn gc(&self, request: &GcRequest) -> Result<(), CniError> {
        let valid = request.valid_attachments.iter();
        let valid: BTreeSet<Text> = valid
            .filter_map(|a| nic_names(&a.container_id, &a.if_name).ok())
            .map(|n| n.host)
            .collect();
        let provider = Some(&*request.provider).filter(|p| !p.is_empty());
        let provider = provider.unwrap_or(DEFAULT_PROVIDER);
        let removed = self.collect(&Proof::Runtime { provider, valid: &valid }).await?;
        if !removed.is_empty() {
            tracing::info!(?removed, provider, "attachments that the runtime does not know");
        }
        Ok(())
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

    /// Removes what reboots and killed processes left: ports of pods without a link, and NICs whose
    /// pod and namespace are both gone. Returns the names of their host ends.
    pub async fn remove_stale(&self) -> Result<Vec<Text>, CniError> {
        let pod = |port: &OvsPort| self.cluster.read(|state| has_pod(state, port));
        let netns = |path: &str| kernel::netns::exists(path);
        self.collect(&Proof::Absence { pod: &pod, netns: &netns }).await
    }

    async fn collect(&self, proof: &Proof<'_>) -> Result<Vec<Text>, CniError> {
        self.executor.vswitch().ready().await.map_err(ApplyError::from)?;
        // This order matters: a port seen here whose ADD is over by the time of the dump has its
        // link, and one whose ADD is not over is busy after it. A link seen there whose ADD is not
        // busy any more has its port by then.
        let ports = self.pod_ports();
        let links = kernel::within(Place::Host, || dump(&Place::Host)).await?.links;
        let mut spared = self.busy_ends();
        let known: BTreeSet<Text> = ports.iter().map(|p| p.name.clone()).collect();
        let news = self.pod_ports().into_iter().map(|p| p.name);
        spared.extend(news.filter(|name| !known.contains(name)));
        let found = garbage(&ports, &links, &spared, proof);
        let removal = found.iter().flat_map(plan_removal).collect();
        self.executor.apply(removal).await?;
        Ok(found.into_iter().collect())
    }

    fn pod_ports(&self) -> Vec<OvsPort> {
        self.executor.vswitch().read(|replica| {
            let ports = observe_ovs(replica).ports.into_values();
            ports.filter(|p| is_pod_port(&p.external_ids)).collect()
        })
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
