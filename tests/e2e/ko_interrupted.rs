//! Ctrl-C at any moment leaves nothing behind; data comes as JSON and YAML; a shell completes.

use std::{
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    cluster::{Cluster, retry},
    ko::{good, ko},
    pods::Pod,
    story::{Story, story},
};

/// A command that runs on; it is ended if the story fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(cluster: &Cluster, args: &[&str]) -> Self {
        let mut command = Command::new(cluster.dir.join("bin/kubectl-ko"));
        command.env("KUBECONFIG", cluster.dir.join("kubeconfig")).current_dir(&cluster.dir);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().expect("run kubectl-ko"))
    }

    /// Ctrl-C; the exit code.
    fn interrupt(&mut self) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a process number"));
        kill(pid, Signal::SIGINT).expect("interrupt it");
        for _ in 0..450 {
            if let Some(status) = self.0.try_wait().expect("its end") {
                return status.code();
            }
            sleep(Duration::from_millis(200));
        }
        panic!("it does not end within 90 s");
    }
}

/// Objects of kube-system, by name.
fn found(cluster: &Cluster, what: &[&str]) -> Result<String, String> {
    let get = ["-n", "kube-system", "get", "-o", "name", "--ignore-not-found"];
    cluster.kubectl(&[&get[..], what].concat())
}

fn leaves_no_objects(s: &Story, command: &[&str], made: &[&str]) {
    let mut running = Running::start(s.cluster, command);
    retry(60, || match found(s.cluster, made)?.is_empty() {
        true => Err(format!("{command:?} has made nothing yet")),
        false => Ok(()),
    });
    assert_eq!(running.interrupt(), Some(130), "{command:?}");
    retry(90, || match found(s.cluster, made)? {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{command:?} leaves {left}")),
    });
    s.step(&format!("{}: Ctrl-C leaves nothing", command.join(" ")));
}

/// The program in the pod ends as well.
fn leaves_no_process(s: &Story, node: &str) {
    let pod = format!("{}/a", s.ns);
    let mark = "port 47113";
    let mut running = Running::start(s.cluster, &["tcpdump", &pod, mark]);
    let count = || {
        let script = format!(
            "n=0; for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f 2>/dev/null | \
             grep -q '^tcpdump .*{mark}' && n=$((n + 1)); done; echo $n"
        );
        let said = s.cluster.enter(node, &["sh", "-c", &script])?;
        said.trim().parse::<u32>().map_err(|e| format!("{said:?}: {e}"))
    };
    retry(60, || match count()? {
        0 => Err("tcpdump does not run yet".to_owned()),
        _ => Ok(()),
    });
    assert_eq!(running.interrupt(), Some(130));
    retry(60, || match count()? {
        0 => Ok(()),
        n => Err(format!("{n} tcpdump are left on {node}")),
    });
    s.step("tcpdump: Ctrl-C ends it in the pod");
}

/// Every command that prints data gives the same as JSON and as YAML.
fn speaks_json_and_yaml(s: &Story) {
    let (a, b) = (format!("{}/a", s.ns), format!("{}/b", s.ns));
    for command in [
        &["nb", "status"][..],
        &["sb", "status"],
        &["nb", "dbstatus"],
        &["status"],
        &["audit"],
        &["ipam", "check"],
        &["ipam", "show"],
        &["topology"],
        &["adopt", "--plan"],
        &["explain", &format!("a.{}", s.ns)],
        &["explain", "--from", &a, "--to", &b, "--port", "tcp/80"],
        &["trace", &a, &s.ip("b"), "icmp"],
    ] {
        let parsed = |format: &str| -> Value {
            let (code, said, error) = ko(s.cluster, &[command, &["-o", format]].concat());
            assert!([0, 3].contains(&code), "{command:?} -o {format}: {code} {error}");
            match format {
                "json" => serde_json::from_str(&said).map_err(|e| e.to_string()),
                _ => serde_saphyr::from_str(&said).map_err(|e| e.to_string()),
            }
            .unwrap_or_else(|e| panic!("{command:?} -o {format}: {e}: {said}"))
        };
        let (json, yaml) = (parsed("json"), parsed("yaml"));
        let shape = |value: &Value| match value {
            Value::Object(fields) => fields.keys().cloned().collect::<Vec<_>>().join(","),
            Value::Array(_) => "list".to_owned(),
            other => other.to_string(),
        };
        assert!(json.is_object() || json.is_array(), "{command:?}: {json}");
        assert_eq!(shape(&json), shape(&yaml), "{command:?}");
    }
    s.step("the same data as JSON and YAML");
}

/// bash, which is everywhere; the others get a script as well.
fn completes(s: &Story) {
    let program = s.cluster.dir.join("bin/kubectl-ko").display().to_string();
    let script = format!(
        "source <({program} completion bash)
        COMP_WORDS=(kubectl-ko nb sta); COMP_CWORD=2
        _kubectl_ko kubectl-ko sta nb
        echo \"${{COMPREPLY[*]}}\""
    );
    let said = s.cluster.shell(Command::new("bash").args(["-c", &script])).expect("bash");
    assert_eq!(said.trim(), "status");
    for shell in ["zsh", "fish"] {
        let script = good(s.cluster, &["completion", shell]);
        assert!(script.contains("connectivity") && script.contains("support-bundle"), "{shell}");
    }
    s.step("completion");
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    story("ko-interrupted", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[Pod::new("a").on(&nodes[0].name), Pod::new("b").on(&nodes[1].name)]);
        s.pings("a", &s.ip("b"));
        leaves_no_objects(
            s,
            &["diagnose", "subnet", "ovn-default"],
            &["daemonset/ovn-default-conn-check-server"],
        );
        leaves_no_objects(s, &["diagnose", "all"], &["service/test-node-port"]);
        leaves_no_objects(s, &["perf"], &["pods,services", "-l", "app=PerfTest"]);
        leaves_no_process(s, &nodes[0].name);
        speaks_json_and_yaml(s);
        completes(s);
    });
}
