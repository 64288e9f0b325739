//! Chapter 3.4.4 of the manual: addresses of virtual machines. KubeVirt is not there; its kinds and
//! the owner references of its pods are, which is all that the controller sees of it.

use serde_json::{Value, json};

use crate::{
    cluster::{retry, text},
    pods::Pod,
    story::{Story, story},
};

const MACHINE: &str = "VirtualMachine";
const INSTANCE: &str = "VirtualMachineInstance";

fn definition(kind: &str) -> Value {
    let singular = kind.to_lowercase();
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{singular}s.kubevirt.io")},
        "spec": {"group": "kubevirt.io", "scope": "Namespaced",
            "names": {"kind": kind, "plural": format!("{singular}s"), "singular": singular},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}}]}})
}

fn object(s: &Story, kind: &str) -> Value {
    json!({"apiVersion": "kubevirt.io/v1", "kind": kind,
        "metadata": {"name": "vm1", "namespace": s.ns}, "spec": {}})
}

/// The machine runs in a pod on a node; gives its address.
fn run(s: &Story, launcher: &str, node: &str) -> String {
    retry(60, || s.try_apply(&[object(s, INSTANCE)]));
    let resource = format!("{}s.kubevirt.io", INSTANCE.to_lowercase());
    let instance = s.cluster.objects(&["-n", &s.ns, &resource, "vm1"]).remove(0);
    let mut pod = Pod::new(launcher).on(node).manifest(&s.ns);
    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "kubevirt.io/v1", "kind": INSTANCE,
        "name": "vm1", "uid": instance["metadata"]["uid"], "controller": true}]);
    s.cluster.apply(&[pod]);
    s.wait_ready(&[launcher]);
    s.ip(launcher)
}

fn record(s: &Story) -> Result<Value, String> {
    let name = format!("vm1.{}", s.ns);
    let found = ["get", "ips.kubeovn.io", &name, "--ignore-not-found", "-o", "json"];
    let text = s.cluster.kubectl(&found)?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).map_err(|e| e.to_string())
}

#[test]
fn a_virtual_machine_keeps_its_address() {
    story("manual-3-4-4", |s| {
        let nodes = s.cluster.nodes();
        for kind in [INSTANCE, MACHINE] {
            let name = format!("{}s.kubevirt.io", kind.to_lowercase());
            s.extra("customresourcedefinition", &name);
            s.cluster.apply(&[definition(kind)]);
        }
        retry(60, || s.try_apply(&[object(s, MACHINE)]));
        let first = run(s, "virt-launcher-vm1-abcde", &nodes[0].name);
        let recorded = record(s).expect("the record");
        assert_eq!(text(&recorded["spec"]["podType"]), "VirtualMachine", "{recorded}");
        assert_eq!(text(&recorded["spec"]["ipAddress"]), first);
        s.step(&format!("the machine has {first}"));
        // Stopped: neither instance nor pod.
        s.delete_pods(&["virt-launcher-vm1-abcde"]);
        let resource = format!("{}s.kubevirt.io", INSTANCE.to_lowercase());
        s.kubectl(&["delete", &resource, "vm1"]).expect("the instance goes");
        s.start(&[Pod::new("other").on(&nodes[1].name)]);
        assert_ne!(s.ip("other"), first, "nobody else gets it");
        assert_eq!(text(&record(s).expect("the record")["spec"]["ipAddress"]), first);
        s.step("stopped: the address stays the machine's");
        let second = run(s, "virt-launcher-vm1-fghij", &nodes[2].name);
        assert_eq!(second, first, "the same address on another node");
        s.pings("other", &first);
        s.delete_pods(&["virt-launcher-vm1-fghij"]);
        for kind in [INSTANCE, MACHINE] {
            let resource = format!("{}s.kubevirt.io", kind.to_lowercase());
            s.kubectl(&["delete", &resource, "vm1"]).expect("the machine goes");
        }
        retry(90, || match record(s)? {
            Value::Null => Ok(()),
            left => Err(left.to_string()),
        });
        s.step("without the machine its address is free");
    });
}
