//! Kinds whose CRD is there for tools and take-over, and that this version does not act on.

use serde_json::json;

use crate::{
    cluster::{retry, text},
    story::story,
};

#[test]
fn an_object_of_a_kind_without_effect_says_so() {
    story("unsupported", |s| {
        s.goes_with("switch-lb-rule", "e2e-unsupported");
        s.cluster.apply(&[json!({"apiVersion": "kubeovn.io/v1", "kind": "SwitchLBRule",
            "metadata": {"name": "e2e-unsupported"},
            "spec": {"vip": "1.1.1.1", "namespace": s.ns, "selector": ["app:none"],
                "ports": [{"name": "http", "port": 80, "targetPort": 80, "protocol": "TCP"}]}})]);
        let selector = "involvedObject.name=e2e-unsupported,reason=NotSupported";
        let message = retry(60, || {
            let events = s.cluster.objects(&["events", "-A", "--field-selector", selector]);
            events.first().map(|e| text(&e["message"])).ok_or("no event NotSupported".to_owned())
        });
        assert!(message.contains("does not act on SwitchLBRule"), "{message}");
        s.step("the Event names the kind and what to do");
    });
}
