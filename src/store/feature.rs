//! What a feature is, and what it may ask for.

use std::{collections::BTreeMap, fmt};

use crate::{
    api::{Kind, Text},
    ovsdb::row::Fact,
};

use super::View;

/// The object that a row exists for, as seen by one feature.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    pub feature: &'static str,
    pub kind: Kind,
    pub key: Text,
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.feature, self.kind.name(), self.key)
    }
}

/// A pure translation of one object into facts. It runs again when something it read changes.
#[derive(Debug)]
pub struct Feature {
    /// First part of the row identities it makes.
    pub name: &'static str,
    /// Kind of the objects that own its rows.
    pub owner: Kind,
    pub desired: fn(&View<'_>, &str) -> Output,
}

/// Everything that follows from one owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    pub facts: Vec<Fact>,
    pub problems: Vec<Problem>,
    pub wanted: Vec<Wanted>,
}

/// User input that cannot be honoured. Becomes a condition and an Event on the object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub kind: Kind,
    pub key: Text,
    /// Reason of the sheets (`ValidateLogicalSwitchFailed`).
    pub reason: &'static str,
    /// Field, value and remedy.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

/// A wish about a Kubernetes object, compared with what was seen and written after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `None` removes the key.
    Annotations {
        kind: Kind,
        key: Text,
        values: BTreeMap<Text, Option<Text>>,
    },
    Labels {
        kind: Kind,
        key: Text,
        values: BTreeMap<Text, Option<Text>>,
    },
    /// Merge patch of `/status`.
    Status {
        kind: Kind,
        key: Text,
        status: serde_json::Value,
    },
    /// Merge patch of `/spec` (defaults written back).
    Spec {
        kind: Kind,
        key: Text,
        spec: serde_json::Value,
    },
    Event {
        kind: Kind,
        key: Text,
        reason: &'static str,
        message: String,
        event: EventType,
    },
    Finalizer {
        kind: Kind,
        key: Text,
        presence: Presence,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Present,
    Absent,
}

impl Wanted {
    /// The object that is to be written.
    pub fn target(&self) -> (Kind, &Text) {
        match self {
            Wanted::Annotations { kind, key, .. }
            | Wanted::Labels { kind, key, .. }
            | Wanted::Status { kind, key, .. }
            | Wanted::Spec { kind, key, .. }
            | Wanted::Event { kind, key, .. }
            | Wanted::Finalizer { kind, key, .. } => (*kind, key),
        }
    }
}
