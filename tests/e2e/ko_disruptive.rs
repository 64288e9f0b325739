//! Commands that restart what they are about: a backup that is put back, all components anew.

use std::fs;

use crate::{
    audit::agreement,
    cluster::{retry, text},
    echoes::Echoes,
    ko::{at_last, good},
    pods::Pod,
    story::story,
};

#[test]
fn a_backup_is_put_back_and_all_components_start_anew_while_pods_talk() {
    story("ko-reload", |s| {
        let (cluster, nodes) = (s.cluster, s.cluster.nodes());
        s.start(&[Pod::new("a").on(&nodes[0].name), Pod::new("b").on(&nodes[1].name)]);
        let b = s.ip("b");
        s.pings("a", &b);
        retry(90, || agreement(cluster));

        let nbctl = |args: &[&str]| cluster.nbctl(args).expect("nbctl");
        nbctl(&["--may-exist", "ls-add", "e2e-kept"]);
        let said = good(cluster, &["nb", "backup"]);
        let file = said.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        nbctl(&["--if-exists", "ls-del", "e2e-kept"]);
        let restored = good(cluster, &["nb", "restore", &file]);
        let _ = fs::remove_file(&file);
        let kept = nbctl(&["ls-list"]);
        nbctl(&["--if-exists", "ls-del", "e2e-kept"]);
        assert!(kept.contains("e2e-kept"), "{restored}: {kept}");
        retry(90, || agreement(cluster));
        s.step("a backup put back into the running database");

        let system = || {
            let pods = cluster.objects(&["-n", "kube-system", "pods", "-l", "component=network"]);
            let uid = |pod: &serde_json::Value| text(&pod["metadata"]["uid"]);
            pods.iter().map(uid).collect::<Vec<_>>()
        };
        let before = system();
        let echoes = Echoes::start(s, "a", &b, 50);
        let said = good(cluster, &["reload"]);
        for workload in [
            "deployments/ovn-central",
            "daemonsets/ovs-ovn",
            "deployments/kube-ovn-controller",
            "daemonsets/kube-ovn-cni",
            "daemonsets/kube-ovn-pinger",
            "deployments/kube-ovn-monitor",
        ] {
            let done = format!("{workload} successfully rolled out");
            assert!(said.contains(&done), "{done}: {said}");
        }
        let old: Vec<String> = system().into_iter().filter(|uid| before.contains(uid)).collect();
        assert!(old.is_empty(), "not started anew: {old:?}");
        s.step("reload");
        let report = echoes.end();
        s.step(&report.told());
        // Seconds of each node without a datapath in user space, see the story of the upgrade.
        assert!(report.permille() <= 300, "{report:?}");
        at_last(cluster, &["status", "--wait=90"]);
        retry(90, || agreement(cluster));
        s.start(&[Pod::new("c").on(&nodes[0].name)]);
        s.pings("c", &b);
    });
}
