//! What a database file is, told from its first record (ovsdb(5), "Clustered Format").

use std::{
    fs, io,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};

/// Identity of a raft server, from the header of its file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RaftHeader {
    pub name: String,
    pub server_id: String,
    /// Unknown until the server has joined.
    #[serde(default)]
    pub cluster_id: Option<String>,
    pub local_address: String,
    /// Present only while the server has not joined: whom it asks.
    #[serde(default)]
    pub remote_addresses: Vec<String>,
}

/// The local file as found before a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    Missing,
    /// Not a database, or of another schema, or cut off; the reason.
    Unusable(String),
    Standalone,
    /// Made by join-cluster; the cluster has not taken the server in yet.
    Joining(RaftHeader),
    Member(RaftHeader),
    /// The server was removed from its cluster; the file can never be served again.
    Removed(RaftHeader),
}

/// The backup of the raft header beside the database. Upstream's four fields, and ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedHeader {
    pub server_id: String,
    pub name: String,
    pub local_address: String,
    pub cluster_id: String,
    /// Raft addresses of the other members when the header was written.
    #[serde(default)]
    pub peers: Vec<String>,
    /// Server ids of our lost files; kicked after we have joined again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<String>,
}

/// Reads the kind of a database file. `name` is the schema that it should hold.
pub fn observe_file(path: &Path, name: &str) -> io::Result<Local> {
    match fs::File::open(path) {
        Ok(file) => Ok(parse_file(BufReader::new(file), name)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Local::Missing),
        Err(e) => Err(e),
    }
}

/// Reads the saved header; a damaged one counts as absent, as it proves nothing.
pub fn observe_saved_header(path: &Path) -> io::Result<Option<SavedHeader>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[derive(Deserialize)]
struct SchemaName {
    name: String,
}

/// The first line is `OVSDB JSON LENGTH SHA1` or `OVSDB CLUSTER LENGTH SHA1`; LENGTH bytes of JSON
/// follow. The record may hold the whole database, so it is not kept.
fn parse_file(mut reader: impl BufRead, name: &str) -> Local {
    let unusable = |reason: String| Local::Unusable(reason);
    let mut line = Vec::new();
    // A bound for files that hold no line end at all.
    if let Err(e) = reader.by_ref().take(200).read_until(b'\n', &mut line) {
        return unusable(e.to_string());
    }
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split_ascii_whitespace();
    let (magic, kind) = (words.next(), words.next());
    let length = words.next().and_then(|n| n.parse::<u64>().ok());
    let (Some("OVSDB"), Some(kind), Some(length)) = (magic, kind, length) else {
        return unusable("it does not begin like an OVSDB file".to_owned());
    };
    let mut record = serde_json::Deserializer::from_reader(reader.take(length));
    match kind {
        "JSON" => match SchemaName::deserialize(&mut record) {
            Ok(schema) if schema.name == name => Local::Standalone,
            Ok(schema) => unusable(format!("it holds {}, not {name}", schema.name)),
            Err(e) => unusable(format!("its schema cannot be read: {e}")),
        },
        "CLUSTER" => match RaftHeader::deserialize(&mut record) {
            Ok(header) if header.name != name => {
                unusable(format!("it holds {}, not {name}", header.name))
            }
            // raft.c: a header with remotes is one of a server that has not joined yet. The file
            // says it itself, so no age of the file matters (some filesystems know no birth time).
            Ok(header) if !header.remote_addresses.is_empty() => Local::Joining(header),
            Ok(header) => Local::Member(header),
            Err(e) => unusable(format!("its raft header cannot be read: {e}")),
        },
        other => unusable(format!("unknown OVSDB file format {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Local {
        parse_file(text.as_bytes(), "OVN_Northbound")
    }

    fn file(kind: &str, json: &str) -> String {
        format!("OVSDB {kind} {} 0123\n{json}\nOVSDB {kind} 2 45\n{{}}", json.len())
    }

    #[test]
    fn kinds_of_files() {
        let json = r#"{"name":"OVN_Northbound","tables":{}}"#;
        assert_eq!(parse(&file("JSON", json)), Local::Standalone);
        let member = r#"{"prev_eid":"x","cluster_id":"c","name":"OVN_Northbound","prev_data":[{}],
            "server_id":"s","local_address":"tcp:[10.0.0.1]:6643"}"#;
        let Local::Member(header) = parse(&file("CLUSTER", member)) else { panic!() };
        assert_eq!(header.cluster_id.as_deref(), Some("c"));
    }

    #[test]
    fn upstream_trap_birth_time_zero_a_joining_file_is_known_by_its_content() {
        let joining = r#"{"name":"OVN_Northbound","remote_addresses":["tcp:[10.0.0.1]:6643"],
            "server_id":"s","local_address":"tcp:[10.0.0.2]:6643"}"#;
        assert!(matches!(parse(&file("CLUSTER", joining)), Local::Joining(_)));
    }

    #[test]
    fn damaged_files_name_the_reason() {
        for text in
            ["", "junk\n", "OVSDB JSON 5 x\n{\"nam", "OVSDB CLUSTER 99 x\n{}", "OVSDB X 1 y\n"]
        {
            assert!(matches!(parse(text), Local::Unusable(_)), "{text:?}");
        }
        let other = r#"{"name":"OVN_Southbound","tables":{}}"#;
        let Local::Unusable(reason) = parse(&file("JSON", other)) else { panic!() };
        assert!(reason.contains("OVN_Southbound"));
    }
}
