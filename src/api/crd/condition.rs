//! Status conditions. Times are RFC 3339, UTC, whole seconds.

use super::shape::record;

record! {
    /// A condition of most kinds.
    pub struct Condition {
        always {
            /// What the condition is about: Ready, Validated, Error or Init.
            kind: String = "type";
            /// True, False or Unknown.
            status: String = "status";
            /// When status, reason or message last changed.
            last_update_time: String = "lastUpdateTime";
            /// When status last changed.
            last_transition_time: String = "lastTransitionTime";
        }
        nonempty {
            /// Why, as one word.
            reason: String = "reason";
            /// Why, as a sentence: the field, its value and the remedy.
            message: String = "message";
        }
    }

    /// A condition of a ProviderNetwork: one per node and type.
    pub struct NodeCondition {
        always {
            /// What the condition is about: Ready.
            kind: String = "type";
            /// True, False or Unknown.
            status: String = "status";
            /// When status, reason or message last changed.
            last_update_time: String = "lastUpdateTime";
            /// When status last changed.
            last_transition_time: String = "lastTransitionTime";
        }
        nonempty {
            /// Node that the condition is about.
            node: String = "node";
            /// Why, as one word.
            reason: String = "reason";
            /// Why, as a sentence.
            message: String = "message";
        }
    }

    /// A condition that tells which generation of the object it speaks of.
    pub struct ObservedCondition {
        always {
            /// What the condition is about: Ready, Validated or Init.
            kind: String = "type" [
                Required,
                MaxLength(316),
                Pattern(r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"),
            ];
            /// True, False or Unknown.
            status: String = "status" [Required, Enum(&["True", "False", "Unknown"])];
            /// When status, reason or message last changed.
            last_update_time: String = "lastUpdateTime" [Required, Format("date-time")];
            /// When status last changed.
            last_transition_time: String = "lastTransitionTime" [Required, Format("date-time")];
            /// Why, as one word.
            reason: String = "reason" [
                Required,
                MinLength(1),
                MaxLength(1024),
                Pattern("^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
            ];
            /// metadata.generation that the condition was computed from.
            observed_generation: i64 = "observedGeneration" [Required, Min(0)];
        }
        nonempty {
            /// Why, as a sentence.
            message: String = "message" [MaxLength(32768)];
        }
    }
}
