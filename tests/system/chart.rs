//! The chart under a real Helm: it lints, and it renders what install.sh applies. Helm is built from
//! its Go module when it is not in the cache (about 2 minutes, once).

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Output},
    sync::OnceLock,
};

use serde_json::Value;

/// A Helm from the module alone takes any cluster for one of 1.20.
const KUBERNETES: [&str; 2] = ["--kube-version", "1.33.13"];

fn tree() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Path of the program.
fn helm() -> &'static PathBuf {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    HELM.get_or_init(|| {
        let built = Command::new(tree().join("packaging/sandbox/binaries")).arg("helm").status();
        assert!(built.unwrap().success(), "Helm cannot be built");
        let cache = std::env::var_os("SANDBOX_CACHE").map(PathBuf::from);
        cache.unwrap_or_else(|| "/var/cache/kube-ovn-sandbox".into()).join("helm/bin/helm")
    })
}

fn run(arguments: &[&str]) -> Output {
    Command::new(helm()).args(arguments).current_dir(tree()).output().unwrap()
}

fn good(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Kind and name -> object.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let lines = |d: &&str| d.lines().any(|l| !l.starts_with('#') && !l.is_empty() && l != "---");
    let parse =
        |d: &str| -> Value { serde_saphyr::from_str(d).unwrap_or_else(|e| panic!("{e}: {d}")) };
    let all = text.split("\n---\n").filter(lines).map(parse);
    all.map(|object| (format!("{} {}", object["kind"], object["metadata"]["name"]), object))
        .collect()
}

fn chart(values: &[&str]) -> BTreeMap<String, Value> {
    let mut arguments = vec!["template", "kube-ovn", "packaging/chart", "-n", "kube-system"];
    arguments.extend(KUBERNETES);
    for value in values {
        arguments.extend(["--set", value]);
    }
    let mut all = objects(&good(&run(&arguments)));
    for object in all.values_mut().filter(|o| o["kind"] == "CustomResourceDefinition") {
        let kept = object["metadata"]["annotations"].take();
        assert_eq!(kept["helm.sh/resource-policy"], "keep");
        object["metadata"].as_object_mut().unwrap().remove("annotations");
    }
    all
}

fn install(settings: &[(&str, &str)]) -> BTreeMap<String, Value> {
    let mut command = Command::new("bash");
    command.arg(tree().join("install.sh")).arg("--dry-run").env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    objects(&good(&command.envs(settings.iter().copied()).output().unwrap()))
}

#[track_caller]
fn same(chart: &BTreeMap<String, Value>, install: &BTreeMap<String, Value>) {
    let names = |all: &BTreeMap<String, Value>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(chart), names(install));
    for (name, object) in chart {
        let (ours, theirs) = (object.to_string(), install[name].to_string());
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn the_chart_lints() {
    let text =
        good(&run(&["lint", "packaging/chart", "--strict", "--set", "MASTER_NODES=192.0.2.1"]));
    assert!(text.contains("0 chart(s) failed"), "{text}");
}

#[test]
fn the_chart_renders_what_install_applies() {
    same(
        &chart(&["MASTER_NODES=192.0.2.1"]),
        &install(&[("NODE_IPS", "192.0.2.1"), ("POD_GATEWAY", "10.16.0.1")]),
    );
    // Numbers given on the command line, three masters, Talos' folders (manual, chapter 2.4).
    let values = [
        "MASTER_NODES=192.0.2.1\\,192.0.2.2\\,192.0.2.3",
        "networking.NET_STACK=dual_stack",
        "networking.PROBE_INTERVAL=1800000",
        "networking.EXCLUDE_IPS=10.16.0.2..10.16.0.9",
        "networking.IFACE=eth1",
        "func.SECURE_SERVING=true",
        "func.ENABLE_WEBHOOK=true",
        "OVN_DIR=/var/lib/ovn",
        "OPENVSWITCH_DIR=/var/lib/openvswitch",
        "DISABLE_MODULES_MANAGEMENT=true",
        "cni_conf.MOUNT_LOCAL_BIN_DIR=false",
    ];
    let settings = [
        ("NODE_IPS", "192.0.2.1,192.0.2.2,192.0.2.3"),
        ("DUAL_STACK", "true"),
        ("PROBE_INTERVAL", "1800000"),
        ("EXCLUDE_IPS", "10.16.0.2..10.16.0.9"),
        ("IFACE", "eth1"),
        ("SECURE_SERVING", "true"),
        ("ENABLE_WEBHOOK", "true"),
        ("OVN_DIR", "/var/lib/ovn"),
        ("OPENVSWITCH_DIR", "/var/lib/openvswitch"),
        ("POD_GATEWAY", "10.16.0.1,fd00:10:16::1"),
        ("SVC_CIDR", "10.96.0.0/12,fd00:10:96::/112"),
    ];
    same(&chart(&values), &install(&settings));
    let settings = [
        ("NODE_IPS", "fd00::1"),
        ("IPV6", "true"),
        ("POD_GATEWAY", "fd00:10:16::1"),
        ("SVC_CIDR", "fd00:10:96::/112"),
    ];
    same(&chart(&["MASTER_NODES=fd00::1", "networking.NET_STACK=ipv6"]), &install(&settings));
}

#[test]
fn without_masters_or_with_a_wrong_stack_the_reason_is_told() {
    let render = ["template", "kube-ovn", "packaging/chart", KUBERNETES[0], KUBERNETES[1]];
    let error = String::from_utf8(run(&render).stderr).unwrap();
    assert!(
        error.contains("MASTER_NODES is empty") && error.contains("label the masters"),
        "{error}"
    );
    let values = ["--set", "MASTER_NODES=192.0.2.1,networking.NET_STACK=v4"];
    let error = String::from_utf8(run(&[&render[..], &values].concat()).stderr).unwrap();
    assert!(error.contains("NET_STACK=v4"), "{error}");
}
