//! Commands in pods, over the Kubernetes API.
//!
//! No terminal is allocated: none of the tools needs one, and so output can be piped as it is.
//! A remote process must end with ours. The runtime does not see to that (it only closes the
//! streams), so a two-line shell watches standard input, which closes when we are gone, and then
//! ends the command.

use anyhow::{Context, bail};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess},
};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A container to run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    pub node: String,
}

/// How a command ended.
#[derive(Debug, Clone, Default)]
pub struct Ended {
    pub code: u8,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// What the command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    Nothing,
    /// Our own standard input, to its end.
    Ours,
}

/// `sh -c WATCHED sh COMMAND...`
const WATCHED: &str = r#"exec 3<&0 </dev/null
"$@" 3<&- & p=$!
{ while read -r _; do :; done <&3; kill "$p"; } >/dev/null 2>&1 & w=$!
exec 3<&-
wait "$p"; rc=$?
kill "$w" 2>/dev/null
exit "$rc""#;

const BUFFER: usize = 1 << 20;
/// How long a command may take to end after we asked for it.
const GRACE: Duration = Duration::from_secs(5);
/// Exit code of a program that ended by SIGINT, as shells report it.
pub const INTERRUPTED: u8 = 130;

fn watched(command: &[String]) -> Vec<String> {
    let mut all: Vec<String> = ["sh", "-c", WATCHED, "sh"].map(str::to_owned).into();
    all.extend_from_slice(command);
    all
}

async fn start(client: &Client, at: &Place, command: &[String]) -> anyhow::Result<AttachedProcess> {
    let params = AttachParams {
        container: Some(at.container.clone()),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
        max_stdin_buf_size: Some(BUFFER),
        max_stdout_buf_size: Some(BUFFER),
        max_stderr_buf_size: Some(BUFFER),
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &at.namespace);
    pods.exec(&at.pod, command, &params)
        .await
        .with_context(|| format!("exec in {}/{}, container {}", at.namespace, at.pod, at.container))
}

/// Runs a command and returns all that it said.
pub async fn capture(client: &Client, at: &Place, command: &[String]) -> anyhow::Result<Ended> {
    let mut process = start(client, at, &watched(command)).await?;
    let _stdin = process.stdin();
    let status = process.take_status();
    let (stdout, stderr) = tokio::join!(read_all(process.stdout()), read_all(process.stderr()));
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let code = exit_code(status).with_context(|| format!("{} in {}", shown(command), at.pod))?;
    Ok(Ended { code, stdout: stdout?, stderr: String::from_utf8_lossy(&stderr?).into_owned() })
}

/// Runs a command with this input.
pub async fn feed(
    client: &Client,
    at: &Place,
    command: &[String],
    input: &[u8],
) -> anyhow::Result<Ended> {
    let mut process = start(client, at, command).await?;
    let (status, stdin) = (process.take_status(), process.stdin());
    let writing = async {
        if let Some(mut stdin) = stdin {
            stdin.write_all(input).await?;
            stdin.shutdown().await?;
        }
        std::io::Result::Ok(())
    };
    let (stdout, stderr) = (read_all(process.stdout()), read_all(process.stderr()));
    let (_, stdout, stderr) = tokio::join!(writing, stdout, stderr);
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let code = exit_code(status).with_context(|| format!("{} in {}", shown(command), at.pod))?;
    Ok(Ended { code, stdout: stdout?, stderr: String::from_utf8_lossy(&stderr?).into_owned() })
}

async fn read_all(from: Option<impl AsyncRead + Unpin>) -> anyhow::Result<Vec<u8>> {
    let mut all = Vec::new();
    if let Some(mut from) = from {
        from.read_to_end(&mut all).await.context("read what the command says")?;
    }
    Ok(all)
}

/// Runs a command on our own standard streams; its exit code. Ctrl-C ends it.
pub async fn stream(
    client: &Client,
    at: &Place,
    command: &[String],
    input: Input,
) -> anyhow::Result<u8> {
    let words = match input {
        Input::Nothing => watched(command),
        // Its end of input is what ends it.
        Input::Ours => command.to_vec(),
    };
    let mut process = start(client, at, &words).await?;
    let mut stdin = process.stdin();
    let status = process.take_status();
    let output = tokio::spawn(copy(process.stdout(), tokio::io::stdout()));
    let errors = tokio::spawn(copy(process.stderr(), tokio::io::stderr()));
    let feeding = match (input, stdin.take()) {
        (Input::Ours, Some(mut remote)) => tokio::spawn(async move {
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut remote).await;
            let _ = remote.shutdown().await;
        }),
        (_, kept) => {
            stdin = kept;
            tokio::spawn(async {})
        }
    };
    let finished = async {
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        let _ = output.await;
        let _ = errors.await;
        status
    };
    tokio::pin!(finished);
    let mut interrupted = false;
    let status = tokio::select! {
        status = &mut finished => status,
        _ = tokio::signal::ctrl_c() => {
            interrupted = true;
            feeding.abort();
            if let Some(mut stdin) = stdin.take() {
                let _ = stdin.shutdown().await;
            }
            tokio::time::timeout(GRACE, finished).await.unwrap_or_default()
        }
    };
    feeding.abort();
    if interrupted {
        return Ok(INTERRUPTED);
    }
    exit_code(status).with_context(|| format!("{} in {}", shown(command), at.pod))
}

async fn copy(from: Option<impl AsyncRead + Unpin>, mut to: impl AsyncWrite + Unpin) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let Some(part) = buffer.get(..read) else { break };
        // A reader that is gone (`| head`) ends us in silence.
        if to.write_all(part).await.is_err() || to.flush().await.is_err() {
            std::process::exit(128 + 13);
        }
    }
}

/// The exit code that the API server reports (`Status` of v4.channel.k8s.io).
pub fn exit_code(status: Option<Status>) -> anyhow::Result<u8> {
    let Some(status) = status else { bail!("the connection ended before the command did") };
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let message = status.message.unwrap_or_default();
    let causes = status.details.and_then(|d| d.causes).unwrap_or_default();
    let code = causes.iter().find(|c| c.reason.as_deref() == Some("ExitCode"));
    match code.and_then(|c| c.message.as_deref()?.parse::<i64>().ok()) {
        Some(code) => Ok(u8::try_from(code).unwrap_or(255)),
        None => bail!("{message}"),
    }
}

/// A command as one would type it.
pub fn shown(command: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+[]".contains(c);
    let word = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    command.iter().map(word).collect::<Vec<_>>().join(" ")
}
