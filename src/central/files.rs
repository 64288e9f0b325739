//! Files of a database: made, converted, moved aside. A file that is replaced is always kept as
//! `FILE.backup-EPOCH`.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    arguments,
    config::{CentralConfig, Paths, Role},
    dbfile::{Local, SavedHeader},
    decide::Contents,
};
use crate::kernel::process::{Launcher, ProcessError};

/// A conversion reads and writes the whole database.
const TOOL_LIMIT: Duration = Duration::from_secs(300);
/// Less free space than this counts as a full disk.
const DISK_RESERVE: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tool(#[from] ProcessError),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError + '_ {
    move |source| FileError::Io { path: path.to_owned(), source }
}

/// Writes a file with mode 0600 so that readers see the old or the new content.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let temporary = path.with_extension("tmp");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(at(&temporary))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(at(&temporary))?;
    fs::rename(&temporary, path).map_err(at(path))
}

pub fn write_saved_header(path: &Path, header: &SavedHeader) -> Result<(), FileError> {
    let text = serde_json::to_vec(header).map_err(io::Error::other).map_err(at(path))?;
    write_private(path, &text)
}

/// Moves a file to `FILE.backup-EPOCH[-N]`; returns the new name, `None` if there is no file.
pub fn move_aside(path: &Path) -> Result<Option<PathBuf>, FileError> {
    if !path.exists() {
        return Ok(None);
    }
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let names = (0..).map(|n| match n {
        0 => format!("{}.backup-{epoch}", path.display()),
        n => format!("{}.backup-{epoch}-{n}", path.display()),
    });
    let mut free = names.map(PathBuf::from).filter(|name| !name.exists());
    let Some(target) = free.next() else { return Ok(None) };
    fs::rename(path, &target).map_err(at(path))?;
    Ok(Some(target))
}

/// `true` when the filesystem of a directory has no room for a write.
pub fn is_disk_full(directory: &Path) -> bool {
    nix::sys::statvfs::statvfs(directory)
        .is_ok_and(|s| s.blocks_available() * s.fragment_size() <= DISK_RESERVE)
}

/// Makes the database files that a decision asks for.
pub struct FileMaker<'a> {
    pub launcher: &'a Launcher,
    pub config: &'a CentralConfig,
    pub paths: &'a Paths,
    pub role: Role,
}

impl FileMaker<'_> {
    /// A fresh or taken-over standalone database. A clustered file is converted.
    pub async fn standalone(&self, local: &Local) -> Result<(), FileError> {
        let file = self.paths.database(self.role);
        let new = file.with_extension("db.new");
        remove_leftover(&new)?;
        match local {
            Local::Standalone => return Ok(()),
            Local::Member(_) | Local::Removed(_) => {
                self.run(&arguments::cluster_to_standalone(&new, &file)).await?;
            }
            Local::Missing | Local::Unusable(_) | Local::Joining(_) => {
                self.run(&arguments::create(&new, &self.paths.schema(self.role))).await?;
            }
        }
        self.put(&new)
    }

    /// The first file of a new cluster.
    pub async fn bootstrap(&self, contents: Contents) -> Result<(), FileError> {
        let file = self.paths.database(self.role);
        let (new, standalone) = (file.with_extension("db.new"), file.with_extension("db.contents"));
        remove_leftover(&new)?;
        remove_leftover(&standalone)?;
        let source = match contents {
            Contents::Schema => self.paths.schema(self.role),
            Contents::File => file.clone(),
            Contents::Cluster => {
                self.run(&arguments::cluster_to_standalone(&standalone, &file)).await?;
                standalone.clone()
            }
        };
        let address = self.config.raft_address(self.role);
        let timer = self.config.election_timer;
        self.run(&arguments::create_cluster(&new, &source, &address, timer)).await?;
        self.put(&new)?;
        remove_leftover(&standalone)
    }

    /// A file that joins. The server id of a former file is recorded first, so that it is kicked
    /// out of the cluster once we are in (the stock tool cannot rejoin under the old id).
    pub async fn join(
        &self,
        cluster: Option<&str>,
        local: &Local,
        saved: Option<&SavedHeader>,
    ) -> Result<(), FileError> {
        let file = self.paths.database(self.role);
        let new = file.with_extension("db.new");
        remove_leftover(&new)?;
        let address = self.config.raft_address(self.role);
        if let Some(header) = with_stale_ids(local, saved, cluster, &address) {
            write_saved_header(&self.paths.header(self.role), &header)?;
        }
        let remotes = self.config.raft_peers(self.role);
        let join = arguments::join_cluster(&new, self.role, cluster, &address, &remotes);
        self.run(&join).await?;
        self.put(&new)
    }

    /// Why a clustered file cannot be served, as ovsdb-tool sees it.
    pub async fn check(&self) -> Result<String, FileError> {
        let file = self.paths.database(self.role);
        Ok(self.launcher.run(&arguments::check_cluster(&file), TOOL_LIMIT).await?)
    }

    async fn run(&self, what: &crate::kernel::process::Invocation) -> Result<(), FileError> {
        self.launcher.run(what, TOOL_LIMIT).await?;
        Ok(())
    }

    /// Puts a new file in place; the old one is kept aside.
    fn put(&self, new: &Path) -> Result<(), FileError> {
        let file = self.paths.database(self.role);
        if let Some(backup) = move_aside(&file)? {
            tracing::warn!(database = self.role.database(), backup = %backup.display(),
                "the former database file is kept");
        }
        fs::rename(new, &file).map_err(at(&file))
    }
}

/// Temporary files of an aborted run, with ovsdb-tool's lock file.
fn remove_leftover(path: &Path) -> Result<(), FileError> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    for victim in [path.to_owned(), path.with_file_name(format!(".{name}.~lock~"))] {
        match fs::remove_file(&victim) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(at(&victim)(e)),
        }
    }
    Ok(())
}

/// The header to save before joining: it remembers every server id that was ours.
fn with_stale_ids(
    local: &Local,
    saved: Option<&SavedHeader>,
    cluster: Option<&str>,
    address: &str,
) -> Option<SavedHeader> {
    let lost = match local {
        Local::Member(header) | Local::Joining(header) => Some(header.server_id.clone()),
        _ => None,
    };
    let lost = lost.into_iter().chain(saved.map(|header| header.server_id.clone()));
    let mut stale = saved.map(|header| header.stale.clone()).unwrap_or_default();
    for id in lost {
        if !stale.contains(&id) {
            stale.push(id);
        }
    }
    let server_id = stale.last()?.clone();
    let name = match (local, saved) {
        (_, Some(header)) => header.name.clone(),
        (Local::Member(header) | Local::Joining(header), None) => header.name.clone(),
        _ => return None,
    };
    let cluster_id = cluster.map(str::to_owned).or(saved.map(|h| h.cluster_id.clone()))?;
    let peers = saved.map(|header| header.peers.clone()).unwrap_or_default();
    Some(SavedHeader {
        server_id,
        name,
        local_address: address.to_owned(),
        cluster_id,
        peers,
        stale,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::central::dbfile::RaftHeader;

    fn saved(id: &str, stale: &[&str]) -> SavedHeader {
        SavedHeader {
            server_id: id.into(),
            name: "OVN_Northbound".into(),
            local_address: "a".into(),
            cluster_id: "c".into(),
            peers: vec![],
            stale: stale.iter().map(|s| (*s).into()).collect(),
        }
    }

    #[test]
    fn a_rejoin_remembers_the_lost_server_ids() {
        let header = with_stale_ids(&Local::Missing, Some(&saved("s2", &["s1"])), Some("c"), "a");
        assert_eq!(header.unwrap().stale, ["s1", "s2"]);
        let file = RaftHeader {
            name: "OVN_Northbound".into(),
            server_id: "s3".into(),
            cluster_id: None,
            local_address: "a".into(),
            remote_addresses: vec!["b".into()],
        };
        let header = with_stale_ids(&Local::Joining(file), None, Some("c"), "a");
        assert_eq!(header.unwrap().stale, ["s3"]);
        assert_eq!(with_stale_ids(&Local::Missing, None, Some("c"), "a"), None);
    }

    #[test]
    fn files_are_private_and_moved_aside() {
        use std::os::unix::fs::PermissionsExt;
        let directory = std::env::temp_dir().join(format!("kube-ovn-files-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("x.hdr");
        write_private(&path, b"1").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let first = move_aside(&path).unwrap().unwrap();
        write_private(&path, b"2").unwrap();
        let second = move_aside(&path).unwrap().unwrap();
        assert_ne!(first, second);
        assert_eq!(move_aside(&path).unwrap(), None);
        fs::remove_dir_all(&directory).unwrap();
    }
}
