//! The product on Debian's own kernel, which has the openvswitch module as the kernels of users do:
//! the test executable runs itself in an emulated machine (`packaging/sandbox/guest`), once for all
//! tests of this folder, and each test tells here what came of it there.
//!
//! The emulation is 10 to 20 times slower than the machine: waits are long, bounds are loose.

mod kernel_datapath;
mod netem;
mod rig;
mod sctp;
mod tunnels;

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

/// A test whose body runs in the guest.
macro_rules! guest_test {
    ($(#[$doc:meta])* fn $name:ident() $body:block) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            crate::in_guest::in_guest(concat!(module_path!(), "::", stringify!($name)), || $body);
        }
    };
}
use guest_test;

/// Whether this process runs in the emulated machine.
pub fn is_guest() -> bool {
    std::env::var_os("KUBE_OVN_GUEST").is_some()
}

/// `path` with the name of the executable in front, as `module_path!` has it.
fn in_guest(path: &str, body: impl FnOnce()) {
    if is_guest() {
        return body();
    }
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    let output = OUTPUT.get_or_init(boot);
    if let Err(problem) = verdict(output, name) {
        panic!("{name}: {problem}; the guest said:\n{output}");
    }
}

static OUTPUT: OnceLock<String> = OnceLock::new();

/// Runs the tests in the guest that were asked for here.
fn boot() -> String {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/sandbox/guest");
    let mut filters: Vec<String> =
        std::env::args().skip(1).filter(|word| word.starts_with("in_guest")).collect();
    if filters.is_empty() {
        filters.push("in_guest::".to_owned());
    }
    let output = Command::new(guest)
        .arg(std::env::current_exe().unwrap())
        .args(filters)
        .args(["--test-threads=1", "--color=never"])
        .env("GUEST_KEEP", "RUST_BACKTRACE")
        .env("GUEST_SECONDS", "900")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// What libtest printed about one test. Children write between its words, so only whole lines
/// count: the list of failures, and the result that is there when it ran to the end.
fn verdict(output: &str, name: &str) -> Result<(), &'static str> {
    let mut lines = output.lines().map(str::trim);
    let failed = lines.clone().rev().take_while(|line| *line != "failures:").any(|l| l == name);
    let ended = lines.any(|line| line.starts_with("test result:"));
    match (ended, failed, output.contains(&format!("test {name} ..."))) {
        (false, ..) => Err("the tests did not end"),
        (_, _, false) => Err("did not run"),
        (_, true, _) => Err("failed"),
        (true, false, true) => Ok(()),
    }
}

#[test]
fn verdicts_are_read_from_whole_lines() {
    let passed = "test in_guest::a::b ... noise\nok\n\ntest result: ok. 1 passed; 0 failed\n";
    assert_eq!(verdict(passed, "in_guest::a::b"), Ok(()));
    assert!(verdict(passed, "in_guest::a::c").is_err());
    let failed = "test in_guest::a::b ... FAILED\ntest in_guest::a::c ... ok\n\nfailures:\n\n\
                  ---- in_guest::a::b stdout ----\nx\n\nfailures:\n    in_guest::a::b\n\n\
                  test result: FAILED. 1 passed; 1 failed\n";
    assert_eq!(verdict(failed, "in_guest::a::b"), Err("failed"));
    assert_eq!(verdict(failed, "in_guest::a::c"), Ok(()));
    assert!(verdict("test in_guest::a::b ... ", "in_guest::a::b").is_err());
}
