//! Writes of IP CRs, and the objects that the controller makes at start.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    api::{Ip, Settings, crd, names},
    net::{Cidr, DualStack, IpRange},
    store::{Presence, watch::Seen},
};

use super::{ledger::Action, publish::finalizers};

/// What failed, with the object.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {kind} {name}: {source}")]
pub struct RecordError {
    pub verb: &'static str,
    pub kind: &'static str,
    pub name: String,
    pub source: Box<kube::Error>,
}

fn failed(
    verb: &'static str,
    kind: &'static str,
    name: &str,
) -> impl FnOnce(kube::Error) -> RecordError + use<> {
    let name = name.to_owned();
    move |source| RecordError { verb, kind, name, source: Box::new(source) }
}

/// The IP CR of an allocation.
pub fn ip_resource(ip: &Ip, owner: Option<&OwnerReference>) -> crd::Ip {
    let mut resource = crd::Ip::new(
        &ip.name,
        crd::IpSpec {
            pod_name: ip.pod_name.to_string(),
            namespace: ip.namespace.to_string(),
            subnet: ip.subnet.to_string(),
            node_name: ip.node.to_string(),
            ip_address: ip.addresses.to_string(),
            v4_ip_address: ip.addresses.v4.map(|a| a.to_string()).unwrap_or_default(),
            v6_ip_address: ip.addresses.v6.map(|a| a.to_string()).unwrap_or_default(),
            mac_address: ip.mac.map(|m| m.to_string()).unwrap_or_default(),
            pod_type: ip.pod_type.to_string(),
            ..crd::IpSpec::default()
        },
    );
    label(&mut resource, ip);
    resource.labels_mut().insert(names::label::IP_RESERVED.into(), "false".into());
    resource.finalizers_mut().push(names::finalizer::CONTROLLER.into());
    resource.owner_references_mut().extend(owner.cloned());
    resource
}

fn label(resource: &mut crd::Ip, ip: &Ip) {
    let labels = resource.labels_mut();
    labels.insert(ip.subnet.to_string(), String::new());
    labels.insert(names::label::SUBNET.into(), ip.subnet.to_string());
    labels.insert(names::label::NODE_NAME.into(), ip.node.to_string());
}

/// An IP object made by hand, filled in. It outlives its pod unless it is labelled otherwise.
pub fn adopted_resource(mut resource: crd::Ip, ip: &Ip) -> crd::Ip {
    let filled = ip_resource(ip, None).spec;
    resource.spec = crd::IpSpec { container_id: resource.spec.container_id, ..filled };
    label(&mut resource, ip);
    let labels = resource.labels_mut();
    let reserved = labels.entry(names::label::IP_RESERVED.into()).or_default();
    if reserved != "false" {
        *reserved = "true".to_owned();
    }
    resource.finalizers_mut().push(names::finalizer::CONTROLLER.into());
    resource
}

/// What a write found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// Written as asked.
    Done,
    /// To be created, but there is one already, of unknown content; the watch shows it.
    Other,
    /// To be deleted, but there is none.
    Absent,
}

/// Whether what is there says of an allocation what we would have written.
fn is_same_record(seen: &crd::Ip, ours: &crd::Ip) -> bool {
    fn of(ip: &crd::Ip) -> [&String; 6] {
        let spec = &ip.spec;
        let (v4, v6, mac) = (&spec.v4_ip_address, &spec.v6_ip_address, &spec.mac_address);
        [&spec.subnet, v4, v6, mac, &spec.namespace, &spec.pod_name]
    }
    seen.metadata.deletion_timestamp.is_none() && of(seen) == of(ours)
}

/// The patch that takes our finalizers off a record, today's and those of earlier releases; those
/// of others stay. `None`: there is none of ours. Its resourceVersion refuses it when somebody
/// wrote meanwhile.
pub fn release(seen: &Seen) -> Option<Value> {
    let left = finalizers(Some(Presence::Absent), seen)?;
    let version = &*seen.resource_version;
    Some(json!({ "metadata": { "finalizers": left, "resourceVersion": version } }))
}

/// Carries out an action on a record that is known as `seen`. Repeating one that was done before is
/// a success.
pub async fn apply_action(
    client: Client,
    action: &Action,
    owner: Option<OwnerReference>,
    seen: Option<Arc<Seen>>,
) -> Result<Existence, RecordError> {
    let api: Api<crd::Ip> = Api::all(client);
    let gone = |result: Result<(), kube::Error>| match result {
        Ok(()) => Ok(Existence::Done),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Existence::Absent),
        Err(error) => Err(error),
    };
    match action {
        Action::Record(ip) => {
            let resource = ip_resource(ip, owner.as_ref());
            match api.create(&PostParams::default(), &resource).await {
                Ok(_) => Ok(Existence::Done),
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    let seen = api.get_opt(&ip.name).await;
                    let seen = seen.map_err(failed("read", "IP", &ip.name))?;
                    // An answer that was lost on the way is no other's record.
                    let ours = seen.is_some_and(|seen| is_same_record(&seen, &resource));
                    Ok(if ours { Existence::Done } else { Existence::Other })
                }
                Err(error) => Err(failed("create", "IP", &ip.name)(error)),
            }
        }
        Action::Adopt(ip) => {
            let seen = api.get_opt(&ip.name).await.map_err(failed("read", "IP", &ip.name))?;
            let Some(seen) = seen else { return Ok(Existence::Absent) };
            // Its resourceVersion refuses this when somebody wrote meanwhile.
            let filled = adopted_resource(seen, ip);
            let result = api.replace(&ip.name, &PostParams::default(), &filled).await.map(|_| ());
            gone(result).map_err(failed("fill", "IP", &ip.name))
        }
        Action::Delete(name) => {
            let result = api.delete(name, &DeleteParams::default()).await.map(|_| ());
            gone(result).map_err(failed("delete", "IP", name))
        }
        Action::Finalize(name) => {
            let patch = seen.and_then(|seen| release(&seen));
            let Some(patch) = patch.map(Patch::Merge) else { return Ok(Existence::Done) };
            let result = api.patch(name, &PatchParams::default(), &patch).await.map(|_| ());
            gone(result).map_err(failed("release", "IP", name))
        }
    }
}

/// A subnet that exists from the start.
#[derive(Debug, Clone)]
pub struct Seed {
    pub name: String,
    pub cidrs: DualStack<Cidr>,
    pub gateways: DualStack<IpAddr>,
    pub excludes: Vec<IpRange>,
    pub check_gateway: bool,
}

impl Seed {
    fn spec(&self, settings: &Settings) -> crd::SubnetSpec {
        let excludes = self.excludes.iter().map(|r| r.to_string().replace('-', ".."));
        let gateways = self.gateways.iter().map(|(_, ip)| ip.to_string());
        crd::SubnetSpec {
            vpc: settings.cluster_router.to_string(),
            provider: names::DEFAULT_PROVIDER.to_owned(),
            protocol: self.cidrs.protocol().to_owned(),
            cidr_block: self.cidrs.to_string(),
            gateway: self.gateways.to_string(),
            exclude_ips: gateways.chain(excludes).collect(),
            disable_gateway_check: !self.check_gateway,
            ..crd::SubnetSpec::default()
        }
    }
}

/// Makes the default VPC, the join subnet and the default subnet where they are missing. An
/// existing subnet keeps its addresses; only single to dual stack is extended.
pub async fn ensure_defaults(
    client: &Client,
    settings: &Settings,
    default: &Seed,
    join: &Seed,
) -> Result<(), RecordError> {
    let vpcs: Api<crd::Vpc> = Api::all(client.clone());
    let vpc = crd::Vpc::new(&settings.cluster_router, crd::VpcSpec::default());
    create(&vpcs, &vpc, "Vpc", &settings.cluster_router).await?;
    let mut spec = join.spec(settings);
    spec.disable_inter_connection = true;
    ensure_subnet(client, &join.name, spec).await?;
    let mut spec = default.spec(settings);
    spec.default = true;
    spec.nat_outgoing = true;
    spec.gateway_type = "distributed".to_owned();
    spec.enable_lb = Some(settings.enable_lb);
    ensure_subnet(client, &default.name, spec).await
}

async fn create<K>(
    api: &Api<K>,
    object: &K,
    kind: &'static str,
    name: &str,
) -> Result<(), RecordError>
where
    K: kube::Resource + Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.create(&PostParams::default(), object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(failed("create", kind, name)(error)),
    }
}

async fn ensure_subnet(
    client: &Client,
    name: &str,
    spec: crd::SubnetSpec,
) -> Result<(), RecordError> {
    let api: Api<crd::Subnet> = Api::all(client.clone());
    let existing = api.get_opt(name).await.map_err(failed("read", "Subnet", name))?;
    let Some(existing) = existing else {
        return create(&api, &crd::Subnet::new(name, spec), "Subnet", name).await;
    };
    let old = DualStack::parse_cidrs(&existing.spec.cidr_block).unwrap_or_default();
    let new = DualStack::parse_cidrs(&spec.cidr_block).unwrap_or_default();
    if old.is_dual() || !new.is_dual() {
        return Ok(());
    }
    // Single to dual stack: the family that is missing comes from the flags.
    let cidrs = DualStack { v4: old.v4.or(new.v4), v6: old.v6.or(new.v6) };
    let gateways = DualStack::parse_addresses(&spec.gateway).unwrap_or_default();
    let given = DualStack::parse_addresses(&existing.spec.gateway).unwrap_or_default();
    let gateways = DualStack { v4: given.v4.or(gateways.v4), v6: given.v6.or(gateways.v6) };
    let patch = Patch::Merge(json!({ "spec": {
        "cidrBlock": cidrs.to_string(),
        "gateway": gateways.to_string(),
        "protocol": cidrs.protocol(),
    }}));
    api.patch(name, &PatchParams::default(), &patch)
        .await
        .map(|_| ())
        .map_err(failed("extend", "Subnet", name))
}
