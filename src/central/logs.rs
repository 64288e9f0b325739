//! Size-bound log files of the daemons: FILE, FILE.1 (older) ... FILE.7.

use std::{fs, path::Path};

/// 100 MB, as upstream's logrotate rule.
const LIMIT: u64 = 100 << 20;
const KEPT: u32 = 7;

/// Rotates every `*.log` of a folder that is too large. The daemon goes on writing to the renamed
/// file until it opens its log again, so the content is copied and the file cut instead: OVS
/// opens its log for appending.
pub fn rotate(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_log = path.extension().is_some_and(|e| e == "log");
        let is_large = is_log && path.metadata().is_ok_and(|m| m.len() > LIMIT);
        if is_large && let Err(error) = rotate_file(&path) {
            tracing::warn!(file = %path.display(), %error, "log file not rotated");
        }
    }
}

fn rotate_file(path: &Path) -> std::io::Result<()> {
    let numbered = |n: u32| path.with_extension(format!("log.{n}"));
    for n in (1..KEPT).rev() {
        if numbered(n).exists() {
            fs::rename(numbered(n), numbered(n + 1))?;
        }
    }
    fs::copy(path, numbered(1))?;
    fs::File::options().write(true).open(path)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest() {
        let directory = std::env::temp_dir().join(format!("kube-ovn-logs-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("a.log");
        for text in ["one", "two"] {
            fs::write(&path, text).unwrap();
            rotate_file(&path).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert_eq!(fs::read_to_string(directory.join("a.log.1")).unwrap(), "two");
        assert_eq!(fs::read_to_string(directory.join("a.log.2")).unwrap(), "one");
        fs::remove_dir_all(&directory).unwrap();
    }
}
