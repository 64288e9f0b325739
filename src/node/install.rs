//! Files of the CNI plugin on the node. Every file appears whole, by rename; the runtime may look
//! at any moment.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Plugins of the CNI project that the conflist and Multus users need.
pub const REFERENCE_PLUGINS: [&str; 4] = ["loopback", "portmap", "macvlan", "ipvlan"];

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct InstallError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError { action, path: path.clone(), source }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    Unchanged,
    Written,
}

/// Writes `content` to `path` with `mode`, unless it is there already. Upstream never replaces an
/// existing conflist, so an upgrade keeps the old one for ever.
pub fn install_file(path: &Path, content: &[u8], mode: u32) -> Result<Installed, InstallError> {
    let same = fs::read(path).is_ok_and(|old| old == content);
    if same {
        let seen = fs::metadata(path).map_err(failed("stat", path))?.permissions().mode() & 0o7777;
        if seen != mode {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(path, permissions).map_err(failed("set the mode of", path))?;
        }
        return Ok(Installed::Unchanged);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    // Runtimes read *.conf, *.conflist and *.json only.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&fresh)
        .and_then(|mut file| {
            file.write_all(content)?;
            // The umask may have taken bits away.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&fresh, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&fresh);
        failed("write", path)(source)
    })?;
    Ok(Installed::Written)
}

/// Puts the conflist in `source` where the runtime finds it, readable by root only.
pub fn install_conflist(source: &Path, target: &Path) -> Result<Installed, InstallError> {
    let content = fs::read(source).map_err(failed("read", source))?;
    install_file(target, &content, 0o600)
}

/// Copies this executable as `kube-ovn`, and the reference plugins that lie in `image`, to
/// `folder`. Returns the names written.
pub fn install_plugins(image: &Path, folder: &Path) -> Result<Vec<String>, InstallError> {
    let own = Path::new("/proc/self/exe");
    let mut sources = vec![("kube-ovn", own.to_owned())];
    sources.extend(REFERENCE_PLUGINS.map(|name| (name, image.join(name))));
    let mut written = Vec::new();
    for (name, source) in sources {
        let content = match fs::read(&source) {
            Ok(content) => content,
            // An image without reference plugins leaves the node's own in place.
            Err(e) if e.kind() == io::ErrorKind::NotFound && name != "kube-ovn" => {
                tracing::warn!(
                    plugin = name,
                    "the image has no such plugin; the node keeps its own"
                );
                continue;
            }
            Err(e) => return Err(failed("read", &source)(e)),
        };
        if install_file(&folder.join(name), &content, 0o755)? == Installed::Written {
            written.push(name.to_owned());
        }
    }
    Ok(written)
}
