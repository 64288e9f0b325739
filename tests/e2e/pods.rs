//! Pods of stories, and what they can reach.

use serde_json::{Map, Value, json};

use crate::{
    cluster::{Answer, bracketed, retry},
    story::Story,
};

const IMAGE: &str = "kube-ovn-sandbox/test:1";

/// CGI program that answers with the caller's address.
pub const TELLS_ADDRESS: &str = "#!/bin/sh
echo Content-Type: text/plain
echo
echo $REMOTE_ADDR
";

/// A busybox with a web server: `/` answers the pod's name, `/cgi-bin/me` the caller's address.
pub struct Pod {
    pub name: String,
    node: Option<String>,
    annotations: Map<String, Value>,
    port: u16,
    network: Network,
    capability: Option<String>,
}

#[derive(PartialEq)]
enum Network {
    Own,
    Host,
}

impl Pod {
    pub fn new(name: &str) -> Self {
        Pod {
            name: name.to_owned(),
            node: None,
            annotations: Map::new(),
            port: 80,
            network: Network::Own,
            capability: None,
        }
    }

    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// `key` without its `ovn.kubernetes.io/`.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(format!("ovn.kubernetes.io/{key}"), value.into());
        self
    }

    /// In the node's network, its web server on `port`.
    pub fn in_host_network(mut self, port: u16) -> Self {
        (self.network, self.port) = (Network::Host, port);
        self
    }

    /// With a capability that containers do not have by default.
    pub fn allowed(mut self, capability: &str) -> Self {
        self.capability = Some(capability.to_owned());
        self
    }

    pub fn manifest(&self, namespace: &str) -> Value {
        let script = format!(
            "mkdir -p /www/cgi-bin && cd /www && echo {} >index.html && cat >cgi-bin/me <<'END'
{TELLS_ADDRESS}END
chmod 755 cgi-bin/me; exec httpd -f -p {} -h /www",
            self.name, self.port
        );
        let mut spec = json!({
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "hostNetwork": self.network == Network::Host,
            "containers": [{"name": "web", "image": IMAGE, "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", script]}],
        });
        if let Some(capability) = &self.capability {
            spec["containers"][0]["securityContext"] =
                json!({"capabilities": {"add": [capability]}});
        }
        if let Some(node) = &self.node {
            spec["nodeName"] = node.as_str().into();
        }
        json!({"apiVersion": "v1", "kind": "Pod", "spec": spec, "metadata": {"name": self.name,
            "namespace": namespace, "labels": {"app": self.name}, "annotations": self.annotations}})
    }
}

impl Story {
    pub fn exec(&self, pod: &str, args: &[&str]) -> Answer {
        self.kubectl(&[&["exec", pod, "--"], args].concat())
    }

    /// One echo request that must be answered, within 20 s.
    #[track_caller]
    pub fn pings(&self, pod: &str, target: &str) {
        retry(20, || self.exec(pod, &["ping", "-c", "1", "-W", "1", target]));
        self.step(&format!("{pod} pings {target}"));
    }

    /// Three echo requests that must all stay unanswered.
    #[track_caller]
    pub fn never_pings(&self, pod: &str, target: &str) {
        let answer = self.exec(pod, &["ping", "-c", "3", "-i", "0.3", "-W", "1", target]);
        let lost = answer.as_ref().err().is_some_and(|e| e.contains("100% packet loss"));
        assert!(lost, "{pod} must not reach {target}: {answer:?}");
        self.step(&format!("{pod} does not reach {target}"));
    }

    /// A page that must hold `expected`, within 20 s.
    #[track_caller]
    pub fn fetches(&self, pod: &str, url: &str, expected: &str) {
        retry(20, || {
            let page = self.exec(pod, &["wget", "-qO-", "-T", "2", url])?;
            if page.contains(expected) { Ok(()) } else { Err(format!("{url} answers {page:?}")) }
        });
        self.step(&format!("{pod} fetches {url}: {expected}"));
    }

    /// The server at `host` sees the pod under the address `source`, sooner or later.
    #[track_caller]
    pub fn becomes_seen_as(&self, pod: &str, host: &str, source: &str) {
        let url = format!("http://{}/cgi-bin/me", bracketed(host));
        retry(90, || {
            let seen = self.exec(pod, &["wget", "-qO-", "-T", "2", &url])?;
            let seen = seen.trim().trim_matches(['[', ']']).trim_start_matches("::ffff:");
            if seen == source { Ok(()) } else { Err(format!("seen as {seen}, not {source}")) }
        });
        self.step(&format!("{host} sees {pod} as {source}"));
    }

    /// The server that `url` names must see the pod under the address `source`.
    #[track_caller]
    pub fn is_seen_as(&self, pod: &str, host: &str, source: &str) {
        let url = format!("http://{}/cgi-bin/me", bracketed(host));
        let seen = retry(20, || self.exec(pod, &["wget", "-qO-", "-T", "2", &url]));
        let seen = seen.trim().trim_matches(['[', ']']).trim_start_matches("::ffff:");
        assert_eq!(seen, source, "{host} sees {pod} under this address");
        self.step(&format!("{host} sees {pod} as {source}"));
    }
}

/// `http://ADDRESS/`.
pub fn page_of(ip: &str) -> String {
    format!("http://{}/", bracketed(ip))
}
