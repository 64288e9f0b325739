//! The making of a pod NIC: look, plan, pair, then kernel and database at the same time.
//!
//! On a node whose cores are full every hand-over between threads waits for a time slice, and in a
//! burst these waits are most of an ADD. So there are two visits to a worker thread, and one to
//! the pod's namespace: its sockets stay open from the look to the last change.

use super::{
    apply::{ApplyError, Executor, Sockets},
    observe::{interrupted, observe_pair},
    ovs_rows::{is_ovs, observe_port, rivals},
};
use crate::{
    api::names::port_name,
    host::{
        AttachError, AttachObserved, AttachPlan, AttachRequest, HostOp, nic_names, plan_attach,
    },
    kernel::{self, Effort},
    net::Place,
};

#[derive(Debug, thiserror::Error)]
pub(super) enum BeginError {
    #[error(transparent)]
    Plan(#[from] AttachError),
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
}

/// A NIC whose pair is made, if it could be.
pub(super) struct Begun {
    pub plan: AttachPlan,
    /// Whatever it is, the plan's rollback is due from here on.
    pair: Result<(), kernel::Error>,
    rest: Vec<HostOp>,
    ovs: Vec<HostOp>,
    sockets: Sockets,
}

/// Looks, plans, and makes the pair: vswitchd would otherwise report a missing device. Must not be
/// dropped half-way: what is on its way cannot be recalled.
pub(super) async fn begin(
    executor: &Executor,
    request: &AttachRequest,
) -> Result<Begun, BeginError> {
    let names = nic_names(&request.container_id, &request.ifname)?;
    let iface_id = port_name(&request.owner_name, &request.namespace, &request.provider);
    let (port, rivals) = executor.vswitch().read(|replica| {
        (observe_port(replica, &names.host), rivals(replica, &iface_id, &names.host))
    });
    let (executor, request, netns) = (executor.clone(), request.clone(), request.netns.clone());
    let work = tokio::task::spawn_blocking(move || {
        let mut sockets = Sockets::default();
        let pod = Place::Namespace(request.netns.clone());
        let (host_link, inside) = observe_pair(&mut sockets, &pod, &names.host, &request.ifname)?;
        let observed = AttachObserved {
            host_link,
            pod_links: inside.links,
            pod_addresses: inside.addresses,
            pod_routes: inside.routes,
            port,
            rivals,
        };
        let plan = plan_attach(&request, &observed)?;
        let (ovs, mut kernel): (Vec<_>, Vec<_>) = plan.ops.iter().cloned().partition(is_ovs);
        let pair = kernel.iter().position(|op| matches!(op, HostOp::CreateVeth(_)));
        let rest = kernel.split_off(pair.map_or(0, |n| n + 1));
        let pair = executor.apply_by(&kernel, &mut sockets);
        Ok(Begun { plan, pair, rest, ovs, sockets })
    });
    work.await.map_err(|e| interrupted(&netns, e))?
}

impl Begun {
    /// Everything else, at the same time. Must not be dropped half-way either.
    pub(super) async fn finish(
        self,
        executor: &Executor,
    ) -> (AttachPlan, Result<Effort, ApplyError>) {
        let Begun { plan, pair, rest, ovs, mut sockets } = self;
        if let Err(error) = pair {
            return (plan, Err(error.into()));
        }
        let worker = executor.clone();
        let made = tokio::task::spawn_blocking(move || {
            worker.apply_by(&rest, &mut sockets).map(|()| sockets.effort())
        });
        let (made, written) = tokio::join!(made, executor.vswitch().apply(&ovs));
        let result = match (made, written) {
            (Err(error), _) => Err(error.into()),
            (Ok(Err(error)), _) => Err(error.into()),
            (Ok(Ok(_)), Err(error)) => Err(error.into()),
            (Ok(Ok(effort)), Ok(())) => Ok(effort),
        };
        (plan, result)
    }
}
