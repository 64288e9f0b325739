//! The real programs of OVN and Open vSwitch.

use std::path::{Path, PathBuf};

/// A tree with `usr/share/{ovn,openvswitch}`.
pub fn rootfs() -> PathBuf {
    let cache =
        std::env::var("SANDBOX_CACHE").unwrap_or_else(|_| "/var/cache/kube-ovn-sandbox".to_owned());
    let path = Path::new(&cache).join("ovn-rootfs");
    assert!(path.is_dir(), "{} is missing; packaging/sandbox/rootfs makes it", path.display());
    path
}

/// Runs a program of that tree.
pub fn wrapper() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/sandbox/ovn-run")
}

/// Processes of ours whose command line names a folder, zombies left out.
pub fn pids_below(folder: &Path) -> Vec<i32> {
    let needle = folder.display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // Another folder's name may begin like this one.
        let line = String::from_utf8_lossy(&line);
        let mut ends = line.match_indices(&needle).map(|(at, _)| &line[at + needle.len()..]);
        ends.any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
    })
    .collect()
}
