//! A Kafka broker of a test's own, to be killed and started again. It is made from what
//! `cargo xtask services` keeps for this: the jars and the settings of the shared broker.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::authority::{Authority, Certificate};

/// Names the folder with the jars and the settings.
const HOME: &str = "SAGABUS_KAFKA_HOME";
/// A start on a machine with much else to do.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Any 16 bytes: the data folder is new.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// A way in by TLS, beside the plain one.
#[derive(Debug)]
pub struct Door<'a> {
    /// What it is called: capital letters.
    pub name: &'static str,
    /// What it shows to who comes.
    pub certificate: &'a Certificate,
    /// What it asks of who comes.
    pub asks: Asks<'a>,
}

/// What a door asks of who comes.
#[derive(Debug)]
pub enum Asks<'a> {
    /// Nothing.
    Nothing,
    /// A user's name and password, by PLAIN or SCRAM.
    Password,
    /// A certificate of this authority. Who has one is called as its subject is (`CN=..`).
    CertificateOf(&'a Authority),
}

/// What a broker is made with beside the settings of the shared one.
#[derive(Default)]
struct Plan {
    proxy: Option<u16>,
    settings: String,
    /// Users that log in by a challenge, as the storage tool wants them.
    users: Vec<String>,
    doors: Vec<(&'static str, u16)>,
    is_guarded: bool,
}

/// A broker; its process and its data are gone when this is dropped.
#[derive(Debug)]
pub struct KafkaBroker {
    home: PathBuf,
    data: PathBuf,
    port: u16,
    /// Where clients come in that do not go through the proxy.
    direct: u16,
    /// It says nothing about groups to somebody who has not logged in.
    is_guarded: bool,
    /// Where each of its doors is.
    doors: Vec<(&'static str, u16)>,
    process: Option<Child>,
}

impl KafkaBroker {
    /// Starts a broker with a new data folder; `None`, with a word, where there is nothing to make
    /// one of.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Self> {
        Self::start_with(Plan::default())
    }

    /// Starts a broker that sends its clients to another port: a proxy's. Those that come in at
    /// [`direct`](Self::direct) stay there.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_behind(proxy: u16) -> Option<Self> {
        Self::start_with(Plan {
            proxy: Some(proxy),
            ..Plan::default()
        })
    }

    /// Starts a broker that lets in users of these names and passwords alone, and of these only
    /// the first may do anything.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_guarded(users: &[(&str, &str)]) -> Option<Self> {
        let (admin, password) = users.first()?;
        let login = plain_login(users);
        let settings = format!(
            "listener.security.protocol.map=PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             sasl.enabled.mechanisms=PLAIN\n\
             sasl.mechanism.inter.broker.protocol=PLAIN\n\
             listener.name.plaintext.plain.sasl.jaas.config={login} username=\"{admin}\" \
             password=\"{password}\";\n\
             {}",
            governed(admin)
        );
        Self::start_with(Plan {
            settings,
            is_guarded: true,
            ..Plan::default()
        })
    }

    /// Starts a broker with doors by TLS. Of the users, with their passwords, and of those who show
    /// a certificate, only the one with the first user's name may do anything.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_with_doors(users: &[(&str, &str)], doors: &[Door<'_>]) -> Option<Self> {
        let (admin, _) = users.first()?;
        let ports: Vec<_> = doors.iter().map(|door| (door.name, free_port())).collect();
        let protocols = doors.iter().map(|door| (door.name, door.protocol()));
        let protocols = protocols.map(|(name, protocol)| format!(",{name}:{protocol}"));
        let mut settings = governed(admin);
        settings += "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT";
        settings.extend(protocols);
        settings += "\n";
        for door in doors {
            settings.push_str(&door.settings(users));
        }
        let by_challenge = |(name, password): &(&str, &str)| {
            ["SCRAM-SHA-256", "SCRAM-SHA-512"]
                .map(|how| format!("{how}=[name=\"{name}\",password=\"{password}\"]"))
        };
        Self::start_with(Plan {
            settings,
            users: users.iter().flat_map(by_challenge).collect(),
            doors: ports,
            ..Plan::default()
        })
    }

    fn start_with(plan: Plan) -> Option<Self> {
        let Some(home) = std::env::var_os(HOME) else {
            crate::service::skip(&format!("{HOME} is not set: no broker to kill"));
            return None;
        };
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sagabus-kafka-test-{}-{number}", std::process::id());
        let mut broker = Self {
            home: home.into(),
            data: std::env::temp_dir().join(name),
            port: free_port(),
            direct: free_port(),
            is_guarded: plan.is_guarded,
            doors: plan.doors.clone(),
            process: None,
        };
        broker.format(&plan);
        broker.restart();
        Some(broker)
    }

    /// Returns where a door is.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn door(&self, name: &str) -> SocketAddr {
        let found = self.doors.iter().find(|(one, _)| *one == name);
        let (_, port) = found.expect("there is such a door");
        SocketAddr::from((Ipv4Addr::LOCALHOST, *port))
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Returns where it listens for clients that are not sent to the proxy.
    pub fn direct(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.direct))
    }

    /// Kills it, as a machine that loses its power would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("our own broker can be killed");
            process.wait().expect("it ends");
        }
    }

    /// Starts it on its port and its data, and returns once it coordinates groups.
    ///
    /// # Panics
    /// When it does not come up within a minute.
    pub fn restart(&mut self) {
        self.kill();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.data.join("broker.log"))
            .expect("a log can be written");
        let mut command = self.java("-Xmx384m");
        command.arg("kafka.Kafka").arg(self.settings());
        command
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a log is shared"));
        self.process = Some(command.stdout(log).spawn().expect("Java can be started"));
        let deadline = Instant::now() + READY_WITHIN;
        while !self.coordinates_groups() {
            assert!(
                Instant::now() < deadline,
                "the broker is not ready: {}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last of what it said, for messages.
    fn said(&self) -> String {
        let text = fs::read_to_string(self.data.join("broker.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    fn settings(&self) -> PathBuf {
        self.data.join("server.properties")
    }

    fn format(&self, plan: &Plan) {
        fs::create_dir_all(&self.data).expect("a temporary folder can be made");
        let template = fs::read_to_string(self.home.join("server.properties"));
        let template = template.expect("the settings of the shared broker can be read");
        let log = self.data.join("log");
        let mut filled = template
            .replace("@PORT@", &self.port.to_string())
            .replace("@CONTROLLER@", &free_port().to_string())
            .replace("@DATA@", &log.display().to_string());
        if let Some(proxy) = plan.proxy {
            filled = self.advertising(proxy, &filled);
        }
        for (name, port) in &plan.doors {
            let door = format!(",{name}://127.0.0.1:{port}");
            let plain = format!("listeners=PLAINTEXT://127.0.0.1:{}", self.port);
            filled = filled.replace(&plain, &(plain.clone() + &door));
        }
        // The last of a setting counts.
        filled.push_str(&plan.settings);
        fs::write(self.settings(), filled).expect("a file can be written");
        let mut command = self.java("-Xmx128m");
        command.args([
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            CLUSTER,
        ]);
        for user in &plan.users {
            command.args(["--add-scram", user]);
        }
        command.arg("-c").arg(self.settings()).stdout(Stdio::null());
        let formatted = command.status().expect("Java can be started");
        assert!(formatted.success(), "the data folder cannot be formatted");
    }

    /// Settings of a broker that sends its clients to a proxy.
    fn advertising(&self, proxy: u16, settings: &str) -> String {
        let place = |port| format!("listeners=PLAINTEXT://127.0.0.1:{port}");
        let direct = format!(",DIRECT://127.0.0.1:{}", self.direct);
        let own = place(self.port);
        let (both, sent_to) = (own.clone() + &direct, place(proxy) + &direct);
        let advertised = |listeners: &str| format!("advertised.{listeners}");
        settings
            .replace(&own, &both)
            .replace(&advertised(&both), &advertised(&sent_to))
            .replace(
                "PLAINTEXT:PLAINTEXT",
                "PLAINTEXT:PLAINTEXT,DIRECT:PLAINTEXT",
            )
    }

    fn java(&self, heap: &str) -> Command {
        let logging = self.home.join("log4j2.properties");
        let mut command = Command::new("java");
        command.arg(heap);
        command.arg(format!("-Dlog4j2.configurationFile={}", logging.display()));
        command.arg("-cp").arg(libs(&self.home));
        command
    }

    /// Asks who coordinates a group, which makes the topic of the offsets on a new broker.
    fn coordinates_groups(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let patience = Duration::from_secs(1);
            let mut stream = TcpStream::connect_timeout(&self.address(), patience)?;
            stream.set_read_timeout(Some(patience))?;
            // FindCoordinator, version 1, number 7, client "t", group "t", kind 0; or ApiVersions,
            // version 0.
            let request: &[u8] = if self.is_guarded {
                b"\0\x12\0\0\0\0\0\x07\0\x01t"
            } else {
                b"\0\x0a\0\x01\0\0\0\x07\0\x01t\0\x01t\0"
            };
            let bytes = u32::try_from(request.len()).expect("it is short");
            stream.write_all(&[&bytes.to_be_bytes()[..], request].concat())?;
            // Length, number, throttle time, error code; without the time in the other answer.
            let mut answer = [0; 14];
            stream.read_exact(&mut answer)?;
            let code = if self.is_guarded {
                &answer[8..10]
            } else {
                &answer[12..]
            };
            Ok(code == [0, 0])
        };
        ask().unwrap_or(false)
    }
}

impl Drop for KafkaBroker {
    fn drop(&mut self) {
        self.kill();
        // A folder too many in the temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.data);
    }
}

impl Door<'_> {
    fn settings(&self, users: &[(&str, &str)]) -> String {
        let of = |setting: &str, value: &str| {
            let name = self.name.to_lowercase();
            format!("listener.name.{name}.{setting}={value}\n")
        };
        let mut settings = of("ssl.keystore.type", "PEM")
            + &of(
                "ssl.keystore.certificate.chain",
                &one_line(&self.certificate.pem),
            )
            + &of("ssl.keystore.key", &one_line(&self.certificate.key_pem));
        match self.asks {
            Asks::Nothing => {}
            Asks::CertificateOf(authority) => {
                settings += &of("ssl.client.auth", "required");
                settings += &of("ssl.truststore.type", "PEM");
                settings += &of("ssl.truststore.certificates", &one_line(authority.pem()));
            }
            Asks::Password => {
                let login = plain_login(users) + ";";
                settings += &of(
                    "sasl.enabled.mechanisms",
                    "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                );
                settings += &of("plain.sasl.jaas.config", &login);
                for how in ["scram-sha-256", "scram-sha-512"] {
                    let module =
                        "org.apache.kafka.common.security.scram.ScramLoginModule required;";
                    settings += &of(&format!("{how}.sasl.jaas.config"), module);
                }
            }
        }
        settings
    }

    fn protocol(&self) -> &'static str {
        match self.asks {
            Asks::Password => "SASL_SSL",
            Asks::Nothing | Asks::CertificateOf(_) => "SSL",
        }
    }
}

/// Who may do anything; everybody else may nothing.
fn governed(admin: &str) -> String {
    format!(
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:{admin};User:CN={admin};User:ANONYMOUS\n"
    )
}

/// The users whom PLAIN lets in.
fn plain_login(users: &[(&str, &str)]) -> String {
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    let known = users
        .iter()
        .map(|(name, password)| format!(" user_{name}=\"{password}\""));
    module.to_owned() + &known.collect::<String>()
}

/// A text of several lines, as a file of settings has it.
fn one_line(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "\\n")
}

fn libs(home: &Path) -> String {
    home.join("libs/*").display().to_string()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
