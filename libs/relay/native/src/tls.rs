//! TLS settings: which certificate serves which name, whom an origin must be signed by.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
};

/// The only protocol that is spoken behind TLS.
const ALPN: &[u8] = b"http/1.1";

/// A certificate with its chain and key, and the names it serves: exact ones, or `*.` and a domain.
pub struct Identity {
    pub names: Vec<String>,
    pub chain_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

/// Certificates by name. The first serves those who ask for a name that none has, or for no name.
#[derive(Debug)]
struct ByName {
    first: Arc<CertifiedKey>,
    named: HashMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    fn find(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let named = name.map(str::to_ascii_lowercase).and_then(|name| {
            let wildcard = || name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
            self.named.get(&name).or_else(|| self.named.get(&wildcard()?)).cloned()
        });
        named.unwrap_or_else(|| Arc::clone(&self.first))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(hello.server_name()))
    }
}

/// What a listener serves.
pub struct Serving {
    usual: Arc<ServerConfig>,
    /// For those whose list of protocols lacks ours: rustls would refuse them, where the Python
    /// relay's TLS, which cannot, agrees to none of the list.
    without_alpn: Arc<ServerConfig>,
}

impl Serving {
    /// `Err` says what is wrong with an identity.
    pub fn new(identities: Vec<Identity>) -> Result<Serving, String> {
        let usual = server_config(identities)?;
        let mut without_alpn = usual.clone();
        without_alpn.alpn_protocols.clear();
        Ok(Serving { usual: Arc::new(usual), without_alpn: Arc::new(without_alpn) })
    }

    pub fn for_client(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let agrees = hello.alpn().is_none_or(|mut offered| offered.any(|name| name == ALPN));
        Arc::clone(if agrees { &self.usual } else { &self.without_alpn })
    }
}

fn server_config(identities: Vec<Identity>) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let mut named = HashMap::new();
    let mut first = None;
    for identity in identities {
        let key = Arc::new(certified(&identity, &provider)?);
        for name in identity.names {
            named.entry(name.to_ascii_lowercase()).or_insert_with(|| Arc::clone(&key));
        }
        first.get_or_insert(key);
    }
    let first = first.ok_or("no certificate was given")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName { first, named }));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
    // One ticket saves a client its next full handshake; more are only bytes.
    config.send_tls13_tickets = 1;
    Ok(config)
}

fn certified(identity: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&identity.chain_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the chain: {error}"))?;
    if chain.is_empty() {
        return Err("the chain holds no certificate".into());
    }
    let key = PrivateKeyDer::from_pem_slice(&identity.key_pem)
        .map_err(|error| format!("the key: {error}"))?;
    let certified = CertifiedKey::from_der(chain, key, provider);
    certified.map_err(|error| match error {
        Error::InconsistentKeys(_) => "the key is not the certificate's".into(),
        other => format!("the key: {other}"),
    })
}

/// How origins are verified: by the system's roots and those in `extra_pem`.
pub fn client_config(extra_pem: &[u8]) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    // A root that this library cannot read can sign for nobody; the others still can.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for root in CertificateDer::pem_slice_iter(extra_pem) {
        let root = root.map_err(|error| error.to_string())?;
        roots.add(root).map_err(|error| error.to_string())?;
    }
    let algorithms = provider.signature_verification_algorithms;
    let usual = if roots.is_empty() {
        None
    } else {
        let roots = Arc::new(roots);
        let usual = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        Some(usual.build().map_err(|error| error.to_string())?)
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { usual, algorithms }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// As the usual one, and says which certificates vouch for themselves only: that is what a customer
/// can act on.
#[derive(Debug)]
struct Verifier {
    /// None where there are no roots, as in an image without them: then nobody is trusted.
    usual: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct SelfSigned;

impl std::fmt::Display for SelfSigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("self-signed certificate")
    }
}

impl std::error::Error for SelfSigned {}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = match &self.usual {
            Some(usual) => {
                usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        verified.map_err(|error| match error {
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_),
            ) if is_self_signed(end_entity) => {
                CertificateError::Other(OtherError(Arc::new(SelfSigned))).into()
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    webpki::EndEntityCert::try_from(certificate).is_ok_and(|cert| cert.issuer() == cert.subject())
}

/// Why a certificate was refused, in the words of `handoff_relay.tls`; None for another error.
pub fn certificate_fault(error: &Error) -> Option<&'static str> {
    let Error::InvalidCertificate(fault) = error else {
        return None;
    };
    Some(match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "not_valid_yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "name"
        }
        CertificateError::Other(OtherError(other)) if other.is::<SelfSigned>() => "self_signed",
        _ => "untrusted",
    })
}
