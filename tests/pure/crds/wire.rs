//! How the structs read and write.

use std::error::Error;

use kube_ovn::api::crd::{
    self, Count,
    shape::{Shape, Write},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{Outcome, definition::kinds};

/// A value of the shape with every field set.
fn full(shape: &Shape) -> Value {
    match shape {
        Shape::String => json!("a"),
        Shape::Boolean => json!(true),
        Shape::Integer | Shape::Number => json!(7),
        Shape::Map => json!({"k": "v"}),
        Shape::Array(item) => json!([full(item)]),
        Shape::Object(list) => {
            list.iter().map(|p| (p.name.to_owned(), full(&p.shape))).collect::<Map<_, _>>().into()
        }
    }
}

/// What a struct with nothing set must write.
fn always(shape: &Shape) -> Value {
    match shape {
        Shape::Object(list) => list
            .iter()
            .filter(|p| p.write == Write::Always)
            .map(|p| (p.name.to_owned(), always(&p.shape)))
            .collect::<Map<_, _>>()
            .into(),
        Shape::String => json!(""),
        Shape::Boolean => json!(false),
        Shape::Integer | Shape::Number => json!(0),
        Shape::Map => json!({}),
        Shape::Array(_) => json!([]),
    }
}

fn check<K: Serialize + DeserializeOwned + Default>(plural: &str) -> Outcome {
    let kind = kinds()?
        .into_iter()
        .find(|k| k.definition.spec.names.plural == plural)
        .ok_or("no such kind")?;
    let mut object = json!({
        "apiVersion": "kubeovn.io/v1",
        "kind": kind.definition.spec.names.kind,
        "metadata": {"name": "x"},
        "spec": full(&kind.spec),
    });
    if let Some(status) = &kind.status {
        object["status"] = full(status);
    }
    let read: K = serde_json::from_value(object.clone())?;
    assert_eq!(serde_json::to_value(&read)?, object, "{plural}: a field is lost");

    let empty: K = serde_json::from_value(json!({"metadata": {"name": "x"}, "status": {}}))?;
    let mut written = serde_json::to_value(&empty)?;
    // The one field that upstream writes as null.
    if plural == "vpcs" {
        assert_eq!(written["spec"]["bfdPort"], Value::Null);
        written["spec"]["bfdPort"] = json!({"enabled": false});
    }
    assert_eq!(written["spec"], always(&kind.spec), "{plural}.spec");
    if let Some(status) = &kind.status {
        assert_eq!(written["status"], always(status), "{plural}.status");
    }
    Ok(())
}

#[test]
fn every_property_has_a_field_and_back() -> Outcome {
    check::<crd::Vpc>("vpcs")?;
    check::<crd::Subnet>("subnets")?;
    check::<crd::Ip>("ips")?;
    check::<crd::IpPool>("ippools")?;
    check::<crd::Vip>("vips")?;
    check::<crd::Vlan>("vlans")?;
    check::<crd::ProviderNetwork>("provider-networks")?;
    check::<crd::SecurityGroup>("security-groups")?;
    check::<crd::VpcDns>("vpc-dnses")?;
    check::<crd::SwitchLbRule>("switch-lb-rules")?;
    check::<crd::VpcNatGateway>("vpc-nat-gateways")?;
    check::<crd::VpcEgressGateway>("vpc-egress-gateways")?;
    check::<crd::IptablesEip>("iptables-eips")?;
    check::<crd::IptablesFipRule>("iptables-fip-rules")?;
    check::<crd::IptablesDnatRule>("iptables-dnat-rules")?;
    check::<crd::IptablesSnatRule>("iptables-snat-rules")?;
    check::<crd::OvnEip>("ovn-eips")?;
    check::<crd::OvnFip>("ovn-fips")?;
    check::<crd::OvnSnatRule>("ovn-snat-rules")?;
    check::<crd::OvnDnatRule>("ovn-dnat-rules")?;
    check::<crd::QosPolicy>("qos-policies")
}

/// One object without a spec must not break the list of all.
#[test]
fn absent_spec_and_nulls_are_defaults() -> Outcome {
    let bare: crd::Subnet = serde_json::from_value(json!({"metadata": {"name": "s"}}))?;
    assert_eq!(bare.spec, crd::SubnetSpec::default());
    let nulls: crd::Subnet = serde_json::from_value(json!({
        "metadata": {"name": "s"},
        "spec": {"vpc": null, "excludeIps": null, "u2oFeatures": null, "acls": null, "mtu": null},
        "status": null,
    }))?;
    assert_eq!(nulls.spec, crd::SubnetSpec::default());
    Ok(())
}

/// Upstream's parser refused the exponent form that the API server returns for large pools.
#[test]
fn trap_counters_of_any_size_and_form() -> Result<(), Box<dyn Error>> {
    for (text, count) in [
        ("0", 0),
        ("65533", 65533),
        ("18446744073709551615", u128::from(u64::MAX)),
        ("1.8446744073709552e+19", 1u128 << 64),
        ("18446744073709551616", 1u128 << 64),
        ("1E2", 100),
        ("-3", 0),
        ("1e300", u128::MAX),
        ("340282366920938463463374607431768211456", u128::MAX),
    ] {
        let read: Count = serde_json::from_str(text)?;
        assert_eq!(read.0, count, "{text}");
        let again: Count = serde_json::from_value(serde_json::to_value(read)?)?;
        assert_eq!(again, read, "{text}");
    }
    Ok(())
}

/// What is written equals what the API server gives back, or it would be written for ever: it keeps
/// whole numbers of 63 bits, and turns larger ones into doubles without a point.
#[test]
fn counts_come_back_as_they_were_written() {
    for (count, stored) in [
        (0, "0"),
        ((1 << 53) + 1, "9007199254740993"),
        ((1 << 63) - 1, "9223372036854775807"),
        ((1 << 63) + 1, "9223372036854775808"),
        ((1 << 64) - 2, "1.8446744073709552e+19"),
        (1 << 64, "1.8446744073709552e+19"),
        ((1 << 64) + 5, "1.8446744073709552e+19"),
    ] {
        let written = Count(count).stored();
        assert_eq!(written.to_string(), stored, "{count}");
        // In exponent form only from 10^21 on.
        let read = stored.replace("1.8446744073709552e+19", "18446744073709552000");
        assert_eq!(serde_json::from_str::<Value>(&read).ok(), Some(written), "{count}");
    }
}

/// Upstream wrote `replicas: 0` when unset, which its own schema refuses (1 to 3).
#[test]
fn trap_unset_replicas_of_vpc_dns_are_not_written() -> Outcome {
    let written = serde_json::to_value(crd::VpcDnsSpec::default())?;
    assert_eq!(written, json!({"vpc": "", "subnet": ""}));
    Ok(())
}

/// The hash of a translation rule is taken over its JSON: match, then action, empties left out.
#[test]
fn order_of_a_nat_rule() -> Outcome {
    let rule = crd::NatRule {
        action: "nat".into(),
        matching: crd::NatMatch { src_ips: "10.0.0.1".into(), ..Default::default() },
    };
    assert_eq!(serde_json::to_string(&rule)?, r#"{"match":{"srcIPs":"10.0.0.1"},"action":"nat"}"#);
    Ok(())
}
