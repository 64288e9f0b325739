//! Objects that pods belong to, as far as their addresses depend on them.

use super::{Kind, Object, Text};

/// A StatefulSet, whose pods keep their addresses while it has a place for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatefulSet {
    pub namespace: Text,
    pub name: Text,
    /// First ordinal (`spec.ordinals.start`).
    pub start: u64,
    pub replicas: u64,
    /// Annotation `ovn.kubernetes.io/logical_switch` of the pod template.
    pub subnet: Option<Text>,
    pub deleting: bool,
}

impl StatefulSet {
    /// Position of a pod in the set: 0 for the first ordinal. `None` for a pod beyond the replicas
    /// or one that is not named by the set.
    pub fn position(&self, pod: &str) -> Option<u64> {
        let ordinal: u64 = pod.strip_prefix(&*self.name)?.strip_prefix('-')?.parse().ok()?;
        ordinal.checked_sub(self.start).filter(|position| *position < self.replicas)
    }
}

impl Object for StatefulSet {
    const KIND: Kind = Kind::StatefulSet;
    fn key(&self) -> Text {
        format!("{}/{}", self.namespace, self.name).into()
    }
}

/// A KubeVirt VirtualMachine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMachine {
    pub namespace: Text,
    pub name: Text,
    pub deleting: bool,
}

impl Object for VirtualMachine {
    const KIND: Kind = Kind::VirtualMachine;
    fn key(&self) -> Text {
        format!("{}/{}", self.namespace, self.name).into()
    }
}

/// A KubeVirt VirtualMachineInstance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMachineInstance {
    pub namespace: Text,
    pub name: Text,
    pub deleting: bool,
}

impl Object for VirtualMachineInstance {
    const KIND: Kind = Kind::VirtualMachineInstance;
    fn key(&self) -> Text {
        format!("{}/{}", self.namespace, self.name).into()
    }
}

/// Who makes the interfaces of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// Our plugin, alone or in a list: an OVN port.
    KubeOvn,
    /// Another plugin, which may take its addresses from us.
    Other,
}

/// A NetworkAttachmentDefinition of the multi-network plumbing working group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub namespace: Text,
    pub name: Text,
    pub plugin: Plugin,
    /// `provider` of the configuration, by which the CNI plugin finds its annotations; "" when it
    /// is not given or not ours.
    pub provider: Text,
}

impl Attachment {
    /// Provider of its pods' annotations and of its subnets: `<nad>.<ns>[.ovn]`.
    pub fn expected_provider(&self) -> String {
        match self.plugin {
            Plugin::KubeOvn => format!("{}.{}.ovn", self.name, self.namespace),
            Plugin::Other => format!("{}.{}", self.name, self.namespace),
        }
    }
}

impl Object for Attachment {
    const KIND: Kind = Kind::Attachment;
    fn key(&self) -> Text {
        format!("{}/{}", self.namespace, self.name).into()
    }
}
