//! Dispatch by name and argument, spelling of flags, refusals.

use std::{collections::BTreeSet, ffi::OsString};

use kube_ovn::cmd::{self, APPLETS, Call, flags};

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn applet(name: &str) -> usize {
    APPLETS.iter().position(|a| a.name == name).unwrap()
}

#[test]
fn dispatch_by_link_name_and_by_first_argument() {
    let controller = applet("kube-ovn-controller");
    for (line, expected) in [
        ("/kube-ovn/kube-ovn-controller --v=3", Call::Applet(controller, words("--v=3"))),
        ("./kube-ovn kube-ovn-controller -v5", Call::Applet(controller, words("-v5"))),
        ("/kube-ovn/start-db.sh", Call::Applet(applet("start-db"), vec![])),
        ("kube-ovn-cni", Call::Applet(applet("kube-ovn-daemon"), vec![])),
        ("renamed start-ovs.sh x", Call::Applet(applet("start-ovs"), words("x"))),
        ("kube-ovn", Call::Help),
        ("kube-ovn --list", Call::List),
        ("kube-ovn --version", Call::Version),
        ("kube-ovn -h", Call::Help),
        ("kube-ovn nonsense", Call::Unknown("nonsense".into())),
        ("kube-ovn --nonsense", Call::Unknown("--nonsense".into())),
    ] {
        assert_eq!(cmd::resolve(&words(line), false), expected, "{line}");
    }
}

#[test]
fn plugin_only_under_its_own_name_and_with_cni_command() {
    assert_eq!(cmd::resolve(&words("/opt/cni/bin/kube-ovn"), true), Call::Plugin);
    assert_eq!(cmd::resolve(&words("/opt/cni/bin/kube-ovn"), false), Call::Help);
    let daemon = Call::Applet(applet("kube-ovn-daemon"), vec![]);
    assert_eq!(cmd::resolve(&words("kube-ovn-daemon"), true), daemon);
}

#[test]
fn applet_names_are_unique_and_examples_name_their_applet() {
    let mut seen = BTreeSet::new();
    for applet in APPLETS {
        for name in std::iter::once(&applet.name).chain(applet.aliases) {
            assert!(seen.insert(*name), "{name} twice");
        }
        assert!(applet.example.contains(applet.name), "{}", applet.name);
        cmd::command(applet).debug_assert();
    }
}

#[test]
fn spellings_of_go_flags() {
    let command = flags::build(&[]);
    for (given, expected) in [
        ("-logtostderr=false", "--logtostderr=false"),
        ("--log-file=x", "--log_file=x"),
        ("-log_file_max_size 200", "--log_file_max_size 200"),
        ("--log_format json", "--log-format json"),
        ("-v5", "-v5"),
        ("-v=5", "--v=5"),
        ("--unknown_flag", "--unknown_flag"),
        ("-- -logtostderr", "-- -logtostderr"),
    ] {
        assert_eq!(flags::normalize(&command, words(given)), words(expected), "{given}");
    }
}

#[test]
fn klog_flags_as_charts_pass_them() {
    let line = "x --v=3 -v5 --logtostderr=false --alsologtostderr \
                --log_file=/var/log/kube-ovn/kube-ovn-cni.log --log_file_max_size=200";
    let matches = flags::build(&[]).args_override_self(true).try_get_matches_from(words(line));
    let matches = matches.unwrap();
    let given = flags::Given(&matches);
    assert_eq!(given.number("v"), 5, "the last one wins");
    assert!(!given.is_on("logtostderr") && given.is_on("alsologtostderr"));
    assert_eq!(given.number("log_file_max_size"), 200);
    assert_eq!(given.text("log_file"), "/var/log/kube-ovn/kube-ovn-cni.log");
    assert_eq!(flags::check(&[], &matches), Ok(vec![]));
}
