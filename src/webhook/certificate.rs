//! The certificate of the webhook: made here, kept in a Secret, announced to the API server in the
//! caBundle of the configuration. A Secret that somebody else fills (cert-manager) is used as it
//! is.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret},
    jiff::{Timestamp, tz::TimeZone},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde_json::json;

pub const NAMESPACE: &str = "kube-system";
pub const SECRET: &str = "kube-ovn-webhook-secret";
pub const CONFIGURATION: &str = "kube-ovn-webhook";
const SERVICE: &str = "kube-ovn-webhook";
/// Year in which a certificate of ours ends (on its first day); others have none.
const ENDS: &str = "ovn.kubernetes.io/certificate-ends";
/// Renewed when less than about a year is left.
const YEARS: i16 = 2;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("Secret {NAMESPACE}/{SECRET}: {0}")]
    Secret(kube::Error),
    #[error("Secret {NAMESPACE}/{SECRET} holds no usable tls.crt and tls.key: {0}; delete it")]
    Content(String),
    #[error("ValidatingWebhookConfiguration {CONFIGURATION}: {0}")]
    Configuration(kube::Error),
}

/// PEM texts.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
    /// What the API server has to trust.
    pub authority: String,
}

/// Names under which the API server may call.
pub fn names() -> Vec<String> {
    ["", ".svc", ".svc.cluster.local"].map(|end| format!("{SERVICE}.{NAMESPACE}{end}")).to_vec()
}

fn this_year() -> i16 {
    Timestamp::now().to_zoned(TimeZone::UTC).year()
}

/// A certificate that is its own authority, good until the first day of year `ends`.
pub fn make(ends: i16) -> Result<Identity, CertificateError> {
    let mut parameters = CertificateParams::new(names())?;
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(i32::from(ends), 1, 1);
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?.pem();
    Ok(Identity { authority: certificate.clone(), certificate, key: key.serialize_pem() })
}

/// Whether a Secret may stay: of ours and young, or somebody else's.
fn is_good(secret: &Secret, year: i16) -> bool {
    let ends = secret.metadata.annotations.as_ref().and_then(|a| a.get(ENDS));
    ends.is_none_or(|text| text.parse().is_ok_and(|ends: i16| ends > year + 1))
}

fn identity(secret: &Secret) -> Option<Identity> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    let certificate = text("tls.crt").filter(|t| !t.is_empty())?;
    let authority = text("ca.crt").filter(|t| !t.is_empty()).unwrap_or_else(|| certificate.clone());
    Some(Identity { key: text("tls.key").filter(|t| !t.is_empty())?, certificate, authority })
}

/// That of the Secret, which is made or renewed where needed.
pub async fn ensure(client: &Client) -> Result<Identity, CertificateError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let found = secrets.get_opt(SECRET).await.map_err(CertificateError::Secret)?;
    let year = this_year();
    if let Some(secret) = &found
        && is_good(secret, year)
        && let Some(identity) = identity(secret)
    {
        return Ok(identity);
    }
    let ends = year + YEARS;
    let made = make(ends)?;
    let data =
        [("tls.crt", &made.certificate), ("tls.key", &made.key), ("ca.crt", &made.authority)]
            .map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes())));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            annotations: Some(BTreeMap::from([(ENDS.to_owned(), ends.to_string())])),
            // Two that start at once: the second one is refused and reads the first one's.
            resource_version: found.as_ref().and_then(|s| s.metadata.resource_version.clone()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.into()),
        ..Secret::default()
    };
    let written = match found {
        None => secrets.create(&PostParams::default(), &secret).await,
        Some(_) => secrets.replace(SECRET, &PostParams::default(), &secret).await,
    };
    match written {
        Ok(_) => Ok(made),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let secret = secrets.get(SECRET).await.map_err(CertificateError::Secret)?;
            identity(&secret).ok_or_else(|| CertificateError::Content("it is empty".to_owned()))
        }
        Err(error) => Err(CertificateError::Secret(error)),
    }
}

/// Makes the API server trust `authority`.
pub async fn announce(client: &Client, authority: &str) -> Result<(), CertificateError> {
    let all: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let found = all.get(CONFIGURATION).await.map_err(CertificateError::Configuration)?;
    let bundle = ByteString(authority.as_bytes().to_vec());
    let hooks = found.webhooks.unwrap_or_default();
    if hooks.iter().all(|hook| hook.client_config.ca_bundle.as_ref() == Some(&bundle)) {
        return Ok(());
    }
    let patches: Vec<_> = hooks
        .iter()
        .map(|hook| json!({"name": hook.name, "clientConfig": {"caBundle": bundle}}))
        .collect();
    let patch = Patch::Strategic(json!({"webhooks": patches}));
    let patched = all.patch(CONFIGURATION, &PatchParams::default(), &patch).await;
    patched.map(drop).map_err(CertificateError::Configuration)
}

/// The certificate of new connections; may be exchanged at any time.
#[derive(Debug)]
pub struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    pub fn new(identity: &Identity) -> Result<Arc<Self>, CertificateError> {
        Ok(Arc::new(Current(RwLock::new(certified(identity)?))))
    }

    pub fn exchange(&self, identity: &Identity) -> Result<(), CertificateError> {
        let key = certified(identity)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, CertificateError> {
    let content = |error: &dyn std::fmt::Display| CertificateError::Content(error.to_string());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| content(&e))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|e| content(&e))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|e| content(&e))?;
    Ok(Arc::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(ends: Option<&str>) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.annotations =
            ends.map(|ends| BTreeMap::from([(ENDS.to_owned(), ends.to_owned())]));
        secret
    }

    #[test]
    fn certificates_are_usable_and_renewed_in_time() {
        let identity = make(2030).unwrap();
        Current::new(&identity).unwrap().exchange(&make(2031).unwrap()).unwrap();
        let broken = Identity { key: "x".into(), ..identity };
        assert!(matches!(Current::new(&broken), Err(CertificateError::Content(_))));
        assert!(is_good(&secret(Some("2028")), 2026));
        assert!(!is_good(&secret(Some("2028")), 2027));
        assert!(!is_good(&secret(Some("soon")), 2026));
        assert!(is_good(&secret(None), 2026), "somebody else renews it");
    }
}
