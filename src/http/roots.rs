//! Whose certificates a client trusts: the machine's authorities, those compiled in where it has none, and further ones.

use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// Further authorities that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the further certificate authorities are not PEM certificates: {0}")]
pub struct RootsError(String);

/// Certificate authorities, read once for many clients; clones share them.
#[derive(Clone, Debug)]
pub struct Roots {
    certificates: Arc<Vec<CertificateDer<'static>>>,
    store: Arc<RootCertStore>,
}

impl Roots {
    /// Reads the machine's authorities and adds those of `extra_pem`, which may be empty.
    ///
    /// A machine without any is no reason not to work: then those compiled in stand in.
    pub fn load(extra_pem: &[u8]) -> Result<Self, RootsError> {
        let mut certificates = rustls_native_certs::load_native_certs().certs;
        let mut store = RootCertStore::empty();
        // What else the machine holds is its administrator's matter; the S3 client would panic on it.
        certificates.retain(|root| store.add(root.clone()).is_ok());
        if certificates.is_empty() {
            certificates = webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
            store.add_parsable_certificates(certificates.iter().cloned());
        }
        if !extra_pem.is_empty() {
            certificates.extend(read_pem(extra_pem, &mut store)?);
        }
        Ok(Self {
            certificates: Arc::new(certificates),
            store: Arc::new(store),
        })
    }

    /// The authorities one by one, in DER.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.certificates.iter()
    }

    /// The authorities as TLS wants them.
    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.store)
    }
}

/// The certificates of `pem`, each of which has to be one, and one at least.
fn read_pem(
    pem: &[u8],
    store: &mut RootCertStore,
) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let mut roots = Vec::new();
    for root in CertificateDer::pem_slice_iter(pem) {
        let root = root.map_err(|error| RootsError(error.to_string()))?;
        let added = store.add(root.clone());
        added.map_err(|error| RootsError(error.to_string()))?;
        roots.push(root);
    }
    if roots.is_empty() {
        return Err(RootsError("there is none in it".to_owned()));
    }
    Ok(roots)
}
