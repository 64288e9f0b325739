//! ovs-vswitchd with what has to happen around each of its starts: flows kept over it, the NIC of
//! the tunnels put back.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{
    other_datapath, ovs_arguments as arguments,
    ovs_config::{Datapath, DatapathChoice},
    rpc::{self, RpcError},
    rules::{self, Restore, Steady},
    start_ovs::Ovs,
    supervise::{Backoff, Control, StopSignal, is_stopping, pause, stop_daemon, stopped},
    takeover::{Leave, Owner},
    uplink::{self, BRIDGE},
    uplink_apply,
    vswitch::{Entries, Switch},
};

const CONTROL_LIMIT: Duration = Duration::from_secs(2);
/// Packets of new connections wait while flows are restored.
const RESTORE_LIMIT: Duration = Duration::from_secs(60);
/// Between two readings of the number of rules.
const READING: Duration = Duration::from_secs(10);
/// OVN's integration bridge.
const INTEGRATION_BRIDGE: &str = "br-int";
/// Where the state of the datapath is told to others (`ovs-vsctl get open . external_ids`).
const DATAPATH_KEY: &str = "ovs-datapath";

pub struct Vswitchd {
    pub ovs: Arc<Ovs>,
    pub owner: Owner,
    pub datapath: Datapath,
}

impl Vswitchd {
    /// Runs it until the stop signal; `ready` turns true when it has answered once.
    pub async fn run(self, ready: watch::Sender<bool>, mut stop: StopSignal) {
        let invocation = arguments::vswitchd(&self.ovs.paths, self.datapath);
        let pidfile = arguments::vswitchd_pidfile(&self.ovs.paths);
        let mut backoff = Backoff::default();
        while !is_stopping(&stop) && self.owner.holds() {
            let started = Instant::now();
            let restoring = self.before_start().await;
            match self.ovs.launcher.spawn(&invocation) {
                Err(error) => tracing::error!(%error, "ovs-vswitchd is not started"),
                Ok(mut daemon) => {
                    tracing::info!(pid = daemon.pid, "ovs-vswitchd started");
                    let after = async {
                        self.after_start(&ready, restoring).await;
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        status = daemon.wait() => {
                            let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                            tracing::warn!(status, "ovs-vswitchd ended");
                        }
                        () = after => {}
                        () = stopped(&mut stop) => {
                            if !self.owner.holds() {
                                return;
                            }
                            let exit = Leave::Restart.vswitchd();
                            stop_daemon(&mut daemon, &Control::Pidfile(pidfile.clone()), exit).await;
                        }
                    }
                }
            }
            if !pause(backoff.after(started.elapsed()), &mut stop).await {
                return;
            }
        }
    }

    /// With the kernel datapath the flows of the former vswitchd go on forwarding; the new one must
    /// not remove them before ovn-controller has given it the rules again, which it does at once:
    /// what it would wait for is lost, see [`rules`].
    async fn before_start(&self) -> Restoring {
        let mark = async {
            let mut switch = Switch::open(&self.ovs.paths).await?;
            switch.set_root("external_ids", &Entries::from([(rules::WAIT_KEY, None)])).await?;
            let kept = self.datapath == Datapath::System
                && other_datapath::has_kernel_datapath(&self.ovs.place).await
                && switch.bridge(INTEGRATION_BRIDGE).await?.is_some();
            if !kept {
                return Ok(Restoring::No);
            }
            switch.set_root("other_config", &restore_wait(Restoring::Yes)).await?;
            Ok(Restoring::Yes)
        };
        mark.await.unwrap_or_else(|error: RpcError| {
            tracing::warn!(%error, "flows are not kept over this start");
            Restoring::No
        })
    }

    async fn after_start(&self, ready: &watch::Sender<bool>, restoring: Restoring) {
        let pidfile = arguments::vswitchd_pidfile(&self.ovs.paths);
        while rpc::control_daemon(&pidfile, "version", &[], CONTROL_LIMIT).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.settle_datapath(ready).await;
        if restoring == Restoring::Yes {
            self.wait_for_rules(&pidfile).await;
            self.end_restoring().await;
        }
        self.record_rules(&pidfile).await;
    }

    /// Establishes the uplink of a userspace datapath, and tells how it went. ovn-controller need
    /// not wait for a NIC that cannot be had: pods of the node reach each other without.
    async fn settle_datapath(&self, ready: &watch::Sender<bool>) {
        let mut attempt = Backoff::default();
        loop {
            let outcome = self.try_datapath().await;
            let (text, again) = match &outcome {
                Ok(text) => (text.clone(), false),
                Err(uplink_apply::UplinkError::Refused(refusal)) => {
                    (format!("netdev, tunnels do not work: {refusal}"), false)
                }
                Err(error) => (format!("netdev, tunnels do not work: {error}"), true),
            };
            match outcome {
                Ok(_) => tracing::info!(datapath = text, "datapath"),
                Err(_) => tracing::error!(datapath = text, "datapath"),
            }
            if let Err(error) = self.tell(text).await {
                tracing::warn!(%error, "{DATAPATH_KEY} is not written");
            }
            let _ = ready.send(true);
            if !again {
                return;
            }
            tokio::time::sleep(attempt.after(Duration::ZERO)).await;
        }
    }

    async fn try_datapath(&self) -> Result<String, uplink_apply::UplinkError> {
        if self.datapath == Datapath::System {
            return Ok("system".to_owned());
        }
        let config = &self.ovs.config;
        let mut switch = Switch::open(&self.ovs.paths).await?;
        let carried = uplink_apply::establish(&self.ovs.place, &mut switch, |facts, recorded| {
            uplink::choose_uplink(&config.iface, &config.pod_ips, config.datapath, facts, recorded)
        })
        .await?;
        let why = match config.datapath {
            DatapathChoice::Netdev => "by OVS_DATAPATH",
            _ => "the kernel has no openvswitch module",
        };
        Ok(format!("netdev ({why}): {} is in {BRIDGE}", carried.uplink))
    }

    async fn tell(&self, text: String) -> Result<(), RpcError> {
        let entries = Entries::from([(DATAPATH_KEY, Some(text))]);
        Switch::open(&self.ovs.paths).await?.set_root("external_ids", &entries).await
    }

    /// Until nearly as many rules as before are there.
    async fn wait_for_rules(&self, pidfile: &Path) {
        let before = async { Switch::open(&self.ovs.paths).await?.root_ids().await };
        let before = before.await.unwrap_or_else(|error: RpcError| {
            tracing::warn!(%error, "the number of rules is not known");
            Default::default()
        });
        let recorded = rules::recorded(&before);
        let mut restore = Restore::new(recorded);
        let deadline = Instant::now() + RESTORE_LIMIT;
        while Instant::now() < deadline {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let rules = count_rules(pidfile).await;
            if restore.is_over(rules) {
                return tracing::info!(rules, recorded, "the rules are back");
            }
        }
        tracing::warn!(recorded, "flow restore ends before ovn-controller has written its rules");
    }

    /// For ever: keeps the record of the rules, and the wish that they outlive ovn-controller.
    async fn record_rules(&self, pidfile: &Path) {
        let mut steady = Steady::default();
        let wait = self.ovs.config.wait_before_clear;
        loop {
            tokio::time::sleep(READING).await;
            let Some(rules) = steady.take(count_rules(pidfile).await) else { continue };
            let entries = Entries::from([
                (rules::RULES_KEY, Some(rules.to_string())),
                (rules::WAIT_KEY, (wait > 0).then(|| wait.to_string())),
            ]);
            let write = async {
                Switch::open(&self.ovs.paths).await?.set_root("external_ids", &entries).await
            };
            match write.await {
                Ok(()) => tracing::debug!(rules, "rules recorded"),
                Err(error) => {
                    tracing::warn!(%error, "the number of rules is not recorded");
                    steady = Steady::default();
                }
            }
        }
    }

    /// Must not be given up: vswitchd answers no packet while it waits.
    async fn end_restoring(&self) {
        loop {
            let ended = async {
                let mut switch = Switch::open(&self.ovs.paths).await?;
                switch.set_root("other_config", &restore_wait(Restoring::No)).await
            };
            match ended.await {
                Ok(()) => return tracing::info!("flows are restored"),
                Err(error) => tracing::error!(%error, "flow-restore-wait stays set"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restoring {
    Yes,
    No,
}

fn restore_wait(restoring: Restoring) -> Entries {
    let value = (restoring == Restoring::Yes).then(|| "true".to_owned());
    Entries::from([("flow-restore-wait", value)])
}

async fn count_rules(pidfile: &Path) -> Option<u64> {
    let memory = rpc::control_daemon(pidfile, "memory/show", &[], CONTROL_LIMIT).await;
    rules::rule_count(&memory.ok()?)
}
