//! TLS towards a real server, with certificates made here. None names the server's address, as
//! those of `ovs-pki` do not.

use std::{fs, net::TcpListener, os::unix::fs::symlink, path::PathBuf};

use kube_ovn::ovsdb::{
    client::{Event, Options},
    endpoint::Endpoint,
    schema::nb,
    tls::TlsFiles,
    wire::ConnectionError,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::{
    ovsdb::Owner,
    ovsdb_server::{Folder, OvsdbServer},
};

/// Writes `ca.pem`, `NAME.pem` and `NAME.key` for each name.
fn make_certificates(folder: &Folder, names: &[&str]) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    fs::write(folder.0.join("ca.pem"), authority.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for name in names {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![format!("{name}.invalid")]).unwrap();
        params.distinguished_name.push(DnType::CommonName, *name);
        let leaf = params.signed_by(&key, &issuer).unwrap();
        fs::write(folder.0.join(format!("{name}.pem")), leaf.pem()).unwrap();
        fs::write(folder.0.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn files(folder: &Folder, authority: &Folder) -> TlsFiles {
    let file = |name: &str| -> PathBuf { folder.0.join(name) };
    TlsFiles {
        key: file("client.key"),
        certificate: file("client.pem"),
        authority: authority.0.join("ca.pem"),
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn refused(options: Options) -> ConnectionError {
    let mut owner = Owner::new(options);
    match owner.event().await {
        Event::Disconnected { reason } => reason,
        other => panic!("{other:?}"),
    }
}

/// A database behind TLS, with the certificates of a folder.
fn secured(port: u16, pki: &Folder) -> OvsdbServer {
    let path = |name: &str| pki.0.join(name).display().to_string();
    OvsdbServer::standalone_with(
        &nb::DATABASE,
        &[
            format!("--remote=pssl:{port}:127.0.0.1"),
            format!("--private-key={}", path("server.key")),
            format!("--certificate={}", path("server.pem")),
            format!("--ca-cert={}", path("ca.pem")),
        ],
    )
}

#[tokio::test]
async fn both_sides_check_the_chain_and_the_client_no_name() {
    let (pki, foreign) = (Folder::new(), Folder::new());
    make_certificates(&pki, &["server", "client"]);
    make_certificates(&foreign, &["client"]);
    let port = free_port();
    let server = secured(port, &pki);
    let endpoint: Endpoint = format!("ssl:[127.0.0.1]:{port}").parse().unwrap();
    let options = |tls| Options { tls, ..Options::new(&nb::DATABASE, vec![endpoint.clone()]) };

    let mut owner = Owner::new(options(Some(files(&pki, &pki))));
    owner.connected().await;
    owner.global().await.unwrap();
    owner.drain();
    assert_eq!(owner.replica.len(&nb::NB_GLOBAL), 1, "{}", server.log());

    let unknown_server = refused(options(Some(files(&pki, &foreign)))).await;
    assert!(unknown_server.to_string().contains("invalid peer certificate"), "{unknown_server}");
    let unknown_client = refused(options(Some(files(&foreign, &pki)))).await;
    assert!(
        matches!(unknown_client, ConnectionError::Connect { .. } | ConnectionError::Read { .. }),
        "{unknown_client}"
    );
    assert!(matches!(refused(options(None)).await, ConnectionError::NoTlsFiles { .. }));
    let missing = refused(options(Some(files(&Folder::new(), &pki)))).await;
    assert!(matches!(missing, ConnectionError::Tls { .. }), "{missing}");
}

/// A folder as the kubelet mounts a Secret: files are links through `..data`, which is exchanged as
/// a whole.
struct Mount {
    folder: Folder,
    versions: u32,
}

impl Mount {
    fn new() -> Self {
        let mut mount = Mount { folder: Folder::new(), versions: 0 };
        mount.renew();
        for file in ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"] {
            symlink(format!("..data/{file}"), mount.folder.0.join(file)).unwrap();
        }
        mount
    }

    /// Everything new, the authority too; the files of the version before stay beside it.
    fn renew(&mut self) -> PathBuf {
        let before = self.folder.0.join(format!("v{}", self.versions));
        self.versions += 1;
        let version = format!("v{}", self.versions);
        let made = Folder::new();
        make_certificates(&made, &["server", "client"]);
        let target = self.folder.0.join(&version);
        fs::create_dir(&target).unwrap();
        for entry in fs::read_dir(&made.0).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, target.join(path.file_name().unwrap())).unwrap();
        }
        symlink(&version, self.folder.0.join("..next")).unwrap();
        fs::rename(self.folder.0.join("..next"), self.folder.0.join("..data")).unwrap();
        before
    }
}

/// `ENABLE_SSL`: a renewed Secret is taken up by both sides with the next connection, and those that
/// stand are not cut.
#[tokio::test]
async fn renewed_certificates_need_no_restart() {
    let mut mount = Mount::new();
    let port = free_port();
    let server = secured(port, &mount.folder);
    let (before, pid) = (server.log(), server.pid());
    let endpoint: Endpoint = format!("ssl:[127.0.0.1]:{port}").parse().unwrap();
    let options = |tls| Options { tls, ..Options::new(&nb::DATABASE, vec![endpoint.clone()]) };
    let mut standing = Owner::new(options(Some(files(&mount.folder, &mount.folder))));
    standing.connected().await;

    let old = mount.renew();
    let mut new = Owner::new(options(Some(files(&mount.folder, &mount.folder))));
    new.connected().await;
    new.global().await.expect("a write over the new certificates");
    assert!(matches!(standing.event().await, Event::Updated(_)), "the connection of before stands");
    assert_eq!(server.pid(), pid, "{before}");

    let file = |name: &str| old.join(name);
    let outdated = TlsFiles {
        key: file("client.key"),
        certificate: file("client.pem"),
        authority: mount.folder.0.join("ca.pem"),
    };
    let refusal = refused(options(Some(outdated))).await;
    assert!(
        matches!(refusal, ConnectionError::Connect { .. } | ConnectionError::Read { .. }),
        "{refusal}"
    );
}
