//! The ovn-central container over TLS, and on a full disk.

use std::{fs, path::Path, sync::Arc, time::Duration};

use kube_ovn::central::{config::Role, database::Central, files, members};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::central::{
    Container, block_on, cluster_with, eventually, free_ports, is_whole, standalone,
};

/// One authority and one certificate for all, as Secret `kube-ovn-tls` holds them.
fn write_tls(all: &[Container]) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["ovn".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "ovn");
    let leaf = params.signed_by(&key, &issuer).unwrap();
    for container in all {
        let folder = &container.central.paths.tls;
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("cacert"), authority.pem()).unwrap();
        fs::write(folder.join("cert"), leaf.pem()).unwrap();
        fs::write(folder.join("key"), key.serialize_pem()).unwrap();
    }
}

/// Upstream BUG: a bootstrap over TLS skipped the options.
#[test]
fn raft_over_tls_bootstraps_with_its_options() {
    let mut all = cluster_with("tls", &[("ENABLE_SSL", "true")]);
    write_tls(&all);
    all.iter_mut().for_each(Container::start);
    eventually("three members in one cluster", || is_whole(&all));
    eventually("all ready", || all.iter().all(Container::is_ready));
    let address = all[1].central.config.raft_address(Role::Northbound);
    assert!(address.starts_with("ssl:["), "{address}");
    let ip = all[1].central.config.local;
    let seen = block_on(members::observe_member(&all[0].central, Role::Northbound, ip)).unwrap();
    assert!(seen.is_some_and(|s| s.connected));
    eventually("options are written", || {
        let options = all[0].select(Role::Northbound, "NB_Global", "options");
        options.len() == 1 && options[0].contains("northd_probe_interval")
    });
    all[0].kill();
    eventually("the others go on", || all[1].add_switch("s1"));
    all[0].start();
    eventually("whole again", || is_whole(&all));
    all.iter_mut().for_each(Container::stop);
}

/// A single master becomes one of three and is away meanwhile: the new ones, the first of NODE_IPS
/// among them, make no second cluster, and take part in the first when it is back.
#[test]
fn a_cluster_that_grows_while_its_only_member_is_away_stays_one() {
    let ports = free_ports();
    let member = |ip: &str, members: &str| {
        let mut variables: Vec<(&str, &str)> =
            ports.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let own = [("NODE_IPS", members), ("POD_IP", ip), ("ENABLE_BIND_LOCAL_IP", "true")];
        variables.extend(own);
        Container::new(&format!("grow-{ip}-{}", members.len()), &variables)
    };
    let three = "127.0.0.2,127.0.0.1,127.0.0.3";
    let mut old = member("127.0.0.1", "127.0.0.1");
    old.start();
    eventually("write", || old.add_switch("s1"));
    let cluster = old.serving(Role::Northbound).unwrap().cluster;
    old.kill();
    let mut all = vec![member("127.0.0.2", three), member("127.0.0.3", three)];
    all.iter_mut().for_each(Container::start);
    // Both run servers without a database, and see each other so.
    let blank = |at: &Container, of: &Container, role| {
        let ip = of.central.config.local;
        block_on(members::observe_member(&at.central, role, ip)).is_ok_and(|seen| seen.is_none())
    };
    eventually("the new ones wait", || {
        Role::BOTH
            .iter()
            .all(|role| blank(&all[0], &all[1], *role) && blank(&all[1], &all[0], *role))
    });
    std::thread::sleep(Duration::from_secs(6));
    let serves = |c: &Container| Role::BOTH.iter().any(|role| c.serving(*role).is_some());
    assert!(!all.iter().any(serves), "a second cluster");
    let grown = member("127.0.0.1", three);
    old.central =
        Arc::new(Central { config: grown.central.config.clone(), ..(*old.central).clone() });
    old.start();
    all.push(old);
    eventually("three members in one cluster", || is_whole(&all));
    assert_eq!(all[0].serving(Role::Northbound).unwrap().cluster, cluster);
    eventually("the data is there", || all[0].switches() == ["s1"]);
    all.iter_mut().for_each(Container::stop);
}

/// A small filesystem of its own for the databases.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path) -> Self {
        let none = None::<&str>;
        mount(none, path, Some("tmpfs"), MsFlags::empty(), Some("size=16m")).unwrap();
        SmallDisk(path)
    }

    fn fill(&self) {
        // Until nothing more fits.
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_waited_for_and_no_data_is_lost() {
    let mut container = standalone("full");
    let folder = container.central.paths.databases.clone();
    let disk = SmallDisk::mount(&folder);
    container.start();
    eventually("write", || container.add_switch("before"));
    eventually("ready", || container.is_ready());
    disk.fill();
    assert!(files::is_disk_full(&folder));
    // The last page of the file has room for a few more.
    eventually("writes fail", || !container.add_switch(&"x".repeat(1000)));
    std::thread::sleep(Duration::from_secs(6));
    // A restart in this state must not take the file for damaged.
    container.kill();
    container.start();
    std::thread::sleep(Duration::from_secs(3));
    assert!(!container.is_ready());
    disk.free();
    eventually("ready again", || container.is_ready());
    eventually("writes again", || container.add_switch("after"));
    let switches = container.switches();
    assert!(switches.contains(&"before".to_owned()), "{switches:?}");
    let backups = fs::read_dir(&folder).unwrap().flatten();
    let backups = backups.filter(|e| e.file_name().to_string_lossy().contains("backup"));
    assert_eq!(backups.count(), 0);
    // The same without a restart of the container.
    disk.fill();
    // The last page of the file has room for a few more.
    eventually("writes fail", || !container.add_switch(&"x".repeat(1000)));
    std::thread::sleep(Duration::from_secs(6));
    disk.free();
    eventually("writes without help", || container.add_switch("later"));
    container.stop();
}
