//! Chapters 3.4 to 3.6 of the manual, as printed, but for the image and the namespaces.

use serde_json::{Value, json};

use crate::{
    cluster::{is_ready, retry, text},
    story::{Story, story},
};

fn workload(s: &Story, kind: &str, name: &str, annotations: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "namespace": s.ns, "labels": {"app": name}},
        "spec": {"replicas": 2, "serviceName": "nginx",
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                    "name": "nginx", "image": "kube-ovn-sandbox/test:1",
                    "imagePullPolicy": "Never",
                    "command": ["/bin/sh", "-c", "exec httpd -f -p 80 -h /www"]}]}}}})
}

/// Addresses of the ready pods of a workload, by pod.
fn addresses(s: &Story, app: &str, replicas: usize) -> Vec<(String, String)> {
    retry(90, || {
        let label = format!("app={app}");
        let pods = s.cluster.objects(&["-n", &s.ns, "pods", "-l", &label]);
        let ready = pods.iter().filter(|p| is_ready(p));
        let mut all: Vec<(String, String)> =
            ready.map(|p| (text(&p["metadata"]["name"]), text(&p["status"]["podIP"]))).collect();
        all.sort();
        if all.len() == replicas { Ok(all) } else { Err(format!("{replicas} wanted: {all:?}")) }
    })
}

#[test]
fn workloads_with_fixed_addresses() {
    story("manual-3-4", |s| {
        let pool = json!({"ovn.kubernetes.io/ip_pool": "10.16.0.215,10.16.0.216,10.16.0.217"});
        let mut deployment = workload(s, "Deployment", "starter-backend", pool.clone());
        deployment["spec"].as_object_mut().unwrap().remove("serviceName");
        s.cluster.apply(&[deployment]);
        let given: Vec<String> =
            addresses(s, "starter-backend", 2).into_iter().map(|(_, ip)| ip).collect();
        assert!(given.iter().all(|ip| ip.starts_with("10.16.0.21")), "{given:?}");
        s.step("3.4.2: the Deployment uses the pool");
        s.kubectl(&["delete", "deployment", "starter-backend"]).unwrap();
        // In order, whatever pod came first.
        let list = json!({"ovn.kubernetes.io/ip_pool": "10.16.0.226,10.16.0.225"});
        s.cluster.apply(&[workload(s, "StatefulSet", "web", list)]);
        let expected = |ips: [&str; 2]| {
            [("web-0".to_owned(), ips[0].to_owned()), ("web-1".to_owned(), ips[1].to_owned())]
        };
        assert_eq!(addresses(s, "web", 2), expected(["10.16.0.226", "10.16.0.225"]));
        s.step("3.4.3: web-0 has the first entry");
        s.cluster.apply(&[workload(s, "StatefulSet", "sticky", json!({}))]);
        let before = addresses(s, "sticky", 2);
        s.delete_pods(&["sticky-0"]);
        // The port stays meanwhile, the address is nobody else's.
        assert_eq!(addresses(s, "sticky", 2), before);
        s.step("3.4.3: a pod of a StatefulSet keeps its address");
        s.kubectl(&["scale", "statefulset/sticky", "--replicas=1"]).unwrap();
        retry(60, || {
            let ips = s.cluster.kubectl(&["get", "ips.kubeovn.io"])?;
            let name = format!("sticky-1.{}", s.ns);
            if ips.contains(&name) { Err(format!("{name} is still there")) } else { Ok(()) }
        });
        s.step("scaled down: its address is free");
        s.kubectl(&["delete", "statefulset", "--all"]).unwrap();
        retry(60, || {
            let ips = s.cluster.kubectl(&["get", "ips.kubeovn.io"])?;
            if ips.contains(&s.ns) { Err(ips) } else { Ok(()) }
        });
        s.step("without its set no address stays");
    });
}

#[test]
fn reserved_addresses() {
    story("manual-3-5", |s| {
        let ip = |name: &str, spec: Value| {
            s.extra("ips.kubeovn.io", &format!("{name}.{}", s.ns));
            json!({"apiVersion": "kubeovn.io/v1", "kind": "IP",
                "metadata": {"name": format!("{name}.{}", s.ns)}, "spec": spec})
        };
        s.cluster.apply(&[
            ip(
                "vm-dynamic-01",
                json!({"subnet": "ovn-default", "podType": "VirtualMachine", "namespace": s.ns,
                    "podName": "vm-dynamic-01"}),
            ),
            ip(
                "pod-static-01",
                json!({"subnet": "ovn-default", "podType": "", "namespace": s.ns,
                    "podName": "pod-static-01", "v4IpAddress": "10.16.0.203"}),
            ),
        ]);
        let filled = |name: &str| {
            retry(20, || {
                let name = format!("{name}.{}", s.ns);
                let ip = s.cluster.objects(&["ips.kubeovn.io", &name]).remove(0);
                let reserved = &ip["metadata"]["labels"]["ovn.kubernetes.io/ip_reserved"];
                if reserved == "true" { Ok(ip) } else { Err(ip.to_string()) }
            })
        };
        let dynamic = filled("vm-dynamic-01");
        assert!(text(&dynamic["spec"]["ipAddress"]).starts_with("10.16."), "{dynamic}");
        assert!(!text(&dynamic["spec"]["macAddress"]).is_empty());
        assert_eq!(filled("pod-static-01")["spec"]["ipAddress"], "10.16.0.203");
        let ports = s.cluster.nbctl(&["show", "ovn-default"]).unwrap();
        assert!(!ports.contains(&format!("vm-dynamic-01.{}", s.ns)), "no port before its pod");
        s.step("both are filled in, neither has a port");
        s.start(&[crate::pods::Pod::new("pod-static-01")]);
        assert_eq!(s.ip("pod-static-01"), "10.16.0.203");
        s.delete_pods(&["pod-static-01"]);
        assert_eq!(filled("pod-static-01")["spec"]["ipAddress"], "10.16.0.203");
        s.step("the pod uses it and leaves it");
    });
}

#[test]
fn address_pools() {
    story("manual-3-6", |s| {
        s.extra("ippool", "pool-1");
        s.cluster.apply(&[json!({"apiVersion": "kubeovn.io/v1", "kind": "IPPool",
            "metadata": {"name": "pool-1"}, "spec": {"subnet": "ovn-default",
                "ips": ["10.16.0.201", "10.16.0.210/30", "10.16.0.220..10.16.0.230"],
                "namespaces": [s.ns]}})]);
        let status = || s.cluster.objects(&["ippool", "pool-1"]).remove(0)["status"].clone();
        retry(20, || {
            let seen = status();
            // .201, .208 to .211, .220 to .230.
            if seen["v4AvailableIPs"] == 16 { Ok(()) } else { Err(seen.to_string()) }
        });
        s.start(&[crate::pods::Pod::new("pooled")]);
        assert_eq!(s.ip("pooled"), "10.16.0.201");
        retry(20, || {
            let seen = status();
            if seen["v4UsingIPs"] == 1 { Ok(()) } else { Err(seen.to_string()) }
        });
        s.step("the pod's address is one of the pool, and counted");
    });
}
