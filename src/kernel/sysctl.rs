//! Kernel parameters by dotted name (`net.ipv4.ip_forward`), see sysctl(8).

use std::{io, path::PathBuf};

use super::Error;

fn path(name: &str) -> PathBuf {
    // A dot inside a link name is written as a slash in the dotted form.
    let swapped = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    PathBuf::from("/proc/sys").join(name.chars().map(swapped).collect::<String>())
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
