use std::fmt;

use super::Family;

/// An OVN match expression under construction (`ip4.src == 10.16.0.0/16 && tcp`), see
/// ovn-sb(5), table Logical_Flow, column match.
#[derive(Clone, PartialEq, Eq)]
pub struct Expression(String);

impl Expression {
    pub fn new(text: impl Into<String>) -> Self {
        Expression(text.into())
    }

    /// `left == right`.
    pub fn equals(left: impl fmt::Display, right: impl fmt::Display) -> Self {
        Expression(format!("{left} == {right}"))
    }

    /// `self && other`.
    pub fn and(self, other: Expression) -> Self {
        Expression(format!("{} && {}", self.0, other.0))
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Expression> for String {
    fn from(e: Expression) -> String {
        e.0
    }
}

/// `ip4.src`, `ip6.dst` ...
pub fn field(family: Family, end: &str) -> String {
    format!("ip{}.{end}", family.digit())
}

/// A port-group name made of `parts` joined by dots; OVN allows `[a-zA-Z_.][a-zA-Z_.0-9]*`, so
/// dashes become dots and a name that would start with a digit gets the prefix of the field's
/// usage (`np`). Upstream's mapping is not injective (`a-b`,`c` equals `a`,`b-c`); callers that
/// can collide add a hash.
pub fn port_group_name(parts: &[&str]) -> String {
    parts.join(".").replace('-', ".")
}

/// Name of the address set that northd derives from a port group: `<pg>_ip4`, `<pg>_ip6`.
pub fn address_set_name(port_group: &str, family: Family) -> String {
    format!("{port_group}_ip{}", family.digit())
}
