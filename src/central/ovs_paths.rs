//! Files of the ovs container.

use std::path::PathBuf;

/// Directories; all of them are below [`OvsPaths::rooted`]'s root in tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OvsPaths {
    /// `conf.db`, `system-id.conf`.
    pub config: PathBuf,
    pub run: PathBuf,
    pub logs: PathBuf,
    pub ovn_run: PathBuf,
    pub ovn_logs: PathBuf,
    pub tls: PathBuf,
    /// Holds `vswitch.ovsschema`.
    pub schemas: PathBuf,
}

impl OvsPaths {
    /// The paths of the image.
    pub fn system() -> Self {
        Self::rooted("")
    }

    /// The paths of the image below a directory of its own; schemas stay those of the image.
    pub fn rooted(root: &str) -> Self {
        let path = |p: &str| PathBuf::from(format!("{root}{p}"));
        OvsPaths {
            config: path("/etc/openvswitch"),
            run: path("/var/run/openvswitch"),
            logs: path("/var/log/openvswitch"),
            ovn_run: path("/var/run/ovn"),
            ovn_logs: path("/var/log/ovn"),
            tls: path("/var/run/tls"),
            schemas: PathBuf::from("/usr/share/openvswitch"),
        }
    }

    pub fn database(&self) -> PathBuf {
        self.config.join("conf.db")
    }

    pub fn system_id(&self) -> PathBuf {
        self.config.join("system-id.conf")
    }

    pub fn socket(&self) -> PathBuf {
        self.run.join("db.sock")
    }

    pub fn schema(&self) -> PathBuf {
        self.schemas.join("vswitch.ovsschema")
    }

    /// Says whose daemons run on this node; see [`super::takeover`].
    pub fn owner(&self) -> PathBuf {
        self.run.join("kube-ovn-owner")
    }

    pub fn folders(&self) -> [&PathBuf; 5] {
        [&self.config, &self.run, &self.logs, &self.ovn_run, &self.ovn_logs]
    }
}
