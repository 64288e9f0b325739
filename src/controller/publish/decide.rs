//! Wanted against seen: the smallest merge patches (RFC 7386) and the Events that are due.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map as Object, Value, json};

use super::condition::{conditions, success_reason};
use crate::{
    api::{Kind, Map, Text, names::finalizer},
    store::{EventType, Presence, Problem, Wanted, watch::Seen},
};

/// Everything that all owners want of one object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    annotations: BTreeMap<Text, Option<Text>>,
    labels: BTreeMap<Text, Option<Text>>,
    finalizer: Option<Presence>,
    spec: Object<String, Value>,
    status: Object<String, Value>,
    events: Vec<Notice>,
    /// Sorted; the first decides the conditions.
    pub problems: Vec<Problem>,
    judgement: Judgement,
}

/// Whether an object gets conditions from its problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Judgement {
    /// The kind has none, or they are written by others.
    #[default]
    None,
    Conditions,
}

/// An Event that is due when it was not sent before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub reason: &'static str,
    pub message: String,
    pub event: EventType,
}

/// Where a patch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Metadata and spec.
    Object,
    /// The status sub-resource.
    Status,
}

/// One merge patch.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    pub part: Part,
    pub body: Value,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// In the order in which they must be sent.
    pub patches: Vec<Patch>,
    pub notices: Vec<Notice>,
    /// Reasons that still hold; others may be announced again when they come back.
    pub standing: Vec<&'static str>,
}

impl Wish {
    pub fn new(judgement: Judgement) -> Self {
        Wish { judgement, ..Wish::default() }
    }

    /// Adds one owner's wish; of two for the same key the later counts.
    pub fn add(&mut self, wanted: &Wanted) {
        match wanted {
            Wanted::Annotations { values, .. } => {
                self.annotations.extend(values.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
            Wanted::Labels { values, .. } => {
                self.labels.extend(values.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
            Wanted::Status { status, .. } => merge(&mut self.status, status),
            Wanted::Spec { spec, .. } => merge(&mut self.spec, spec),
            Wanted::Event { reason, message, event, .. } => {
                let (message, event) = (message.clone(), *event);
                self.events.push(Notice { reason, message, event });
            }
            Wanted::Finalizer { presence, .. } => self.finalizer = Some(*presence),
        }
    }
}

fn merge(into: &mut Object<String, Value>, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        match (into.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(_)) => merge(old, value),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Compares. `now` is written as the time of changed conditions.
pub fn decide(kind: Kind, wish: &Wish, seen: &Seen, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    let mut status = wish.status.clone();
    let mut notices = wish.events.clone();
    notices.extend(wish.problems.iter().map(warning));
    // An object that is going away keeps the conditions it had.
    if wish.judgement == Judgement::Conditions && !seen.deleting {
        judge(kind, wish, seen, now, (&mut status, &mut notices));
    }
    decision.standing = notices.iter().map(|notice| notice.reason).collect();
    decision.notices = notices;
    let old = seen.status.as_ref().map(|status| status.value()).unwrap_or_default();
    // Status first: without its finalizer the object may be gone.
    if let Some(status) = difference(&old, &status) {
        decision.patches.push(Patch { part: Part::Status, body: json!({ "status": status }) });
    }
    decision.patches.extend(object_patch(wish, seen));
    decision
}

fn warning(problem: &Problem) -> Notice {
    Notice { reason: problem.reason, message: problem.message.clone(), event: EventType::Warning }
}

/// Conditions, and the Event of their last change.
fn judge(
    kind: Kind,
    wish: &Wish,
    seen: &Seen,
    now: Timestamp,
    out: (&mut Object<String, Value>, &mut Vec<Notice>),
) {
    let (status, notices) = out;
    let old = seen.status.as_ref().map(|status| status.value()).unwrap_or_default();
    let spec = seen.spec.as_ref().map(|spec| spec.value()).unwrap_or_default();
    let success = success_reason(kind, &spec);
    let list = conditions(kind, &wish.problems, success, &old["conditions"], now);
    let news = list != old["conditions"];
    if wish.problems.is_empty() && news {
        let message = String::new();
        notices.push(Notice { reason: success, message, event: EventType::Normal });
    }
    if news {
        status.insert("conditions".to_owned(), list);
    } else {
        // The same finding was announced when its condition was written, perhaps by the controller
        // before us.
        notices.retain(|notice| !wish.problems.iter().any(|p| p.reason == notice.reason));
    }
}

fn object_patch(wish: &Wish, seen: &Seen) -> Option<Patch> {
    let mut metadata = Object::new();
    let maps = [
        ("annotations", &wish.annotations, &seen.annotations),
        ("labels", &wish.labels, &seen.labels),
    ];
    for (name, wanted, have) in maps {
        let changed = map_difference(wanted, have);
        if !changed.is_empty() {
            metadata.insert(name.to_owned(), Value::Object(changed));
        }
    }
    if let Some(finalizers) = finalizers(wish.finalizer, seen) {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
        // A merge patch replaces the list; it must not undo what others did to it meanwhile.
        metadata.insert("resourceVersion".to_owned(), json!(&*seen.resource_version));
    }
    let old = seen.spec.as_ref().map(|spec| spec.value()).unwrap_or_default();
    let spec = difference(&old, &wish.spec);
    if metadata.is_empty() && spec.is_none() {
        return None;
    }
    // The API server refuses the patch when the name belongs to another object by now: the address
    // of a deleted pod must not land on its successor.
    metadata.insert("uid".to_owned(), json!(&*seen.uid));
    let mut body = Object::from_iter([("metadata".to_owned(), Value::Object(metadata))]);
    body.extend(spec.map(|spec| ("spec".to_owned(), spec)));
    Some(Patch { part: Part::Object, body: Value::Object(body) })
}

fn map_difference(wanted: &BTreeMap<Text, Option<Text>>, have: &Map) -> Object<String, Value> {
    let differs = |(key, value): &(&Text, &Option<Text>)| have.get(*key) != value.as_ref();
    let entry = |(key, value): (&Text, &Option<Text>)| {
        (key.to_string(), value.as_deref().map_or(Value::Null, Value::from))
    };
    wanted.iter().filter(differs).map(entry).collect()
}

/// The new list, when it differs. The name of releases before 1.13 is swapped for today's.
pub fn finalizers(presence: Option<Presence>, seen: &Seen) -> Option<Vec<Text>> {
    let ours = |f: &Text| finalizer::OURS.contains(&&**f);
    let mut list: Vec<Text> = seen.finalizers.iter().filter(|f| !ours(f)).cloned().collect();
    match presence? {
        // The API server refuses new finalizers on what is being deleted.
        Presence::Present if seen.deleting => return None,
        Presence::Present if seen.finalizers.iter().any(|f| &**f == finalizer::CONTROLLER) => {
            if seen.finalizers.len() == list.len() + 1 {
                return None;
            }
            list.push(finalizer::CONTROLLER.into());
        }
        Presence::Present => list.push(finalizer::CONTROLLER.into()),
        Presence::Absent => {}
    }
    (list != seen.finalizers).then_some(list)
}

/// The part of `wanted` that differs from `have`, as a merge patch. Lists are compared as a whole;
/// a wanted null equals an absent field.
pub fn difference(have: &Value, wanted: &Object<String, Value>) -> Option<Value> {
    let mut patch = Object::new();
    for (key, value) in wanted {
        let old = have.get(key).unwrap_or(&Value::Null);
        let changed = match value {
            Value::Object(inner) if !inner.is_empty() => difference(old, inner),
            _ => (old != value).then(|| value.clone()),
        };
        if let Some(changed) = changed {
            patch.insert(key.clone(), changed);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}
