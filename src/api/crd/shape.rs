//! The wire form of the custom resources, declared once: [`record!`] makes the struct, its serde
//! rules and its [`Shape`], from which `packaging/crds/*.yaml` are generated
//! (`BLESS=1 cargo test --test pure crds`).
//!
//! Reading never fails for something absent: a missing field and a null are the type's default.
//! Writing follows upstream: fields under `always` are written even when empty (a merge patch of
//! a status then clears what it must), those under `nonempty` only when set.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, Toleration},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};
use serde_json::Value;

/// When a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    Always,
    NonEmpty,
}

/// JSON type of a field, as the OpenAPI schema has it.
#[derive(Debug, Clone)]
pub enum Shape {
    String,
    Boolean,
    Integer,
    Number,
    /// Text to text.
    Map,
    Array(Box<Shape>),
    Object(Vec<Property>),
}

/// One field of an object.
#[derive(Debug, Clone)]
pub struct Property {
    pub name: &'static str,
    /// Shown by `kubectl explain`.
    pub doc: String,
    pub write: Write,
    pub shape: Shape,
    pub rules: &'static [Rule],
}

/// What the API server checks beyond the type.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    Required,
    Min(i64),
    Max(i64),
    MinLength(i64),
    MaxLength(i64),
    MinItems(i64),
    Pattern(&'static str),
    Format(&'static str),
    Enum(&'static [&'static str]),
    /// JSON list of refused values.
    Not(&'static str),
    /// JSON of the default value.
    Default(&'static str),
    AnyOf(&'static [Rule]),
    OneOf(&'static [Rule]),
    /// A list without duplicates.
    Set,
    /// A list keyed by these fields.
    MapKeys(&'static [&'static str]),
    /// CEL: rule and message.
    Cel(&'static str, &'static str),
    /// CEL: rule, message and the field to blame.
    CelAt(&'static str, &'static str, &'static str),
    /// Rules of a list's items.
    Items(&'static [Rule]),
    /// Rules of a field below, for shapes made elsewhere: `matchExpressions[].key`.
    At(&'static str, &'static [Rule]),
}

/// A type that may stand in a custom resource.
pub trait Wire {
    fn shape() -> Shape;
}

macro_rules! wire {
    ($($type:ty => $shape:expr;)*) => { $(
        impl Wire for $type {
            fn shape() -> Shape {
                $shape
            }
        }
    )* };
}

wire! {
    String => Shape::String;
    bool => Shape::Boolean;
    i64 => Shape::Integer;
    Count => Shape::Number;
    BTreeMap<String, String> => Shape::Map;
    LabelSelector => selector();
    Toleration => toleration();
    Affinity => affinity();
}

impl<T: Wire> Wire for Vec<T> {
    fn shape() -> Shape {
        Shape::Array(Box::new(T::shape()))
    }
}

impl<T: Wire> Wire for Option<T> {
    fn shape() -> Shape {
        T::shape()
    }
}

fn property(name: &'static str, doc: &str, shape: Shape) -> Property {
    Property { name, doc: doc.to_owned(), write: Write::NonEmpty, shape, rules: &[] }
}

fn required(name: &'static str, doc: &str, shape: Shape) -> Property {
    Property { rules: &[Rule::Required], ..property(name, doc, shape) }
}

fn list(shape: Shape) -> Shape {
    Shape::Array(Box::new(shape))
}

fn requirement() -> Shape {
    Shape::Object(vec![
        property("key", "Label key the requirement is about.", Shape::String),
        property("operator", "How the value is compared.", Shape::String),
        property("values", "Values for In and NotIn; empty otherwise.", list(Shape::String)),
    ])
}

fn selector() -> Shape {
    Shape::Object(vec![
        property("matchLabels", "Labels that must all be present.", Shape::Map),
        property("matchExpressions", "Requirements that must all hold.", list(requirement())),
    ])
}

fn toleration() -> Shape {
    let effect = "Taint effect that is tolerated; empty means every effect.";
    let seconds = "How long a NoExecute taint is tolerated, in seconds.";
    Shape::Object(vec![
        property("key", "Taint key; empty with Exists means every key.", Shape::String),
        Property {
            rules: &[Rule::Enum(&["Equal", "Exists"])],
            ..property("operator", "How key and value are compared.", Shape::String)
        },
        property("value", "Taint value for Equal.", Shape::String),
        Property {
            rules: &[Rule::Enum(&["NoExecute", "NoSchedule", "PreferNoSchedule"])],
            ..property("effect", effect, Shape::String)
        },
        property("tolerationSeconds", seconds, Shape::Integer),
    ])
}

/// Narrower than core/v1: the rest is pruned by the API server, as upstream's schema has it.
fn affinity() -> Shape {
    let node_requirement = || {
        Shape::Object(vec![
            required("key", "Label or field of the node.", Shape::String),
            required("operator", "How the value is compared.", Shape::String),
            property("values", "Values to compare with.", list(Shape::String)),
        ])
    };
    let term = || {
        let labels = "Requirements on labels of the node.";
        Shape::Object(vec![
            property("matchExpressions", labels, list(node_requirement())),
            property(
                "matchFields",
                "Requirements on fields of the node.",
                list(node_requirement()),
            ),
        ])
    };
    let preferred =
        Shape::Object(vec![required("preference", "Nodes that are preferred.", term()), weight()]);
    let terms = Shape::Object(vec![required(
        "nodeSelectorTerms",
        "Terms of which one must hold.",
        list(term()),
    )]);
    let node = Shape::Object(vec![
        property(PREFERRED, "Wishes, weighted.", list(preferred)),
        property(REQUIRED, "Conditions a node must meet.", terms),
    ]);
    Shape::Object(vec![
        property("nodeAffinity", "Which nodes the pod may run on.", node),
        property("podAffinity", "Pods to be near to.", pod_affinity()),
        property("podAntiAffinity", "Pods to be apart from.", pod_affinity()),
    ])
}

const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

fn weight() -> Property {
    Property {
        rules: &[Rule::Required, Rule::Min(1), Rule::Max(100)],
        ..property("weight", "Weight of the wish.", Shape::Integer)
    }
}

fn pod_affinity() -> Shape {
    let term = || {
        Shape::Object(vec![
            Property {
                rules: &[
                    Rule::At("matchExpressions[].key", &[Rule::Required]),
                    Rule::At("matchExpressions[].operator", &[Rule::Required]),
                ],
                ..property("labelSelector", "Pods that count.", selector())
            },
            property("namespaces", "Namespaces of those pods.", list(Shape::String)),
            required("topologyKey", "Node label that says what near means.", Shape::String),
        ])
    };
    let preferred = Shape::Object(vec![required("podAffinityTerm", "The wish.", term()), weight()]);
    Shape::Object(vec![
        property(PREFERRED, "Wishes, weighted.", list(preferred)),
        property(REQUIRED, "Conditions that must hold.", list(term())),
    ])
}

/// A count of addresses. IPv6 counts pass 2^64, and the API server returns large numbers in
/// exponent form (`1.8446744073709552e+19`), so both forms are read; what exceeds 64 bits is
/// written as a floating point number, which is what the API server would store anyway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u128);

impl Count {
    /// As the API server gives it back: whole numbers of 63 bits as they are, larger ones rounded
    /// to a double, those below 2^64 without a point. Any other form would differ from what is
    /// read, and be written again and again.
    pub fn stored(self) -> Value {
        let rounded = self.0 as f64;
        match i64::try_from(self.0) {
            Ok(exact) => exact.into(),
            Err(_) if rounded < 18_446_744_073_709_551_616.0 => (rounded as u64).into(),
            Err(_) => rounded.into(),
        }
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(self.0) {
            Ok(small) => serializer.serialize_u64(small),
            Err(_) => serializer.serialize_f64(self.0 as f64),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number")
    }

    fn visit_u64<E>(self, v: u64) -> Result<Count, E> {
        Ok(Count(v.into()))
    }

    fn visit_u128<E>(self, v: u128) -> Result<Count, E> {
        Ok(Count(v))
    }

    /// A negative count is a defect of an older writer (upstream let counters wrap below zero).
    fn visit_i64<E>(self, v: i64) -> Result<Count, E> {
        Ok(Count(u128::try_from(v).unwrap_or(0)))
    }

    /// Saturates, as float casts do.
    fn visit_f64<E>(self, v: f64) -> Result<Count, E> {
        Ok(Count(v as u128))
    }
}

/// Reads a field; null is the default.
pub fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `true` for values that a `nonempty` field leaves out.
pub fn empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares the structs of a custom resource: `field: Type = "wireName" [rules];` under `always`
/// or `nonempty`. Doc comments become the schema's descriptions.
macro_rules! record {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(always {
                $( $(#[doc = $adoc:literal])* $af:ident: $at:ty = $aw:literal $([$($ar:expr),* $(,)?])?; )*
            })?
            $(nonempty {
                $( $(#[doc = $odoc:literal])* $of:ident: $ot:ty = $ow:literal $([$($or:expr),* $(,)?])?; )*
            })?
        }
    )*) => { $(
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        $(#[$meta])*
        #[serde(default)]
        pub struct $name {
            $($(
                $(#[doc = $adoc])*
                #[serde(rename = $aw, deserialize_with = "crate::api::crd::shape::lenient")]
                pub $af: $at,
            )*)?
            $($(
                $(#[doc = $odoc])*
                #[serde(
                    rename = $ow,
                    deserialize_with = "crate::api::crd::shape::lenient",
                    skip_serializing_if = "crate::api::crd::shape::empty"
                )]
                pub $of: $ot,
            )*)?
        }

        impl crate::api::crd::shape::Wire for $name {
            fn shape() -> crate::api::crd::shape::Shape {
                #[allow(unused_imports)]
                use crate::api::crd::shape::{Property, Rule::*, Shape, Wire, Write};
                Shape::Object(vec![
                    $($( Property {
                        name: $aw,
                        doc: concat!($($adoc, "\n"),*).trim().replace("\n ", " "),
                        write: Write::Always,
                        shape: <$at as Wire>::shape(),
                        rules: const { &[$($($ar),*)?] },
                    }, )*)?
                    $($( Property {
                        name: $ow,
                        doc: concat!($($odoc, "\n"),*).trim().replace("\n ", " "),
                        write: Write::NonEmpty,
                        shape: <$ot as Wire>::shape(),
                        rules: const { &[$($($or),*)?] },
                    }, )*)?
                ])
            }
        }
    )* };
}
pub(crate) use record;
