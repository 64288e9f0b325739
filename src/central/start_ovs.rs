//! The ovs container: ovsdb-server, ovs-vswitchd and ovn-controller of one node.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    arguments::create,
    files::{self, FileError},
    logs, other_datapath, ovs_arguments as arguments,
    ovs_config::{self, Datapath, DatapathChoice, OvsConfig},
    ovs_paths::OvsPaths,
    rpc::RpcError,
    supervise::{Program, StopSignal, pause, stopped, supervise},
    takeover::{self, Leave, Owner},
    upkeep,
    uplink::BRIDGE,
    uplink_apply,
    vswitch::{BridgeRow, Entries, Switch},
    vswitchd::Vswitchd,
};
use crate::{
    kernel::{
        self, generic, process,
        process::{Invocation, Launcher, ProcessError},
    },
    net::Place,
};

const READY_LIMIT: Duration = Duration::from_secs(60);
const MODPROBE_LIMIT: Duration = Duration::from_secs(20);
#[derive(Debug, thiserror::Error)]
pub enum OvsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: {source}")]
    Path { path: std::path::PathBuf, source: std::io::Error },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error("leaving the former datapath: {0}")]
    OtherDatapath(#[from] uplink_apply::UplinkError),
    #[error(
        "OVS_DATAPATH=system, but the kernel has no openvswitch module; install it or use auto"
    )]
    NoModule,
    #[error("{0} was not ready within 60 s")]
    NotReady(&'static str),
}

/// What the tasks of the container share.
#[derive(Debug, Clone)]
pub struct Ovs {
    pub config: OvsConfig,
    pub paths: OvsPaths,
    pub launcher: Launcher,
    /// The network namespace of the node; the launcher starts daemons in the same one.
    pub place: Place,
    pub cpus: usize,
}

/// Runs the daemons until the stop signal. Ends early only if the node cannot run them at all.
pub async fn run(ovs: Arc<Ovs>, mut stop: StopSignal) -> Result<(), OvsError> {
    make_folders(&ovs.paths)?;
    let owner = Owner::claim(&ovs.paths)?;
    end_all(&ovs.paths, Leave::Restart).await;
    prepare_database(&ovs).await?;
    let datapath = choose_datapath(&ovs).await?;

    let (stop_server, server_stop) = watch::channel(false);
    let server = tokio::spawn(supervise(
        ovs.launcher.clone(),
        Program {
            name: "ovsdb-server",
            invocation: arguments::ovsdb_server(&ovs.paths),
            pidfile: arguments::server_pidfile(&ovs.paths),
            exit: &["exit"],
            owner: Some(owner.clone()),
        },
        server_stop,
    ));
    let result = match configure(&ovs, datapath, &mut stop).await {
        Ok(()) => run_switch(&ovs, &owner, datapath, stop).await,
        Err(error) => Err(error),
    };
    let _ = stop_server.send(true);
    report_end("ovsdb-server", server.await);
    result
}

fn report_end(task: &str, end: Result<(), tokio::task::JoinError>) {
    if let Err(error) = end {
        tracing::error!(task, %error, "task failed");
    }
}

/// Ends the daemons of a former container, ovn-controller first.
pub async fn end_all(paths: &OvsPaths, leave: Leave) {
    let controller = arguments::controller_pidfile(paths);
    takeover::end_daemon(&controller, "ovn-controller", leave.controller()).await;
    let vswitchd = arguments::vswitchd_pidfile(paths);
    takeover::end_daemon(&vswitchd, "ovs-vswitchd", leave.vswitchd()).await;
    takeover::end_daemon(&arguments::server_pidfile(paths), "ovsdb-server", &["exit"]).await;
}

/// Folders that the manifests mount, for installations without them.
fn make_folders(paths: &OvsPaths) -> Result<(), OvsError> {
    for folder in paths.folders() {
        let failed = |source| OvsError::Path { path: folder.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    Ok(())
}

/// Makes the database if there is none. A damaged one is kept aside: everything in it is made
/// again by ovn-controller, the node agent and this program.
async fn prepare_database(ovs: &Ovs) -> Result<(), OvsError> {
    let file = ovs.paths.database();
    let found = super::dbfile::observe_file(&file, "Open_vSwitch")
        .map_err(|source| OvsError::Path { path: file.clone(), source })?;
    if found == super::dbfile::Local::Standalone {
        return Ok(());
    }
    if let Some(backup) = files::move_aside(&file)? {
        tracing::error!(?found, backup = %backup.display(), "the database is made anew");
    }
    ovs.launcher.run(&create(&file, &ovs.paths.schema()), READY_LIMIT).await?;
    Ok(())
}

/// Decides between kernel and userspace.
async fn choose_datapath(ovs: &Ovs) -> Result<Datapath, OvsError> {
    if ovs.config.datapath == DatapathChoice::Netdev {
        return Ok(Datapath::Netdev);
    }
    let mut works = has_module(ovs).await?;
    if !works {
        // The kernel itself loads only what the host's modprobe knows; a container brings its own.
        for module in ["openvswitch", "geneve", "vxlan"] {
            let modprobe = Invocation::new("modprobe", [module]);
            if let Err(error) = ovs.launcher.run(&modprobe, MODPROBE_LIMIT).await {
                tracing::debug!(module, %error, "modprobe");
            }
        }
        works = has_module(ovs).await?;
    }
    match (works, ovs.config.datapath) {
        (true, _) => Ok(Datapath::System),
        (false, DatapathChoice::System) => Err(OvsError::NoModule),
        (false, _) => Ok(Datapath::Netdev),
    }
}

async fn has_module(ovs: &Ovs) -> Result<bool, OvsError> {
    let place = ovs.place.clone();
    let asked =
        tokio::task::spawn_blocking(move || generic::has_family(&place, generic::OVS_DATAPATH));
    Ok(asked.await.unwrap_or(Ok(false))?)
}

/// Fills the Open_vSwitch row before the other daemons look at it.
async fn configure(ovs: &Ovs, datapath: Datapath, stop: &mut StopSignal) -> Result<(), OvsError> {
    let mut switch = tokio::select! {
        switch = wait_for_server(ovs) => switch?,
        () = stopped(stop) => return Ok(()),
    };
    switch.initialize().await?;
    let path = ovs.paths.schema();
    let schema = upkeep::read_schema(&path).map_err(|source| OvsError::Path { path, source })?;
    switch.convert(&schema).await?;
    let mut ids: Entries = ovs.config.external_ids(datapath);
    ids.insert("system-id", Some(system_id(&ovs.paths)?));
    ids.insert("rundir", Some(ovs.paths.run.display().to_string()));
    switch.set_root("external_ids", &ids).await?;
    let mut other = ovs_config::other_config(ovs.config.offload, ovs.cpus);
    // A former start that was killed may have left it.
    other.insert("flow-restore-wait", None);
    switch.set_root("other_config", &other).await?;
    if let Some(version) = schema["version"].as_str() {
        switch.update_root(json!({ "db_version": version })).await?;
    }
    other_datapath::leave(&ovs.place, &mut switch, datapath).await?;
    if datapath == Datapath::System {
        remove_orphan_bridges(ovs, &mut switch).await?;
    }
    Ok(())
}

async fn wait_for_server(ovs: &Ovs) -> Result<Switch, OvsError> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        match Switch::open(&ovs.paths).await {
            Ok(switch) => return Ok(switch),
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(_) => return Err(OvsError::NotReady("ovsdb-server")),
        }
    }
}

/// The identity of the chassis; made once, kept on the host.
fn system_id(paths: &OvsPaths) -> Result<String, OvsError> {
    let file = paths.system_id();
    let failed = |path: &std::path::Path| {
        let path = path.to_owned();
        |source| OvsError::Path { path, source }
    };
    match std::fs::read_to_string(&file) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(&file)(e)),
    }
    let source = std::path::Path::new("/proc/sys/kernel/random/uuid");
    let id = std::fs::read_to_string(source).map_err(failed(source))?.trim().to_owned();
    files::write_private(&file, format!("{id}\n").as_bytes())?;
    Ok(id)
}

/// Provider bridges whose kernel link is gone (reboot), and exchanged ones whose name belongs to
/// the NIC again: the node agent makes them anew. A userspace bridge never outlives vswitchd, so
/// there this says nothing.
async fn remove_orphan_bridges(ovs: &Ovs, switch: &mut Switch) -> Result<(), OvsError> {
    let facts = uplink_apply::observe(&ovs.place).await?;
    let kind = |name: &str| facts.links.iter().find(|l| *l.name == *name).map(|l| l.kind.clone());
    let is_orphan = |row: &BridgeRow| {
        let exchanged = row.external_ids.get("exchange-link-name").is_some_and(|v| v == "true");
        match kind(&row.name) {
            None => true,
            Some(kind) => exchanged && &*kind != "openvswitch",
        }
    };
    let mut orphans = switch.bridges().await?;
    orphans.retain(|row| row.is_ours() && is_orphan(row));
    for row in &orphans {
        tracing::warn!(bridge = row.name, "its link is gone; left to kube-ovn-cni");
    }
    switch.remove_bridges(&orphans).await?;
    Ok(())
}

/// ovs-vswitchd and ovn-controller, side by side until the stop signal.
async fn run_switch(
    ovs: &Arc<Ovs>,
    owner: &Owner,
    datapath: Datapath,
    mut stop: StopSignal,
) -> Result<(), OvsError> {
    let (ready, mut vswitchd_ready) = watch::channel(false);
    let (stop_vswitchd, vswitchd_stop) = watch::channel(false);
    let vswitchd = Vswitchd { ovs: ovs.clone(), owner: owner.clone(), datapath };
    let vswitchd = tokio::spawn(vswitchd.run(ready, vswitchd_stop));
    let mut controller: Option<JoinHandle<()>> = None;
    tokio::select! {
        // An error means that vswitchd's task ended, which it does only when asked or taken over.
        _ = vswitchd_ready.wait_for(|ready| *ready) => {
            let program = controller_program(ovs, owner);
            let task = supervise(ovs.launcher.clone(), program, stop.clone());
            controller = Some(tokio::spawn(task));
        }
        () = stopped(&mut stop) => {}
    }
    let chores = tokio::spawn(chores(ovs.clone(), datapath, stop.clone()));
    stopped(&mut stop).await;
    if let Some(controller) = controller {
        report_end("ovn-controller", controller.await);
    }
    if owner.holds() && datapath == Datapath::Netdev {
        give_back(ovs).await;
    }
    let _ = stop_vswitchd.send(true);
    report_end("ovs-vswitchd", vswitchd.await);
    report_end("chores", chores.await);
    Ok(())
}

fn controller_program(ovs: &Ovs, owner: &Owner) -> Program {
    Program {
        name: "ovn-controller",
        invocation: arguments::controller(&ovs.paths, ovs.config.transport),
        pidfile: arguments::controller_pidfile(&ovs.paths),
        exit: Leave::Restart.controller(),
        owner: Some(owner.clone()),
    }
}

/// The node keeps its address on the NIC while no vswitchd runs.
async fn give_back(ovs: &Ovs) {
    let work = async {
        let mut switch = Switch::open(&ovs.paths).await?;
        let Some(bridge) = switch.bridge(BRIDGE).await? else { return Ok(()) };
        match bridge.carried() {
            Some(carried) => {
                uplink_apply::give_back(&ovs.place, &mut switch, &bridge, &carried).await
            }
            None => Ok(()),
        }
    };
    if let Err(error) = work.await {
        tracing::error!(%error, "the NIC did not get its addresses back");
    }
}

async fn chores(ovs: Arc<Ovs>, datapath: Datapath, mut stop: StopSignal) {
    while pause(Duration::from_secs(30), &mut stop).await {
        process::reap_orphans();
        logs::rotate(&ovs.paths.logs);
        logs::rotate(&ovs.paths.ovn_logs);
        if datapath == Datapath::Netdev {
            let refreshed = async {
                let mut switch = Switch::open(&ovs.paths).await?;
                uplink_apply::refresh_record(&ovs.place, &mut switch).await
            };
            if let Err(error) = refreshed.await {
                tracing::warn!(%error, "addresses of {BRIDGE} are not recorded");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_id_is_made_once() {
        let root = std::env::temp_dir().join(format!("kube-ovn-id-{}", std::process::id()));
        let paths = OvsPaths::rooted(root.to_str().unwrap());
        std::fs::create_dir_all(&paths.config).unwrap();
        let first = system_id(&paths).unwrap();
        assert_eq!(first.len(), 36);
        assert_eq!(system_id(&paths).unwrap(), first);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
