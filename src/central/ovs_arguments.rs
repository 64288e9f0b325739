//! Argument vectors of the daemons of the ovs container. Pure.

use super::{
    arguments::{logging, tls_files},
    config::Transport,
    ovs_config::Datapath,
    ovs_paths::OvsPaths,
};
use crate::kernel::process::Invocation;

fn daemon(program: &'static str, paths: &OvsPaths, arguments: Vec<String>) -> Invocation {
    Invocation::new(program, arguments)
        .with("OVS_RUNDIR", paths.run.display().to_string())
        .with("OVN_RUNDIR", paths.ovn_run.display().to_string())
}

fn pidfile(path: &std::path::Path) -> [String; 2] {
    [format!("--pidfile={}", path.display()), "--overwrite-pidfile".to_owned()]
}

pub fn server_pidfile(paths: &OvsPaths) -> std::path::PathBuf {
    paths.run.join("ovsdb-server.pid")
}

pub fn vswitchd_pidfile(paths: &OvsPaths) -> std::path::PathBuf {
    paths.run.join("ovs-vswitchd.pid")
}

pub fn controller_pidfile(paths: &OvsPaths) -> std::path::PathBuf {
    paths.ovn_run.join("ovn-controller.pid")
}

/// Control sockets are at their default names (`DIR/NAME.PID.ctl`): ovs-appctl finds them.
pub fn ovsdb_server(paths: &OvsPaths) -> Invocation {
    let mut arguments = logging("ovsdb-server", &paths.logs);
    arguments.extend([
        "-vjsonrpc:file:err".to_owned(),
        "-vreconnect:file:err".to_owned(),
        paths.database().display().to_string(),
        format!("--remote=punix:{}", paths.socket().display()),
        "--remote=db:Open_vSwitch,Open_vSwitch,manager_options".to_owned(),
    ]);
    arguments.extend(pidfile(&server_pidfile(paths)));
    daemon("ovsdb-server", paths, arguments)
}

/// Memory is not locked: containers have a memory limit and no right to lock.
pub fn vswitchd(paths: &OvsPaths, datapath: Datapath) -> Invocation {
    let mut arguments = vec![format!("unix:{}", paths.socket().display())];
    arguments.extend(logging("ovs-vswitchd", &paths.logs));
    if datapath == Datapath::Netdev {
        arguments.push("--disable-system".to_owned());
    }
    arguments.extend(pidfile(&vswitchd_pidfile(paths)));
    daemon("ovs-vswitchd", paths, arguments)
}

pub fn controller(paths: &OvsPaths, transport: Transport) -> Invocation {
    let mut arguments = vec![format!("unix:{}", paths.socket().display())];
    arguments.extend(logging("ovn-controller", &paths.ovn_logs));
    arguments.extend(tls_files(transport, &paths.tls));
    arguments.extend(pidfile(&controller_pidfile(paths)));
    daemon("ovn-controller", paths, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons() {
        let paths = OvsPaths::system();
        let vswitchd = vswitchd(&paths, Datapath::Netdev);
        assert_eq!(vswitchd.arguments[0], "unix:/var/run/openvswitch/db.sock");
        assert!(vswitchd.arguments.contains(&"--disable-system".to_owned()));
        assert!(!vswitchd.arguments.iter().any(|a| a.contains("mlockall")));
        let controller = controller(&paths, Transport::Tls).arguments.join(" ");
        assert!(controller.contains("--certificate=/var/run/tls/cert"));
        assert!(controller.contains("--pidfile=/var/run/ovn/ovn-controller.pid"));
        let server = ovsdb_server(&paths).arguments.join(" ");
        assert!(
            server.contains("/etc/openvswitch/conf.db --remote=punix:/var/run/openvswitch/db.sock")
        );
    }
}
