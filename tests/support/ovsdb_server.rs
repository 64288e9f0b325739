//! Starts the ovsdb-server of OVN 25.03 in a temporary folder and ends it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use kube_ovn::ovsdb::{endpoint::Endpoint, schema::Database};

/// A folder that goes with its owner.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kot-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A command that runs a program of OVS or OVN.
pub fn ovn_run(program: &str) -> Command {
    let script = std::env::var_os("OVN_RUN")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/sandbox/ovn-run"));
    let mut command = Command::new(script);
    command.arg(program).stdin(Stdio::null());
    command
}

pub fn run(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

fn schema_file(database: &Database) -> PathBuf {
    let file = match database.name {
        "OVN_Northbound" => "ovn-nb.ovsschema",
        "OVN_Southbound" => "ovn-sb.ovsschema",
        _ => "vswitch.ovsschema",
    };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ovsdb/schema").join(file)
}

/// One server process. Dropping it kills it (SIGKILL).
pub struct OvsdbServer {
    folder: PathBuf,
    name: String,
    arguments: Vec<String>,
    child: Option<Child>,
    _owned: Option<Folder>,
}

impl OvsdbServer {
    /// A server with an empty standalone database.
    pub fn standalone(database: &Database) -> Self {
        Self::standalone_with(database, &[])
    }

    pub fn standalone_with(database: &Database, arguments: &[String]) -> Self {
        let folder = Folder::new();
        let mut tool = ovn_run("ovsdb-tool");
        tool.arg("create").arg(folder.0.join("1.db")).arg(schema_file(database));
        run(tool);
        let path = folder.0.clone();
        Self::start(path, "1", arguments, Some(folder))
    }

    fn start(folder: PathBuf, name: &str, arguments: &[String], owned: Option<Folder>) -> Self {
        let arguments = arguments.to_vec();
        let mut server =
            OvsdbServer { folder, name: name.to_owned(), arguments, child: None, _owned: owned };
        server.restart();
        server
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.name))
    }

    /// Starts the process (again) and waits until it listens.
    pub fn restart(&mut self) {
        self.kill();
        for ending in ["sock", "ctl"] {
            let _ = fs::remove_file(self.file(ending));
        }
        let log = fs::File::create(self.file("log")).unwrap();
        let mut command = ovn_run("ovsdb-server");
        command
            .arg(format!("--remote=punix:{}", self.file("sock").display()))
            .arg(format!("--unixctl={}", self.file("ctl").display()))
            .arg("--no-chdir")
            .args(&self.arguments)
            .arg(self.file("db"))
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
        wait_until("ovsdb-server listens", || {
            self.file("sock").exists() && self.file("ctl").exists()
        });
    }

    /// kill -9
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.file("sock"))
    }

    pub fn control(&self) -> PathBuf {
        self.file("ctl")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }
}

impl Drop for OvsdbServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A raft cluster; members listen at `<folder>/<n>.sock`, n from 1.
pub struct Cluster {
    pub members: Vec<OvsdbServer>,
    _folder: Folder,
}

impl Cluster {
    pub fn start(database: &Database, count: usize) -> Self {
        let folder = Folder::new();
        let raft = |n: usize| format!("unix:{}", folder.0.join(format!("{n}.raft")).display());
        let file = |n: usize| folder.0.join(format!("{n}.db"));
        let mut members = Vec::new();
        for n in 1..=count {
            let mut tool = ovn_run("ovsdb-tool");
            if n == 1 {
                tool.arg("create-cluster").arg(file(1)).arg(schema_file(database)).arg(raft(1));
            } else {
                tool.arg("join-cluster").arg(file(n)).arg(database.name).arg(raft(n)).arg(raft(1));
            }
            run(tool);
            let member = OvsdbServer::start(folder.0.clone(), &n.to_string(), &[], None);
            wait_until("the member has joined", || {
                let mut client = ovn_run("ovsdb-client");
                client.arg("--timeout=5").arg("wait").arg(member.endpoint().to_string());
                client.arg(database.name).arg("connected");
                client.output().unwrap().status.success()
            });
            members.push(member);
        }
        Cluster { members, _folder: folder }
    }

    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.members.iter().map(OvsdbServer::endpoint).collect()
    }
}

/// Polls for up to 30 s.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}
