//! What the plugin is told: the network configuration on stdin and the `CNI_*` environment.

use serde::Deserialize;

use super::{
    spec::{CniError, Code, Command, Dns, Version, validate_container_id, validate_interface_name},
    wire::{Attachment, Request, Route},
};

/// The `type` under which a configuration means "make the interface", not "only an address".
pub const PLUGIN_TYPE: &str = "kube-ovn";

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawConf {
    cni_version: String,
    name: String,
    #[serde(rename = "type")]
    plugin: String,
    #[serde(rename = "server_socket")]
    server_socket: String,
    provider: String,
    routes: Option<Vec<Route>>,
    dns: Option<Dns>,
    #[serde(rename = "deviceID")]
    device_id: String,
    #[serde(rename = "vf_driver")]
    vf_driver: String,
    #[serde(rename = "vhost_user_socket_volume_name")]
    vhost_user_socket_volume_name: String,
    #[serde(rename = "vhost_user_socket_name")]
    vhost_user_socket_name: String,
    #[serde(rename = "vhost_user_socket_consumption")]
    vhost_user_socket_consumption: String,
    ipam: Option<RawIpam>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
    prev_result: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawIpam {
    server_socket: String,
    provider: String,
    routes: Option<Vec<Route>>,
}

/// A validated network configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Conf {
    pub version: Version,
    pub name: String,
    /// `type` of the configuration; the main plugin's when we only serve its IPAM.
    pub plugin: String,
    pub socket: String,
    pub provider: String,
    pub routes: Vec<Route>,
    pub dns: Dns,
    pub device_id: String,
    pub vf_driver: String,
    pub vhost_user: VhostUser,
    /// What the runtime still knows (GC); `None` when the configuration has no such list.
    pub valid_attachments: Option<Vec<Attachment>>,
    /// The result of the ADD that a CHECK is about.
    pub prev_result: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VhostUser {
    pub volume: String,
    pub socket: String,
    pub consumption: String,
}

/// The configuration's `cniVersion` even when the rest of it is refused, for the error's layout.
pub fn peek_version(stdin: &[u8]) -> Version {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct OnlyVersion {
        #[serde(default)]
        cni_version: String,
    }
    serde_json::from_slice::<OnlyVersion>(stdin)
        .ok()
        .and_then(|v| v.cni_version.parse().ok())
        .unwrap_or(Version::LATEST)
}

/// Parses stdin.
pub fn parse_conf(stdin: &[u8]) -> Result<Conf, CniError> {
    let undecodable = |details: String| {
        CniError::new(Code::Decoding, "failed to decode the network configuration from stdin")
            .details(details)
    };
    // serde would read a list as the fields in order.
    if stdin.trim_ascii_start().first().is_some_and(|b| *b != b'{') {
        return Err(undecodable("line 1: the configuration is not a JSON object".to_owned()));
    }
    let raw: RawConf = serde_json::from_slice(stdin).map_err(|e| undecodable(e.to_string()))?;
    let version = raw.cni_version.parse()?;
    let (mut socket, mut provider, mut routes) = (raw.server_socket, raw.provider, raw.routes);
    if raw.plugin != PLUGIN_TYPE
        && let Some(ipam) = raw.ipam
    {
        (socket, provider, routes) = (ipam.server_socket, ipam.provider, ipam.routes);
    }
    if socket.is_empty() {
        return Err(CniError::new(Code::InvalidConfig, "server_socket is missing").details(
            format!(
                "the configuration of network {:?} has no server_socket; set it to the daemon's \
                 socket, for example {}",
                raw.name,
                super::wire::DEFAULT_SOCKET
            ),
        ));
    }
    let routes = routes.unwrap_or_default();
    for route in &routes {
        route.validate().map_err(|e| {
            CniError::new(Code::InvalidConfig, "a route of the network configuration is invalid")
                .details(format!("dst {:?} gw {:?}: {e}", route.dst, route.gw))
        })?;
    }
    Ok(Conf {
        version,
        name: raw.name,
        plugin: raw.plugin,
        socket,
        provider: if provider.is_empty() { "ovn".to_owned() } else { provider },
        routes,
        dns: raw.dns.unwrap_or_default(),
        device_id: raw.device_id,
        vf_driver: raw.vf_driver,
        vhost_user: VhostUser {
            volume: raw.vhost_user_socket_volume_name,
            socket: raw.vhost_user_socket_name,
            consumption: raw.vhost_user_socket_consumption,
        },
        valid_attachments: raw.valid_attachments,
        prev_result: raw.prev_result,
    })
}

/// The `CNI_*` variables of one invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub command: Command,
    pub container_id: String,
    pub net_ns: String,
    pub if_name: String,
    pub args: PodArgs,
}

/// The keys of `CNI_ARGS` that a kubelet's runtime sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodArgs {
    pub name: String,
    pub namespace: String,
    pub uid: String,
}

/// Reads the environment through `lookup`, and refuses a command whose variables are missing.
pub fn parse_environment(lookup: impl Fn(&str) -> Option<String>) -> Result<Environment, CniError> {
    let get = |name: &str| lookup(name).unwrap_or_default();
    let command: Command = get("CNI_COMMAND").parse()?;
    let environment = Environment {
        command,
        container_id: get("CNI_CONTAINERID"),
        net_ns: get("CNI_NETNS"),
        if_name: get("CNI_IFNAME"),
        args: parse_args(&get("CNI_ARGS"))?,
    };
    let required: &[(&str, &str)] = match command {
        Command::Add | Command::Check => &[
            ("CNI_CONTAINERID", &environment.container_id),
            ("CNI_NETNS", &environment.net_ns),
            ("CNI_IFNAME", &environment.if_name),
        ],
        Command::Del => {
            &[("CNI_CONTAINERID", &environment.container_id), ("CNI_IFNAME", &environment.if_name)]
        }
        Command::Gc | Command::Status | Command::Version => return Ok(environment),
    };
    let missing: Vec<&str> = required.iter().filter(|r| r.1.is_empty()).map(|r| r.0).collect();
    if !missing.is_empty() {
        return Err(CniError::new(Code::InvalidEnvironment, "required env variables are missing")
            .details(format!("{} needs {}", command.text(), missing.join(", "))));
    }
    validate_container_id(&environment.container_id)?;
    validate_interface_name(&environment.if_name)?;
    // Without the pod's name an ADD cannot know its address. A DEL finds the port by container.
    if command != Command::Del {
        environment.args.require()?;
    }
    Ok(environment)
}

impl PodArgs {
    fn require(&self) -> Result<(), CniError> {
        for (key, value) in [("K8S_POD_NAME", &self.name), ("K8S_POD_NAMESPACE", &self.namespace)] {
            if value.is_empty() {
                return Err(CniError::new(Code::InvalidConfig, "CNI_ARGS names no pod")
                    .details(format!("{key} is missing or empty in CNI_ARGS")));
            }
        }
        Ok(())
    }
}

/// `K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=shop`; other keys are for other plugins.
fn parse_args(text: &str) -> Result<PodArgs, CniError> {
    let mut args = PodArgs::default();
    for pair in text.split(';').filter(|p| !p.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(CniError::new(Code::InvalidEnvironment, "CNI_ARGS is malformed")
                .details(format!("{pair:?} is not key=value")));
        };
        match key {
            "K8S_POD_NAME" => args.name = value.to_owned(),
            "K8S_POD_NAMESPACE" => args.namespace = value.to_owned(),
            "K8S_POD_UID" => args.uid = value.to_owned(),
            _ => {}
        }
    }
    Ok(args)
}

impl Conf {
    /// The body of the request that `environment` asks for. DEL leaves out what only ADD uses.
    pub fn request(&self, environment: &Environment) -> Request {
        let mut request = Request {
            cni_type: self.plugin.clone(),
            pod_name: environment.args.name.clone(),
            pod_namespace: environment.args.namespace.clone(),
            container_id: environment.container_id.clone(),
            net_ns: environment.net_ns.clone(),
            if_name: environment.if_name.clone(),
            provider: self.provider.clone(),
            routes: Vec::new(),
            dns: Dns::default(),
            vf_driver: String::new(),
            device_id: self.device_id.clone(),
            vhost_user_socket_volume_name: self.vhost_user.volume.clone(),
            vhost_user_socket_name: String::new(),
            vhost_user_socket_consumption: self.vhost_user.consumption.clone(),
            pod_uid: environment.args.uid.clone(),
        };
        // KubeVirt names neither: its volume is fixed, its socket is called like the interface.
        let kubevirt = self.vhost_user.consumption == "kubevirt";
        if kubevirt {
            request.vhost_user_socket_volume_name = "vhostuser-sockets".to_owned();
        }
        if environment.command != Command::Del {
            request.routes = self.routes.clone();
            request.dns = self.dns.clone();
            request.vf_driver = self.vf_driver.clone();
            request.vhost_user_socket_name =
                if kubevirt { environment.if_name.clone() } else { self.vhost_user.socket.clone() };
        }
        request
    }
}
