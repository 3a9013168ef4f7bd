//! Who the brokers are, and who we are to them: TLS and logging in.

use std::fmt;
use std::fs::File;
use std::sync::LazyLock;

use rdkafka::ClientConfig;
use sagabus_core::error::TransportError;

/// What is missing where TLS, or a log-in by a challenge, is not known.
pub(crate) const NEEDS_OPENSSL: &str = "this build has no TLS: add the feature `kafka-tls` of \
    `sagabus` (`tls` of `sagabus-kafka`) to your Cargo.toml [SB0221]";

/// How to log in.
#[derive(Clone, Debug)]
pub enum Security {
    /// No TLS, no log-in.
    Plain,
    /// TLS without a log-in: for brokers that let in everybody, or who has a certificate. Needs the
    /// feature `tls`.
    Tls(Tls),
    /// A user and a password.
    Sasl {
        /// How the password travels.
        mechanism: Mechanism,
        /// The user.
        user: String,
        /// The password.
        password: Secret,
        /// With TLS, which every mechanism but in a closed network needs. Needs the feature `tls`.
        tls: Option<Tls>,
    },
}

/// How a password travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// As it is: only over TLS, or in a closed network.
    Plain,
    /// As a challenge's answer. Needs the feature `tls`.
    ScramSha256,
    /// As a challenge's answer. Needs the feature `tls`.
    ScramSha512,
}

/// Whose certificates are trusted, and what is shown of our own. A broker's certificate is always
/// checked, and its name with it.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// A file with the authorities' certificates in PEM. Default: those of the system.
    pub authorities: Option<String>,
    /// What is shown to brokers that ask who is there. Default: nothing.
    pub certificate: Option<ClientCertificate>,
}

/// A certificate of this service, and its key.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// A file with the certificate, and those between it and its authority, in PEM.
    pub chain: String,
    /// A file with its private key in PEM.
    pub key: String,
    /// What the key is encrypted with. Default: it is not.
    pub key_password: Option<Secret>,
}

impl ClientCertificate {
    /// Names the files; the key is not encrypted.
    pub fn new(chain: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            chain: chain.into(),
            key: key.into(),
            key_password: None,
        }
    }
}

impl Security {
    /// Returns what is set for TLS.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        match self {
            Self::Plain => None,
            Self::Tls(tls) => Some(tls),
            Self::Sasl { tls, .. } => tls.as_ref(),
        }
    }

    /// Checks what can be known without a broker.
    pub(crate) fn check(&self) -> Result<(), TransportError> {
        self.check_with(has_openssl())?;
        let Some(tls) = self.tls() else { return Ok(()) };
        let own = tls.certificate.iter();
        let own = own.flat_map(|one| [("certificate", &one.chain), ("key", &one.key)]);
        let authorities = tls.authorities.iter().map(|file| ("authorities", file));
        for (what, file) in authorities.chain(own) {
            if let Err(error) = File::open(file) {
                return Err(TransportError::Setup(format!(
                    "`{file}`, the file of `{what}` of `Tls`, cannot be read: {error}; correct its \
                     path, or let this user read it [SB0221]"
                )));
            }
        }
        Ok(())
    }

    fn check_with(&self, has_openssl: bool) -> Result<(), TransportError> {
        let by_challenge = matches!(
            self,
            Self::Sasl {
                mechanism: Mechanism::ScramSha256 | Mechanism::ScramSha512,
                ..
            }
        );
        if has_openssl || (self.tls().is_none() && !by_challenge) {
            return Ok(());
        }
        let what = if by_challenge { "SCRAM is" } else { "TLS is" };
        Err(TransportError::Setup(format!(
            "{what} wanted by `security`, and {NEEDS_OPENSSL}"
        )))
    }

    pub(crate) fn apply(&self, client: &mut ClientConfig) {
        let tls = self.tls();
        let protocol = match (self, tls) {
            (Self::Sasl { .. }, Some(_)) => "sasl_ssl",
            (Self::Sasl { .. }, None) => "sasl_plaintext",
            (_, Some(_)) => "ssl",
            (_, None) => "plaintext",
        };
        client.set("security.protocol", protocol);
        if let Some(tls) = tls {
            tls.apply(client);
        }
        if let Self::Sasl {
            mechanism,
            user,
            password,
            ..
        } = self
        {
            let mechanism = match mechanism {
                Mechanism::Plain => "PLAIN",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            client
                .set("sasl.mechanisms", mechanism)
                .set("sasl.username", user)
                .set("sasl.password", password.reveal());
        }
    }

    /// The user, for messages.
    pub(crate) fn user(&self) -> Option<&str> {
        match self {
            Self::Sasl { user, .. } => Some(user),
            Self::Plain | Self::Tls(_) => None,
        }
    }
}

impl Tls {
    fn apply(&self, client: &mut ClientConfig) {
        // The defaults of librdkafka, which nobody is to change for us.
        client
            .set("enable.ssl.certificate.verification", "true")
            .set("ssl.endpoint.identification.algorithm", "https");
        match &self.authorities {
            Some(file) => {
                client.set("ssl.ca.location", file);
            }
            // An OpenSSL that was built with us does not know where the system keeps them.
            None if cfg!(unix) => {
                client.set("ssl.ca.location", "probe");
            }
            None => {}
        }
        let Some(own) = &self.certificate else { return };
        client
            .set("ssl.certificate.location", &own.chain)
            .set("ssl.key.location", &own.key);
        if let Some(password) = &own.key_password {
            client.set("ssl.key.password", password.reveal());
        }
    }
}

/// Asks librdkafka itself: a service may have added OpenSSL by a feature of the driver.
pub(crate) fn has_openssl() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        let native = ClientConfig::new().create_native_config();
        let features = native.and_then(|native| native.get("builtin.features"));
        features.is_ok_and(|features| features.split(',').any(|one| one.trim() == "ssl"))
    });
    *HAS
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// For the driver, and nobody else.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sasl(mechanism: Mechanism, tls: Option<Tls>) -> Security {
        Security::Sasl {
            mechanism,
            user: "orders".into(),
            password: "canary".into(),
            tls,
        }
    }

    #[test]
    fn what_needs_tls_is_refused_with_the_feature_where_it_is_not_built_in() {
        let of = |security: Security| {
            security
                .check_with(false)
                .map_err(|error| error.to_string())
        };
        assert_eq!(of(Security::Plain), Ok(()));
        assert_eq!(of(sasl(Mechanism::Plain, None)), Ok(()));
        for (security, what) in [
            (Security::Tls(Tls::default()), "TLS is wanted"),
            (
                sasl(Mechanism::Plain, Some(Tls::default())),
                "TLS is wanted",
            ),
            (sasl(Mechanism::ScramSha256, None), "SCRAM is wanted"),
            (
                sasl(Mechanism::ScramSha512, Some(Tls::default())),
                "SCRAM is wanted",
            ),
        ] {
            security.check_with(true).unwrap();
            let error = of(security).unwrap_err();
            for word in [what, "`kafka-tls`", "[SB0221]"] {
                assert!(error.contains(word), "no {word} in: {error}");
            }
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn the_feature_brings_what_it_says() {
        assert!(has_openssl() || !cfg!(feature = "tls"));
    }

    #[test]
    fn brokers_are_checked_unless_an_option_says_otherwise() {
        let mut client = ClientConfig::new();
        sasl(Mechanism::ScramSha512, Some(Tls::default())).apply(&mut client);
        for (name, value) in [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanisms", "SCRAM-SHA-512"),
            ("enable.ssl.certificate.verification", "true"),
            ("ssl.endpoint.identification.algorithm", "https"),
        ] {
            assert_eq!(client.get(name), Some(value), "{name}");
        }
    }
}
