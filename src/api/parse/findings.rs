use std::fmt::Display;

use crate::api::Invalid;

/// Reasons of conditions and Events.
pub mod reason {
    pub const SUBNET: &str = "ValidateLogicalSwitchFailed";
    pub const POD: &str = "ValidatePodNetworkFailed";
    pub const POOL: &str = "UpdateIPAMFailed";
    /// Ours: upstream only logged what was wrong with a Vpc or an IP.
    pub const VPC: &str = "ValidateVpcFailed";
    pub const IP: &str = "ValidateIPFailed";
    /// Ours: upstream tried again and again in silence.
    pub const SECURITY_GROUP: &str = "ValidateSecurityGroupFailed";
    pub const POLICY: &str = "CreateACLFailed";
    pub const SERVICE: &str = "ValidateSvcFailed";
    /// Ours: upstream tried again and again in silence.
    pub const ADMIN_POLICY: &str = "ValidateAdminNetworkPolicyFailed";
}

/// What was found wrong with one object.
pub struct Findings {
    reason: &'static str,
    found: Vec<Invalid>,
}

impl Findings {
    pub fn new(reason: &'static str) -> Self {
        Findings { reason, found: Vec::new() }
    }

    /// `field "value": remedy`.
    pub fn refuse(&mut self, field: &str, value: impl Display, remedy: impl Display) {
        let message = format!("{field} {:?}: {remedy}", value.to_string());
        self.found.push(Invalid { reason: self.reason, message });
    }

    /// Takes a value or notes the error.
    pub fn take<T, E: Display>(
        &mut self,
        field: &str,
        value: &str,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|e| self.refuse(field, value, e)).ok()
    }

    pub fn into_list(self) -> Vec<Invalid> {
        self.found
    }

    pub fn or<T>(self, value: T) -> Result<T, Vec<Invalid>> {
        if self.found.is_empty() { Ok(value) } else { Err(self.found) }
    }
}
