//! A broker that speaks TLS, with certificates of an authority that was made for the test, and lets
//! in who knows a password or shows a certificate.

use std::path::PathBuf;
use std::time::Duration;

use sagabus_core::error::{TransportError, chain};
use sagabus_core::id::StoreId;
use sagabus_core::memory::MemoryStore;
use sagabus_core::transport::Transport;
use sagabus_kafka::{ClientCertificate, Kafka, KafkaConfig, Mechanism, Security, Tls};
use sagabus_testkit::authority::{Authority, Certificate};
use sagabus_testkit::bus::parcels::{Pack, note, pack, quiet};
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::kafka_broker::{Asks, Door, KafkaBroker};
use sagabus_testkit::service::block_on;
use tokio::time::Instant;

use crate::bus::builder;
use crate::cluster::{own, prefix};
use crate::refused::{says, spec};

const USERS: [(&str, &str); 2] = [("admin", "hunter1"), ("orders", "hunter2")];
/// What the broker's certificates are for.
const HERE: [&str; 2] = ["127.0.0.1", "localhost"];

/// A folder for files of PEM, gone at the end.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let name = format!("sagabus-kafka-tls-{}", prefix());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        Self(folder)
    }

    fn write(&self, name: &str, pem: &str) -> String {
        let file = self.0.join(name);
        std::fs::write(&file, pem).expect("a file can be written");
        file.display().to_string()
    }

    fn client(&self, name: &str, of: &Certificate) -> ClientCertificate {
        let chain = self.write(&format!("{name}.crt"), &of.pem);
        ClientCertificate::new(chain, self.write(&format!("{name}.key"), &of.key_pem))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // A folder too many in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker with a door of each kind, and what its clients need.
struct Scene {
    broker: KafkaBroker,
    files: Files,
    authority: Authority,
}

impl Scene {
    fn new() -> Option<Self> {
        let authority = Authority::new("ours");
        let own = authority.certify(&HERE);
        let misnamed = authority.certify(&["elsewhere.example"]);
        let expired = authority.certify_too_late(&HERE);
        let door = |name, certificate, asks| Door {
            name,
            certificate,
            asks,
        };
        let doors = [
            door("LOGIN", &own, Asks::Password),
            door("MUTUAL", &own, Asks::CertificateOf(&authority)),
            door("MISNAMED", &misnamed, Asks::Nothing),
            door("EXPIRED", &expired, Asks::Nothing),
        ];
        let broker = KafkaBroker::start_with_doors(&USERS, &doors)?;
        Some(Self {
            broker,
            files: Files::new(),
            authority,
        })
    }

    /// Trusts the authority, and shows nothing.
    fn trusting(&self) -> Tls {
        let authorities = self.files.write("ours.pem", self.authority.pem());
        Tls {
            authorities: Some(authorities),
            certificate: None,
        }
    }

    fn showing(&self, certificate: ClientCertificate) -> Tls {
        Tls {
            certificate: Some(certificate),
            ..self.trusting()
        }
    }

    fn at(&self, door: &str, security: Security) -> KafkaConfig {
        let mut config = own(&self.broker.door(door).to_string());
        config.request_timeout = Duration::from_secs(5);
        config.security = security;
        config
    }

    fn login(&self, mechanism: Mechanism, user: &str, password: &str, tls: Tls) -> KafkaConfig {
        let security = Security::Sasl {
            mechanism,
            user: user.to_owned(),
            password: password.into(),
            tls: Some(tls),
        };
        self.at("LOGIN", security)
    }
}

async fn declare(config: KafkaConfig) -> Result<(), TransportError> {
    let transport = Kafka::new(config);
    transport.declare(StoreId::new(), &[spec()]).await
}

#[test]
fn messages_travel_by_tls_for_who_has_a_password_or_a_certificate() {
    let Some(scene) = Scene::new() else { return };
    let own = scene.authority.certify(&["admin"]);
    let shown = scene.files.client("admin", &own);
    block_on(async {
        let by = |mechanism| scene.login(mechanism, "admin", "hunter1", scene.trusting());
        let config = by(Mechanism::ScramSha256);
        let (store, log) = (MemoryStore::new(), Log::default());
        let builder = builder(&config, &store, &log).endpoint("packing", |e| e.handle(pack));
        let host = start(builder.endpoint("audit", |e| e.handle(note))).await;
        for n in 0..50 {
            host.bus().send(Pack { n }).await.expect("it is stored");
        }
        assert_eq!(log.wait_for(100).await.len(), 100);
        quiet(&store).await;
        stop(host).await;

        let mutual = scene.at("MUTUAL", Security::Tls(scene.showing(shown)));
        for config in [by(Mechanism::ScramSha512), by(Mechanism::Plain), mutual] {
            let declared = declare(config).await;
            declared.expect("the admin may, however he came in");
        }
    });
}

/// Each of these is found within the time of one question, and none is tried for ever.
#[test]
fn who_is_not_to_be_trusted_or_not_let_in_is_told_what_to_do() {
    let Some(scene) = Scene::new() else { return };
    let other = Authority::new("theirs");
    let stranger = other.certify(&["admin"]);
    let stranger = scene.files.client("stranger", &stranger);
    let orders = scene.authority.certify(&["orders"]);
    let orders = scene.files.client("orders", &orders);
    let theirs = Tls {
        authorities: Some(scene.files.write("theirs.pem", other.pem())),
        certificate: None,
    };
    let tls = || scene.trusting();
    let scram = Mechanism::ScramSha256;
    let open = |door, tls| scene.at(door, Security::Tls(tls));
    let cases: [(&str, KafkaConfig, &[&str]); 11] = [
        (
            "wrong password",
            scene.login(scram, "orders", "wrong", tls()),
            &["do not let user `orders` in", "[SB0218]"],
        ),
        (
            "nobody of this name",
            scene.login(Mechanism::ScramSha512, "nobody", "hunter2", tls()),
            &["do not let user `nobody` in", "[SB0218]"],
        ),
        (
            "wrong password, as it is",
            scene.login(Mechanism::Plain, "orders", "wrong", tls()),
            &["do not let user `orders` in", "[SB0218]"],
        ),
        (
            "no permission",
            scene.login(scram, "orders", "hunter2", tls()),
            &["orders.endpoint", "allow this user", "[SB0220]"],
        ),
        (
            "a certificate without permission",
            open("MUTUAL", scene.showing(orders)),
            &["orders.endpoint", "allow this user", "[SB0220]"],
        ),
        (
            "another authority",
            scene.login(scram, "admin", "hunter1", theirs),
            &["certificate", "`authorities`", "[SB0221]"],
        ),
        (
            "the system's authorities",
            scene.login(scram, "admin", "hunter1", Tls::default()),
            &["certificate", "`authorities`", "[SB0221]"],
        ),
        (
            "another name",
            open("MISNAMED", tls()),
            &["certificate", "[SB0221]"],
        ),
        (
            "run out",
            open("EXPIRED", tls()),
            &["certificate", "[SB0221]"],
        ),
        (
            "no certificate",
            open("MUTUAL", tls()),
            &["`certificate` of `Tls`", "[SB0221]"],
        ),
        (
            "a certificate of a stranger",
            open("MUTUAL", scene.showing(stranger)),
            &["`certificate` of `Tls`", "[SB0221]"],
        ),
    ];
    block_on(async {
        for (what, config, words) in cases {
            let brokers = config.brokers.clone();
            let started = Instant::now();
            let error = declare(config).await.expect_err(what);
            let text = chain(&error);
            println!("{what}: {text}");
            says(&text, words);
            assert!(
                text.contains(&brokers) || words[0] == "orders.endpoint",
                "{text}"
            );
            assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        }
    });
}

/// One side speaks TLS and the other does not.
#[test]
fn who_speaks_another_protocol_is_told_so() {
    let Some(scene) = Scene::new() else { return };
    block_on(async {
        let plain = scene.at("LOGIN", Security::Plain);
        let error = chain(&declare(plain).await.expect_err("it wants TLS"));
        println!("plain to TLS: {error}");
        says(&error, &["check `security`", "[SB0221]"]);
        let mut tls = scene.at("LOGIN", Security::Tls(scene.trusting()));
        tls.brokers = scene.broker.address().to_string();
        let error = chain(&declare(tls).await.expect_err("it has no TLS"));
        println!("TLS to plain: {error}");
        says(&error, &["`security`", "[SB0221]"]);
        let unnamed = scene.at("LOGIN", Security::Tls(scene.trusting()));
        let error = chain(&declare(unnamed).await.expect_err("it wants a log-in"));
        println!("no log-in: {error}");
        says(&error, &["`security`", "[SB0221]"]);
    });
}

#[test]
fn files_that_are_missing_or_no_certificates_are_named() {
    let files = Files::new();
    let authority = Authority::new("ours");
    let own = authority.certify(&["orders"]);
    let stranger = authority.certify(&["other"]);
    let with = |tls| {
        let mut config = own_config();
        config.security = Security::Tls(tls);
        config
    };
    let nowhere = || "/nowhere/ours.pem".to_owned();
    let authorities = |file| Tls {
        authorities: Some(file),
        certificate: None,
    };
    let showing = |certificate| Tls {
        authorities: None,
        certificate: Some(certificate),
    };
    let good = files.client("good", &own);
    let mut mixed = files.client("mixed", &stranger);
    mixed.key.clone_from(&good.key);
    let lost = ClientCertificate {
        key: nowhere(),
        ..good.clone()
    };
    let cases: [(Tls, &[&str]); 5] = [
        (
            authorities(nowhere()),
            &["`/nowhere/ours.pem`, the file of `authorities`", "[SB0221]"],
        ),
        (
            showing(lost),
            &["`/nowhere/ours.pem`, the file of `key`", "[SB0221]"],
        ),
        (
            authorities(files.write("noise.pem", "noise")),
            &["check the files of `Tls`", "[SB0221]"],
        ),
        (showing(mixed), &["check the files of `Tls`", "[SB0221]"]),
        (
            showing(ClientCertificate {
                key: files.write("noise.key", "noise"),
                ..good
            }),
            &["check the files of `Tls`", "[SB0221]"],
        ),
    ];
    block_on(async {
        for (tls, words) in cases {
            let error = declare(with(tls)).await.expect_err("it cannot be used");
            println!("{}", chain(&error));
            says(&chain(&error), words);
        }
    });
}

fn own_config() -> KafkaConfig {
    let mut config = own("127.0.0.1:1");
    config.request_timeout = Duration::from_secs(2);
    config
}
