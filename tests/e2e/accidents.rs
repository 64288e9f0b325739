//! What goes wrong with a sandbox: each ends in one clear line that changes nothing, or in a clean
//! take-over. In a folder of its own, without a pod network.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::PoisonError,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{
    cluster::tree,
    story::{TURN, say},
};

struct Own {
    dir: PathBuf,
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.cluster(&["down"]).status();
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(self.dir.with_extension("lock"));
    }
}

impl Own {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SANDBOX_DIR", &self.dir).env_remove("SANDBOX_ID").current_dir(tree());
        command.stdin(Stdio::null());
        command
    }

    fn cluster(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("packaging/sandbox/cluster");
        command.args(arguments);
        command
    }

    /// The only line that a refused command says.
    fn refusal(&self, mut command: Command) -> String {
        let output = command.output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        assert!(!output.status.success() && text.lines().count() == 1, "{command:?}: {text}");
        say(&format!("   {text}"));
        text
    }

    /// `cluster up`, killed as a whole when it says `stage`; what it said until then.
    fn up_until(&self, stage: &str) -> Vec<String> {
        let mut up = self.cluster(&["up", "--nodes", "1", "--no-network"]);
        let mut child = up.stderr(Stdio::piped()).process_group(0).spawn().expect("it starts");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut said = Vec::new();
        for line in lines.map_while(Result::ok) {
            let reached = line.contains(stage);
            said.push(line);
            if reached {
                break;
            }
        }
        let group = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
        assert!(said.last().is_some_and(|line| line.contains(stage)), "{said:#?}");
        said
    }

    /// Processes, link and control groups of this sandbox on the host.
    fn traces(&self) -> Vec<String> {
        let id = "printf %s \"$SANDBOX_DIR\" | sha256sum | cut -c1-6";
        let look = format!(
            "id=$({id}); grep -lzs \"^KUBE_OVN_SANDBOX=$id/\" /proc/[0-9]*/environ; \
             ls -d /sys/class/net/kos-$id /sys/fs/cgroup/kube-ovn-sandbox-$id \
             /sys/fs/cgroup/*/kube-ovn-sandbox-$id 2>/dev/null; true"
        );
        let output = self.command("sh").args(["-c", &look]).output().expect("a shell");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

#[test]
fn accidents_end_in_one_line_or_a_clean_take_over() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    say("\n== accidents");
    let main = std::env::var("SANDBOX_DIR").unwrap_or("/var/lib/kube-ovn-sandbox".into());
    let own = Own { dir: format!("{main}-accidents").into() };

    // Refusals, before anything is built or changed.
    let mut nobody = own.command("unshare");
    nobody.args(["--user", "./install.sh", "--sandbox"]);
    assert!(own.refusal(nobody).contains("run it with sudo"));
    let little = "echo 'MemAvailable: 100000 kB' >/run/meminfo && \
                  mount --bind /run/meminfo /proc/meminfo && exec ./install.sh --sandbox";
    let mut poor = own.command("unshare");
    poor.args(["--mount", "sh", "-c", &format!("mount -t tmpfs none /run && {little}")]);
    assert!(own.refusal(poor).contains("97 MB of memory available"));
    fs::create_dir_all(&own.dir).expect("a folder");
    let precious = own.dir.join("thesis.txt");
    fs::write(&precious, "years of work").expect("a file");
    for command in ["up", "down"] {
        assert!(own.refusal(own.cluster(&[command])).contains("thesis.txt"));
    }
    assert!(precious.exists());
    fs::remove_file(&precious).expect("it can go");
    assert_eq!(own.traces(), Vec::<String>::new());

    // Killed at several points; each run takes over what the one before left.
    own.up_until("network and certificates");
    let again = "removing what an earlier run left";
    assert!(own.up_until("booting").iter().any(|line| line.contains(again)));
    assert!(!own.traces().is_empty(), "the fabric lives on");
    // Somebody removes the folder by hand: what runs is still found.
    fs::remove_dir_all(&own.dir).expect("it can go");
    assert!(own.up_until("waiting for the control plane").iter().any(|l| l.contains(again)));
    say("   killed three times");
    let up = own.cluster(&["up", "--nodes", "1", "--no-network"]).status().expect("it starts");
    assert!(up.success(), "the last one must come up, see above");
    let down = own.command("./cleanup.sh").arg("--sandbox").status().expect("it starts");
    assert!(down.success(), "cleanup.sh says what resists, see above");
    assert_eq!(own.traces(), Vec::<String>::new());
    assert!(!own.dir.exists());
}
