//! Parts that the options of several programs share: environment, addresses, log, metrics port.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use super::{
    Usage,
    flags::{Flag, Given},
};
use crate::{
    net::{Cidr, DualStack, Family, parse_ip},
    telemetry::{Exposure, Format, LogFile, LogOptions, Serving, TlsPolicy, Transport, log},
};

/// Flags of every program that logs and serves metrics. `pprof-port` keeps upstream's name.
pub const SERVING: &[Flag] = &[
    Flag::switch("enable-metrics", "true", "serve /metrics"),
    Flag::switch("secure-serving", "false", "metrics by HTTPS, to authorized tokens only"),
    Flag::text("tls-min-version", "", "TLS12 or TLS13"),
    Flag::text("tls-max-version", "", "TLS12 or TLS13"),
    Flag::text("tls-cipher-suites", "", "comma list of Go's cipher suite names"),
    Flag::text("log-perm", "640", "permissions of the log file, octal"),
    Flag::text("kubeconfig", "", "path of a kubeconfig; empty = service account of the pod"),
];

/// Environment variables, as a value so that option parsing stays a pure function.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// That of this process; entries that are not UTF-8 are left out.
    pub fn current() -> Self {
        let entries = std::env::vars_os();
        let text =
            entries.filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Environment(text.collect())
    }

    /// `None` for unset and for empty variables.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// Addresses of a comma list.
    pub fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Usage> {
        let text = self.get(name).unwrap_or_default();
        let parts = text.split(',').filter(|part| !part.trim().is_empty());
        let parse = |part| parse_ip(part).map_err(|e| Usage(format!("environment {name}: {e}")));
        parts.map(parse).collect()
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(entries: [(&str, &str); N]) -> Self {
        Environment(entries.map(|(k, v)| (k.to_owned(), v.to_owned())).into())
    }
}

/// An error that names the flag, its value and the remedy.
pub(super) fn wrong(flag: &str, value: impl std::fmt::Display, remedy: impl ToString) -> Usage {
    Usage(format!("--{flag}={value}: {}", remedy.to_string()))
}

pub(super) fn cidrs(given: &Given<'_>, flag: &str) -> Result<DualStack<Cidr>, Usage> {
    let text = given.text(flag);
    let pair = DualStack::parse_cidrs(&text).map_err(|error| wrong(flag, &text, error))?;
    Ok(pair.map(|cidr| cidr.network()))
}

/// System prefixes must be routable and apart from each other (`flag`, prefixes).
pub(super) fn check_disjoint(prefixes: &[(&str, DualStack<Cidr>)]) -> Result<(), Usage> {
    for (i, (flag, pair)) in prefixes.iter().enumerate() {
        for (_, cidr) in pair.iter() {
            if let Some(kind) = unusable(*cidr) {
                let remedy = format!("{cidr} is {kind}; choose a routable unicast prefix");
                return Err(wrong(flag, pair, remedy));
            }
        }
        for (other, theirs) in prefixes.iter().take(i) {
            if pair.overlaps(theirs) {
                let remedy = format!("overlaps --{other}={theirs}; choose prefixes that do not");
                return Err(wrong(flag, pair, remedy));
            }
        }
    }
    Ok(())
}

/// The class of addresses that pods, nodes and Services cannot have.
fn unusable(cidr: Cidr) -> Option<&'static str> {
    let classes: &[(&str, &str)] = match cidr.family() {
        Family::V4 => &[
            ("169.254.0.0/16", "link-local"),
            ("127.0.0.0/8", "loopback"),
            ("224.0.0.0/4", "multicast"),
        ],
        Family::V6 => {
            &[("fe80::/10", "link-local"), ("::1/128", "loopback"), ("ff00::/8", "multicast")]
        }
    };
    let hit = |text: &str| text.parse::<Cidr>().is_ok_and(|class| class.overlaps(cidr));
    classes.iter().find(|(text, _)| hit(text)).map(|(_, kind)| *kind)
}

/// Directory and name of an existing or default kubeconfig.
pub(super) fn kubeconfig(given: &Given<'_>) -> Option<PathBuf> {
    Some(given.text("kubeconfig")).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Metrics port of a program whose port flag is `pprof-port`.
pub(super) fn serving(given: &Given<'_>, env: &Environment) -> Result<Serving, Usage> {
    let addresses = match env.is_true("ENABLE_BIND_LOCAL_IP") {
        true => env.addresses("POD_IPS")?,
        false => Vec::new(),
    };
    if addresses.is_empty() && env.is_true("ENABLE_BIND_LOCAL_IP") {
        let text =
            "environment ENABLE_BIND_LOCAL_IP=true needs POD_IPS (downward API status.podIPs)";
        return Err(Usage(text.to_owned()));
    }
    let (min, max) = (given.text("tls-min-version"), given.text("tls-max-version"));
    let policy = TlsPolicy::parse(&min, &max, &given.list("tls-cipher-suites")).map_err(Usage)?;
    Ok(Serving {
        addresses,
        port: given.small("pprof-port"),
        metrics: if given.is_on("enable-metrics") { Exposure::Served } else { Exposure::Hidden },
        transport: match given.is_on("secure-serving") {
            true => Transport::Secure(policy),
            false => Transport::Plain,
        },
    })
}

/// The log, by klog's rules: a file only with `--logtostderr=false` and `--log_file`.
pub fn log_options(given: &Given<'_>) -> Result<LogOptions, Usage> {
    let (path, perm) = (given.text("log_file"), given.text("log-perm"));
    let mode = match perm.as_str() {
        "" => Ok(0o640),
        text => u32::from_str_radix(text, 8),
    };
    let mode = mode.ok().filter(|mode| *mode <= 0o777);
    let mode = mode.ok_or_else(|| wrong("log-perm", &perm, "write octal permissions, as 640"))?;
    let max_size = (given.number("log_file_max_size") as u64).saturating_mul(1 << 20);
    let to_file = !path.is_empty() && !given.is_on("logtostderr");
    let modules = log::parse_modules(&given.text("vmodule"))
        .map_err(|part| wrong("vmodule", part, "write module=number"))?;
    Ok(LogOptions {
        file: to_file.then(|| LogFile { path: path.into(), mode, max_size }),
        also_stderr: given.is_on("alsologtostderr"),
        format: match given.text("log-format").as_str() {
            "text" => Format::Text,
            "json" => Format::Json,
            other => return Err(wrong("log-format", other, "write text or json")),
        },
        verbosity: given.small("v"),
        modules,
    })
}

/// Connection to the Kubernetes API: a kubeconfig, else the pod's service account (or, outside of
/// a cluster, the user's own kubeconfig).
pub async fn kube_config(kubeconfig: Option<&std::path::Path>) -> anyhow::Result<kube::Config> {
    let mut config = found_config(kubeconfig).await?;
    limit_silence(&mut config);
    Ok(config)
}

/// An API server whose host lost its power closes nothing: without a limit a request would wait
/// for TCP to give up, a quarter of an hour. A quiet watch is ended by the server before this.
pub fn limit_silence(config: &mut kube::Config) {
    const LONGEST: std::time::Duration = std::time::Duration::from_secs(310);
    config.read_timeout = Some(LONGEST);
    config.write_timeout = Some(LONGEST);
}

async fn found_config(kubeconfig: Option<&std::path::Path>) -> anyhow::Result<kube::Config> {
    use anyhow::Context;
    use kube::config::{KubeConfigOptions, Kubeconfig};
    let Some(path) = kubeconfig else {
        return kube::Config::infer().await.context("find the Kubernetes API");
    };
    let shown = path.display();
    let file = Kubeconfig::read_from(path).with_context(|| format!("read kubeconfig {shown}"))?;
    kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("use kubeconfig {shown}"))
}
