//! The networks of a pod, and the subnets in which each of them may get its addresses.

use crate::{
    api::{
        Attachment, Index, Kind, Plugin, Pod, Subnet, Text,
        names::suffix,
        parse::{NetworkRequest, parse_pod_networks},
    },
    store::{Problem, View},
};

use super::placement;

/// One network interface to be given addresses.
#[derive(Debug, Clone)]
pub struct Network<'a> {
    /// `ovn`, `<nad>.<ns>.ovn`, or `<nad>.<ns>` for address management only.
    pub provider: Text,
    /// In order of preference.
    pub subnets: Vec<&'a Subnet>,
    /// Addresses and MAC of the network selection element.
    pub request: Option<NetworkRequest>,
}

/// All networks of a pod that can be served, the default one first, and what stands against the
/// others.
pub fn pod_networks<'a>(view: &View<'a>, pod: &Pod) -> (Vec<Network<'a>>, Vec<Problem>) {
    let (mut networks, mut problems) = (Vec::new(), Vec::new());
    let asked = match parse_pod_networks(pod) {
        Ok(asked) => asked,
        Err(message) => return (networks, vec![problem(pod, message)]),
    };
    if asked.default.is_none() {
        match placement::pod_subnets(view, pod) {
            Ok(subnets) => {
                networks.push(Network { provider: "ovn".into(), subnets, request: None });
            }
            Err(found) => problems.push(found),
        }
    }
    for request in asked.default.into_iter().chain(asked.further) {
        match attached(view, pod, request) {
            Ok(network) => networks.extend(network),
            Err(message) => problems.push(problem(pod, message)),
        }
    }
    (networks, problems)
}

fn problem(pod: &Pod, message: String) -> Problem {
    Problem {
        kind: Kind::Pod,
        key: format!("{}/{}", pod.namespace, pod.name).into(),
        reason: "AcquireAddressFailed",
        message,
    }
}

/// `None` when the addresses of the network are not ours to give.
fn attached<'a>(
    view: &View<'a>,
    pod: &Pod,
    request: NetworkRequest,
) -> Result<Option<Network<'a>>, String> {
    let name = request.attachment.clone();
    let attachment = view.get::<Attachment>(&name).ok_or_else(|| {
        format!("NetworkAttachmentDefinition {:?} does not exist; create it", &*name)
    })?;
    let provider = attachment.expected_provider();
    let of_provider = || -> Vec<&Subnet> {
        let all = view.list::<Subnet>(Index::SubnetsByProvider, &provider);
        all.into_iter().filter(|s| !s.deleting).collect()
    };
    let subnets = match attachment.plugin {
        Plugin::Other => of_provider(),
        Plugin::KubeOvn => match pod.annotation(&provider, suffix::LOGICAL_SWITCH) {
            Some(subnet) => vec![view.get::<Subnet>(subnet).ok_or_else(|| {
                format!(
                    "annotation {provider}.kubernetes.io/logical_switch names subnet {:?}, which \
                     does not exist or is not valid; create it or remove the annotation",
                    &**subnet
                )
            })?],
            None => match of_provider() {
                own if own.is_empty() => {
                    placement::pod_subnets(view, pod).map_err(|found| found.message)?
                }
                own => own,
            },
        },
    };
    if subnets.is_empty() && attachment.plugin == Plugin::Other {
        return Ok(None);
    }
    // The CNI plugin looks for annotations of the provider that the configuration names.
    if !attachment.provider.is_empty() && *attachment.provider != *provider {
        return Err(format!(
            "provider {:?} in the configuration of NetworkAttachmentDefinition {:?} must be \
             {provider:?}; correct it",
            &*attachment.provider, &*name
        ));
    }
    Ok(Some(Network { provider: provider.into(), subnets, request: Some(request) }))
}
