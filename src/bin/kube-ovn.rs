//! The one executable. What it does depends on the name it is called by; see `kube_ovn::cmd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kube_ovn::cmd::main(std::env::args_os())
}
