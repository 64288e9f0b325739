//! Kernel parameters by dotted name (`net.ipv4.ip_forward`), see sysctl(8).

use std::{
    io,
    path::{Path, PathBuf},
};

use super::Error;

/// The /proc/sys of an unprivileged container is read-only; the manifest mounts the host's
/// /proc/sys/net here. Like the original it shows the network namespace of the calling thread.
const WRITABLE: &str = "/host/proc/sys";

fn path(name: &str) -> PathBuf {
    // A dot inside a link name is written as a slash in the dotted form.
    let swapped = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let relative: String = name.chars().map(swapped).collect();
    let writable = Path::new(WRITABLE).join(&relative);
    if writable.exists() { writable } else { Path::new("/proc/sys").join(relative) }
}

/// The value without the newline; `None` when this kernel has no such parameter.
pub fn read(name: &str) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path(name)) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::call(format!("sysctl {name}"), e)),
    }
}

pub fn write(name: &str, value: &str) -> Result<(), Error> {
    std::fs::write(path(name), value).map_err(|e| Error::call(format!("sysctl {name}={value}"), e))
}
