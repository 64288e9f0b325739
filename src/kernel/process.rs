//! Child processes: the only place where programs of OVN and Open vSwitch are started.
//!
//! No shell is involved and nothing is decided here. A daemon keeps our standard output and error,
//! so its log lines reach the container log even when this process is gone.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::{sys::signal, sys::wait, unistd::Pid};
use tokio::process::{Child, Command};

/// Where programs are looked for when PATH of the container lacks their directory.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Children that somebody waits for; [`reap_orphans`] leaves them alone.
static AWAITED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Keeps a process id in [`AWAITED`] while it lives.
#[derive(Debug)]
struct Awaited(i32);

impl Awaited {
    fn new(pid: i32) -> Self {
        AWAITED.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
        Awaited(pid)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        AWAITED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("program {0} is not installed (looked in PATH and the usual directories)")]
    Missing(String),
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("{program} did not end within {seconds} s")]
    TooLong { program: String, seconds: u64 },
    #[error("{program} failed ({status}): {message}")]
    Failed { program: String, status: String, message: String },
    #[error("cannot signal process {pid}: {source}")]
    Signal { pid: i32, source: nix::Error },
}

/// What is run: the program's name, its arguments and what is added to the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub program: &'static str,
    pub arguments: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
}

impl Invocation {
    pub fn new<A: Into<String>>(
        program: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Invocation { program, arguments, environment: Vec::new() }
    }

    #[must_use]
    pub fn with(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((variable, value.into()));
        self
    }
}

/// How programs are started: directly, or through a wrapper (`ovn-run PROGRAM ARGS`) that must
/// `exec` the program so that the process id stays the same.
#[derive(Debug, Clone, Default)]
pub struct Launcher {
    wrapper: Option<PathBuf>,
    log: Option<PathBuf>,
}

impl Launcher {
    pub fn direct() -> Self {
        Launcher::default()
    }

    pub fn through(wrapper: impl Into<PathBuf>) -> Self {
        Launcher { wrapper: Some(wrapper.into()), log: None }
    }

    /// Output of daemons is appended to this file instead of our own output.
    #[must_use]
    pub fn logging_to(mut self, file: impl Into<PathBuf>) -> Self {
        self.log = Some(file.into());
        self
    }

    fn command(&self, what: &Invocation) -> Result<Command, ProcessError> {
        let mut command = match &self.wrapper {
            Some(wrapper) => {
                let mut command = Command::new(wrapper);
                command.arg(what.program);
                command
            }
            None => Command::new(find_program(what.program)?),
        };
        command.args(&what.arguments).stdin(Stdio::null());
        for (variable, value) in &what.environment {
            command.env(variable, value);
        }
        Ok(command)
    }

    /// Runs a program to its end and returns its standard output. Killed after `limit`.
    pub async fn run(&self, what: &Invocation, limit: Duration) -> Result<String, ProcessError> {
        let program = || what.program.to_owned();
        let mut command = self.command(what)?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child =
            command.spawn().map_err(|source| ProcessError::Start { program: program(), source })?;
        let _awaited = child.id().and_then(|id| i32::try_from(id).ok()).map(Awaited::new);
        let output = tokio::time::timeout(limit, child.wait_with_output())
            .await
            .map_err(|_| ProcessError::TooLong { program: program(), seconds: limit.as_secs() })?
            .map_err(|source| ProcessError::Start { program: program(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let mut message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if message.is_empty() {
            message = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        }
        Err(ProcessError::Failed { program: program(), status: output.status.to_string(), message })
    }

    /// Starts a daemon in the foreground, in a process group of its own: a signal that a terminal
    /// sends to us must not stop it behind our back.
    pub fn spawn(&self, what: &Invocation) -> Result<Daemon, ProcessError> {
        let failed = |source| ProcessError::Start { program: what.program.to_owned(), source };
        let mut command = self.command(what)?;
        if let Some(path) = &self.log {
            let file = File::options().create(true).append(true).open(path).map_err(failed)?;
            command.stdout(file.try_clone().map_err(failed)?).stderr(file);
        }
        let child = command.process_group(0).spawn().map_err(failed)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.ok_or_else(|| failed(io::Error::other("ended at once")))?;
        Ok(Daemon { pid, child, _awaited: Awaited::new(pid) })
    }
}

/// A running child. Dropping it does not end the process.
#[derive(Debug)]
pub struct Daemon {
    pub pid: i32,
    child: Child,
    _awaited: Awaited,
}

impl Daemon {
    /// Waits for the end of the process and reaps it. May be cancelled and called again.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    pub fn terminate(&self) -> Result<(), ProcessError> {
        send_signal(self.pid, signal::Signal::SIGTERM)
    }

    pub fn kill(&self) -> Result<(), ProcessError> {
        send_signal(self.pid, signal::Signal::SIGKILL)
    }
}

/// Sends a signal to one process; a process that is already gone is no error.
pub fn send_signal(pid: i32, which: signal::Signal) -> Result<(), ProcessError> {
    match signal::kill(Pid::from_raw(pid), which) {
        Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
        Err(source) => Err(ProcessError::Signal { pid, source }),
    }
}

/// `true` while a process with this id exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    let state = process_state(pid);
    state.is_some_and(|(state, _)| state != "Z" && state != "X")
}

/// State letter and parent of a process, from `/proc/PID/stat`.
fn process_state(pid: i32) -> Option<(String, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may itself hold blanks and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
}

/// The command name of a process (`/proc/PID/comm`, at most 15 bytes).
pub fn command_name(pid: i32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// Reaps orphans that were handed to us as process 1 of a container; our own children are left to
/// whoever waits for them. Returns how many were reaped.
pub fn reap_orphans() -> usize {
    if std::process::id() != 1 {
        return 0;
    }
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let zombies = pids.filter(|pid| !awaited.contains(pid) && is_zombie_of_init(*pid));
    let reaped = zombies
        .filter(|pid| wait::waitpid(Pid::from_raw(*pid), Some(wait::WaitPidFlag::WNOHANG)).is_ok());
    reaped.count()
}

fn is_zombie_of_init(pid: i32) -> bool {
    process_state(pid).is_some_and(|(state, parent)| state == "Z" && parent == "1")
}

fn find_program(name: &str) -> Result<PathBuf, ProcessError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = DIRECTORIES.iter().map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(extra)
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| ProcessError::Missing(name.to_owned()))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
