//! Certificates of an authority that was made for a test, and that nobody trusts by itself.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};

/// An authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate, and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// In DER.
    pub der: Vec<u8>,
    /// The key in DER, PKCS #8.
    pub key_der: Vec<u8>,
    /// In PEM.
    pub pem: String,
    /// The key in PEM, PKCS #8.
    pub key_pem: String,
}

impl Authority {
    /// Makes an authority.
    ///
    /// # Panics
    /// When there is no entropy.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut wanted = CertificateParams::new(Vec::new()).expect("no name is unusable");
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.distinguished_name = called(name);
        let own = wanted.self_signed(&key).expect("it signs itself");
        Self {
            pem: own.pem(),
            issuer: Issuer::new(wanted, key),
        }
    }

    /// Returns its own certificate in PEM, for who trusts it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Makes a certificate for names and addresses. Its subject is the first of them (`CN=..`).
    ///
    /// # Panics
    /// When something is no name.
    pub fn certify(&self, names: &[&str]) -> Certificate {
        self.sign(params(names))
    }

    /// Makes a certificate that has run out.
    ///
    /// # Panics
    /// When something is no name.
    pub fn certify_too_late(&self, names: &[&str]) -> Certificate {
        let mut wanted = params(names);
        wanted.not_before = rcgen::date_time_ymd(2001, 1, 1);
        wanted.not_after = rcgen::date_time_ymd(2002, 1, 1);
        self.sign(wanted)
    }

    fn sign(&self, wanted: CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("a key can be made");
        let made = wanted.signed_by(&key, &self.issuer).expect("it signs");
        Certificate {
            der: made.der().to_vec(),
            key_der: key.serialize_der(),
            pem: made.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut wanted = CertificateParams::new(all).expect("they are names");
    wanted.distinguished_name = called(names.first().copied().unwrap_or_default());
    wanted
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}
