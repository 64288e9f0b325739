//! The plugin: environment and stdin in, one JSON object and an exit code out.

use super::{
    client::{self, Answer},
    config::{Conf, Environment, parse_conf, parse_environment, peek_version},
    result::parse_response,
    spec::{CniError, Code, Command, Version, version_json},
    wire::{self, GcRequest, Response},
};

/// What the process prints on stdout and returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub stdout: String,
    pub exit_code: u8,
}

/// Runs one invocation. `post(socket, endpoint, body)` reaches the daemon.
pub fn run(
    lookup: impl Fn(&str) -> Option<String>,
    stdin: &[u8],
    post: impl FnOnce(&str, &'static str, &[u8]) -> Result<Answer, client::ClientError>,
) -> Output {
    match answer(lookup, stdin, post) {
        Ok(stdout) => Output { stdout, exit_code: 0 },
        Err(error) => Output { stdout: error.json(peek_version(stdin)), exit_code: 1 },
    }
}

fn answer(
    lookup: impl Fn(&str) -> Option<String>,
    stdin: &[u8],
    post: impl FnOnce(&str, &'static str, &[u8]) -> Result<Answer, client::ClientError>,
) -> Result<String, CniError> {
    let environment = parse_environment(lookup)?;
    if environment.command == Command::Version {
        return Ok(version_json(peek_version(stdin)));
    }
    let conf = parse_conf(stdin)?;
    require_version(&environment, conf.version)?;
    if environment.command == Command::Check && conf.prev_result.is_none() {
        return Err(CniError::new(Code::InvalidConfig, "prevResult is missing")
            .details("CHECK needs the prevResult of the ADD in the network configuration"));
    }
    let (endpoint, body) = request(&conf, &environment)?;
    let answer = post(&conf.socket, endpoint, &body)
        .map_err(|e| failure(environment.command).details(e.to_string()))?;
    read_answer(&conf, &environment, &answer)
}

fn require_version(environment: &Environment, version: Version) -> Result<(), CniError> {
    let (command, since) = (environment.command, environment.command.since());
    if version >= since {
        return Ok(());
    }
    Err(CniError::new(Code::IncompatibleVersion, "config version does not allow the command")
        .details(format!("{} needs cniVersion {since} or later, not {version}", command.text())))
}

fn request(conf: &Conf, environment: &Environment) -> Result<(&'static str, Vec<u8>), CniError> {
    let encode = |e: serde_json::Error| CniError::new(Code::Internal, e.to_string());
    let endpoint = match environment.command {
        Command::Add => wire::ADD,
        Command::Del => wire::DEL,
        Command::Check => wire::CHECK,
        Command::Status => return Ok((wire::STATUS, b"{}".to_vec())),
        Command::Gc | Command::Version => {
            let Some(valid_attachments) = conf.valid_attachments.clone() else {
                return Err(CniError::new(Code::InvalidConfig, "no list of valid attachments")
                    .details("GC needs cni.dev/valid-attachments in the network configuration"));
            };
            let gc = GcRequest { provider: conf.provider.clone(), valid_attachments };
            return Ok((wire::GC, serde_json::to_vec(&gc).map_err(encode)?));
        }
    };
    Ok((endpoint, serde_json::to_vec(&conf.request(environment)).map_err(encode)?))
}

/// The error that a failed request of this command becomes.
fn failure(command: Command) -> CniError {
    match command {
        Command::Status => CniError::new(Code::NotAvailable, "the network is not available"),
        _ => CniError::new(Code::Rpc, "RPC failed"),
    }
}

fn read_answer(
    conf: &Conf,
    environment: &Environment,
    answer: &Answer,
) -> Result<String, CniError> {
    let text = || String::from_utf8_lossy(&answer.body).trim().to_owned();
    let refused = || {
        let error = serde_json::from_slice::<Response>(&answer.body).unwrap_or_default().error;
        if error.is_empty() { text() } else { error }
    };
    if !(200..300).contains(&answer.status) {
        let status = answer.status;
        return Err(failure(environment.command).details(match environment.command {
            Command::Add => format!("request ip return {status} {}", refused()),
            Command::Del => format!("delete ip return {status} {}", text()),
            command => format!("{} returned {status} {}", command.text(), refused()),
        }));
    }
    if environment.command != Command::Add {
        return Ok(String::new());
    }
    let response: Response = serde_json::from_slice(&answer.body).map_err(|e| {
        failure(Command::Add).details(format!("the daemon's answer is unusable: {e}"))
    })?;
    Ok(parse_response(&response, &environment.net_ns)?.json(conf.version))
}
