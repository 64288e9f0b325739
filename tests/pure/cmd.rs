//! Dispatch by name and argument, spelling of flags, refusals.

use std::{collections::BTreeSet, ffi::OsString};

use kube_ovn::cmd::{
    self, APPLETS, Call, Caller,
    controller_options::{self, ControllerOptions},
    daemon_options::{self, DaemonOptions, Task},
    flags::{self, Flag, Support, Value},
    options::Environment,
};

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
        assert_eq!(cmd::resolve(&words(line), Caller::Other), expected, "{line}");
    }
}

#[test]
fn plugin_only_under_its_own_name_and_with_cni_command() {
    assert_eq!(
        cmd::resolve(&words("/opt/cni/bin/kube-ovn"), Caller::ContainerRuntime),
        Call::Plugin
    );
    assert_eq!(cmd::resolve(&words("/opt/cni/bin/kube-ovn"), Caller::Other), Call::Help);
    let daemon = Call::Applet(applet("kube-ovn-daemon"), vec![]);
    assert_eq!(cmd::resolve(&words("kube-ovn-daemon"), Caller::ContainerRuntime), daemon);
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

fn controller(line: &str, env: Environment) -> Result<ControllerOptions, String> {
    let applet = &APPLETS[applet("kube-ovn-controller")];
    let command = cmd::command(applet);
    let mut args = vec![OsString::from("x")];
    args.extend(flags::normalize(&command, words(line)));
    let matches = command.try_get_matches_from(args).map_err(|e| e.to_string())?;
    ControllerOptions::parse(&matches, &env).map_err(|e| e.to_string())
}

fn daemon(line: &str, env: Environment) -> Result<DaemonOptions, String> {
    let command = cmd::command(&APPLETS[applet("kube-ovn-daemon")]);
    let mut args = vec![OsString::from("x")];
    args.extend(flags::normalize(&command, words(line)));
    let matches = command.try_get_matches_from(args).map_err(|e| e.to_string())?;
    DaemonOptions::parse(&matches, &env, "Host").map_err(|e| e.to_string())
}

fn central() -> Environment {
    Environment::from([("OVN_DB_IPS", "10.0.0.1,fd00::2"), ("POD_NAME", "c-1")])
}

/// What upstream's installer passes on a dual-stack cluster, every variable at its default.
#[test]
fn installer_command_line_of_the_controller() {
    let options = controller(
        "--default-cidr=10.16.0.0/16,fd00:10:16::/112 --default-gateway=10.16.0.1,fd00:10:16::1 \
         --default-gateway-check=true --default-logical-gateway=false \
         --default-u2o-interconnection=false --default-exclude-ips= --cluster-router=ovn-cluster \
         --node-switch-cidr=100.64.0.0/16,fd00:100:64::/112 \
         --service-cluster-ip-range=10.96.0.0/12,fd00:10:96::/108 --network-type=geneve \
         --default-interface-name= --default-exchange-link-name=false --default-vlan-id=100 \
         --ls-dnat-mod-dl-dst=true --ls-ct-skip-dst-lport-ips=true --pod-nic-type=veth-pair \
         --enable-lb=true --enable-np=true --enable-eip-snat=true --enable-external-vpc=false \
         --logtostderr=false --alsologtostderr=true --gc-interval=360 --inspect-interval=20 \
         --log_file=/var/log/kube-ovn/kube-ovn-controller.log --log_file_max_size=200 \
         --enable-lb-svc=false --keep-vm-ip=true --enable-metrics=true --node-local-dns-ip= \
         --secure-serving=false --enable-ovn-ipsec=false --enable-anp=false \
         --ovsdb-con-timeout=3 --ovsdb-inactivity-timeout=10 --image=kube-ovn:v1.14.0 \
         --enable-live-migration-optimize=true --enable-ovn-lb-prefer-local=false",
        central(),
    )
    .unwrap();
    assert_eq!(options.databases.northbound, ["tcp:[10.0.0.1]:6641", "tcp:[fd00::2]:6641"]);
    assert_eq!(options.databases.southbound, ["tcp:[10.0.0.1]:6642", "tcp:[fd00::2]:6642"]);
    assert_eq!(options.identity, "c-1");
    assert!(options.default_subnet.excludes.is_empty() && options.join_subnet.cidrs.is_dual());
    assert_eq!(options.join_subnet.gateways.to_string(), "100.64.0.1,fd00:100:64::1");
    let file = options.log.file.unwrap();
    assert_eq!((file.mode, file.max_size), (0o640, 200 << 20));
    let noted = |flag: &str| options.notes.iter().filter(|n| n.starts_with(flag)).count();
    assert_eq!((noted("--ls-dnat-mod-dl-dst"), noted("--ls-ct-skip-dst-lport-ips")), (1, 1));
}

#[test]
fn endpoints_from_services_and_ssl() {
    let env = Environment::from([
        ("OVN_NB_SERVICE_HOST", "10.96.0.7"),
        ("OVN_NB_SERVICE_PORT", "16641"),
        ("OVN_SB_SERVICE_HOST", "fd00::7"),
        ("ENABLE_SSL", "true"),
    ]);
    let databases = controller("", env).unwrap().databases;
    assert_eq!(databases.northbound, ["ssl:[10.96.0.7]:16641"]);
    assert_eq!(databases.southbound, ["ssl:[fd00::7]:6642"]);
    let error = controller("", Environment::default()).unwrap_err();
    assert!(error.starts_with("--ovn-nb-addr=:") && error.contains("OVN_DB_IPS"), "{error}");
}

/// Errors name flag, value and remedy.
#[test]
fn refused_controller_flags() {
    for (line, parts) in [
        ("--network-type=vlan", ["--network-type=vlan", "underlay", "use geneve"]),
        ("--network-type=stt", ["--network-type=stt", "STT", "use geneve"]),
        ("--pod-nic-type=internal-port", ["--pod-nic-type=internal-port", "NIC", "veth-pair"]),
        (
            "--default-cidr=169.254.8.0/24",
            ["--default-cidr=169.254.8.0/24", "link-local", "choose"],
        ),
        ("--node-switch-cidr=fe80::/64", ["--node-switch-cidr=fe80::/64", "link-local", "choose"]),
        ("--default-cidr=10.100.0.0/16", ["--service-cluster-ip-range", "overlaps", "choose"]),
        ("--default-cidr=100.64.3.0/24", ["--default-cidr=100.64.3.0/24", "overlaps", "choose"]),
        ("--default-cidr=10.16.0.0", ["--default-cidr=10.16.0.0", "not a CIDR", "10.16.0.0/16"]),
        ("--default-cidr=10.1.0.0/16,10.2.0.0/16", ["--default-cidr", "two addresses", "family"]),
        ("--default-cidr=10.16.0.0/16,fd00::/64", ["--node-switch-cidr", "lacks", "IPv6"]),
        ("--default-cidr=10.16.0.1/31", ["--default-cidr", "too small", "two addresses"]),
        ("--default-gateway=10.17.0.1", ["--default-gateway=10.17.0.1", "no host", "10.16.0.0/16"]),
        ("--default-gateway=10.16.255.255", ["--default-gateway", "no host", "10.16.0.0/16"]),
        ("--default-exclude-ips=10.16.0.9..10.16.0.2", ["--default-exclude-ips", "..", "write"]),
        ("--default-exclude-ips=10.16.1.0/24", ["--default-exclude-ips", "first..last", "write"]),
        ("--ovsdb-inactivity-timeout=3", ["--ovsdb-inactivity-timeout=3", "exceed", "=3"]),
        ("--node-local-dns-ip=x", ["--node-local-dns-ip=x", "not an IP", "x"]),
        ("--ovn-nb-addr=http:x", ["--ovn-nb-addr=http:x", "tcp:[ip]:port", "write"]),
        ("--ovn-nb-addr=tcp:fd00::1:6641", ["--ovn-nb-addr", "tcp:[ip]:port", "write"]),
        ("--log-perm=999", ["--log-perm=999", "octal", "write"]),
        ("--vmodule=ipam", ["--vmodule=ipam", "module=number", "write"]),
        ("--tls-min-version=SSL3", ["--tls-min-version=SSL3", "TLS12", "write"]),
        ("--enable-lb=maybe", ["--enable-lb", "maybe", "true or false"]),
        ("--worker-num=many", ["--worker-num", "many", "invalid"]),
        ("--no-such-flag", ["--no-such-flag", "unexpected", "found"]),
    ] {
        let error = controller(line, central()).expect_err(line);
        assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
    }
}

#[test]
fn metrics_addresses() {
    let any = controller("", central()).unwrap().serving;
    assert_eq!((any.addresses.len(), any.port), (0, 10660));
    let local = Environment::from([
        ("OVN_DB_IPS", "10.0.0.1"),
        ("ENABLE_BIND_LOCAL_IP", "true"),
        ("POD_IPS", "10.0.0.9,fd00::9"),
    ]);
    assert_eq!(controller("", local).unwrap().serving.addresses.len(), 2);
    let without = Environment::from([("OVN_DB_IPS", "10.0.0.1"), ("ENABLE_BIND_LOCAL_IP", "true")]);
    assert!(controller("", without).unwrap_err().contains("POD_IPS"));
}

#[test]
fn installer_command_line_of_the_daemon() {
    let env = Environment::from([("KUBE_NODE_NAME", "Node-1"), ("POD_IP", "10.0.0.7")]);
    let options = daemon(
        "--enable-mirror=false --mirror-iface=mirror0 --node-switch=join --encap-checksum=true \
         --service-cluster-ip-range=10.96.0.0/12 --iface=eth1,ens.* --dpdk-tunnel-iface=br-phy \
         --network-type=geneve --default-interface-name= --logtostderr=false \
         --alsologtostderr=true --log_file=/var/log/kube-ovn/kube-ovn-cni.log \
         --log_file_max_size=200 --enable-metrics=true --kubelet-dir=/var/lib/kubelet \
         --enable-tproxy=false --ovs-vsctl-concurrency=100 --secure-serving=false \
         --enable-ovn-ipsec=false --set-vxlan-tx-off=false --enable-arp-detect-ip-conflict=true",
        env.clone(),
    )
    .unwrap();
    assert_eq!(options.node_name, "node-1");
    assert_eq!(options.tunnel.interfaces, ["eth1", "ens.*"]);
    assert_eq!(options.tunnel.address, Some("10.0.0.7".parse().unwrap()));
    assert_eq!((options.task, options.tunnel.mtu), (Task::Serve, None));
    assert_eq!(daemon("--node-name=A", env).unwrap().node_name, "a");
    assert_eq!(daemon("", Environment::default()).unwrap().node_name, "host");
    let conflist = daemon("--install-cni-config --cni-conf-name=10-x.conflist", central()).unwrap();
    assert_eq!(
        (conflist.task, conflist.conflist.name.as_str()),
        (Task::InstallConflist, "10-x.conflist")
    );
}

#[test]
fn refused_daemon_flags() {
    for (line, parts) in [
        ("--enable-tproxy", ["--enable-tproxy=true", "TProxy", "leave the flag out"]),
        ("--mac-learning-fallback", ["--mac-learning-fallback=true", "patched", "\"false\""]),
        ("--mtu=576", ["--mtu=576", "1280", "0 derives"]),
        ("--network-type=vlan", ["--network-type=vlan", "geneve", "write"]),
        ("--bind-socket=x.sock", ["--bind-socket=x.sock", "whole path", "write"]),
        ("--cni-conf-name=../x", ["--cni-conf-name=../x", "folder", "write"]),
        ("--service-cluster-ip-range=fe80::/64", ["--service-cluster", "link-local", "choose"]),
    ] {
        let error = daemon(line, central()).expect_err(line);
        assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
    }
}

/// The flags of upstream's programs, as the sheets list them.
const CONTROLLER_FLAGS: &str = "\
    bfd-min-rx bfd-min-tx cluster-router cluster-sctp-loadbalancer \
    cluster-sctp-session-loadbalancer cluster-tcp-loadbalancer \
    cluster-tcp-session-loadbalancer cluster-udp-loadbalancer \
    cluster-udp-session-loadbalancer cust-crd-retry-max-delay cust-crd-retry-min-delay \
    default-cidr default-exchange-link-name default-exclude-ips default-gateway \
    default-gateway-check default-interface-name default-logical-gateway default-ls \
    default-provider-name default-u2o-interconnection default-vlan-id default-vlan-name \
    detect-mult enable-anp enable-ecmp enable-eip-snat enable-external-vpc enable-lb \
    enable-lb-svc enable-live-migration-optimize enable-metrics enable-np enable-ovn-ipsec \
    enable-ovn-lb-prefer-local enable-pprof external-gateway-config-ns external-gateway-net \
    external-gateway-switch external-gateway-vlanid gc-interval image inspect-interval \
    keep-vm-ip kubeconfig log-perm ls-ct-skip-dst-lport-ips ls-dnat-mod-dl-dst network-type \
    node-local-dns-ip node-switch node-switch-cidr node-switch-gateway nodepg-probe-time \
    ovn-nb-addr ovn-sb-addr ovn-timeout ovsdb-con-maxretry ovsdb-con-timeout \
    ovsdb-inactivity-timeout pod-nic-type pprof-port secure-serving \
    service-cluster-ip-range tls-cipher-suites tls-max-version tls-min-version worker-num";
const DAEMON_FLAGS: &str = "\
    bind-socket cluster-router cni-conf-dir cni-conf-file cni-conf-name \
    default-interface-name default-provider-name dpdk-tunnel-iface \
    enable-arp-detect-ip-conflict enable-metrics enable-mirror enable-ovn-ipsec \
    enable-pprof enable-tproxy enable-verbose-conn-check encap-checksum \
    external-gateway-config-ns external-gateway-switch host-tunnel-src iface \
    install-cni-config kubeconfig kubelet-dir log-perm mac-learning-fallback mirror-iface \
    mtu network-type node-name node-switch ovs-socket ovs-vsctl-concurrency pprof-port \
    secure-serving service-cluster-ip-range set-vxlan-tx-off tcp-conn-check-port \
    tls-cipher-suites tls-max-version tls-min-version udp-conn-check-port";
const KLOG_FLAGS: &str = "\
    add_dir_header alsologtostderr log_backtrace_at log_dir log_file log_file_max_size \
    logtostderr one_output skip_headers skip_log_headers stderrthreshold v vmodule";

/// Each is taken at its default, written out as charts do.
#[test]
fn every_flag_of_upstream_is_accepted() {
    let default = |program: &str, flag: &str| {
        let command = cmd::command(&APPLETS[applet(program)]);
        let arg = command.get_arguments().find(|arg| arg.get_id() == flag);
        let arg = arg.unwrap_or_else(|| panic!("{program} has no flag --{flag}"));
        arg.get_default_values().first().map(|v| v.to_string_lossy().into_owned())
    };
    for flag in [CONTROLLER_FLAGS, KLOG_FLAGS].iter().flat_map(|all| all.split_whitespace()) {
        let value = default("kube-ovn-controller", flag).unwrap_or_default();
        let parsed = controller(&format!("--{flag}={value}"), central());
        assert!(parsed.is_ok(), "--{flag}={value}: {:?}", parsed.err());
    }
    for flag in [DAEMON_FLAGS, KLOG_FLAGS].iter().flat_map(|all| all.split_whitespace()) {
        let value = default("kube-ovn-daemon", flag).unwrap_or_default();
        // One of them is asked for by being there.
        let parsed = daemon(&format!("--{flag}={value}"), central());
        assert!(parsed.is_ok(), "--{flag}={value}: {:?}", parsed.err());
    }
}

/// A flag whose feature does not exist is refused when it is set to anything else.
#[test]
fn flags_of_missing_features_are_refused_by_one_line() {
    let other = |flag: &Flag| match flag.value {
        Value::Switch => (flag.default != "true").to_string(),
        Value::Text => "x".to_owned(),
        Value::Integer(..) => "7".to_owned(),
    };
    let later = |flags: &'static [Flag]| {
        flags.iter().filter(|flag| matches!(flag.support, Support::Later(_)))
    };
    let mut refused = 0;
    for flag in later(controller_options::FLAGS) {
        let given = format!("--{}={}", flag.name, other(flag));
        let error = controller(&given, central()).map(|_| ()).expect_err(&given);
        assert!(error.contains(flag.name) && error.lines().count() == 1, "{error}");
        refused += 1;
    }
    for flag in later(daemon_options::FLAGS) {
        let given = format!("--{}={}", flag.name, other(flag));
        let error = daemon(&given, central()).map(|_| ()).expect_err(&given);
        assert!(error.contains(flag.name) && error.lines().count() == 1, "{error}");
        refused += 1;
    }
    assert!(refused > 0);
}

#[test]
fn help_of_every_applet_shows_an_example() {
    for applet in APPLETS {
        let help = cmd::command(applet).render_long_help().to_string();
        let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let example = format!("Example: {}", flat(applet.example));
        assert!(flat(&help).contains(&example), "{}: {help}", applet.name);
    }
}
