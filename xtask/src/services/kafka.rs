//! Apache Kafka from its jars: one node that is broker and controller, on Java 17.
//!
//! The jars come through Maven once and are kept in the cache folder, with the broker's settings
//! beside them: tests that kill a broker start brokers of their own from there. Acks are as users
//! have them; replication and the internal topics are as small as one node can have them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::apt;
use super::docker::Image;
use super::kind::Kind;
use super::owned::Owned;
use super::record::{Origin, Record};
use super::service::{Request, Service, free_port};
use crate::fail::{Doing, Result, fail};
use crate::workspace::cache_folder;
use crate::{interrupt, process, say};

/// What users run, and what SCRAM, KRaft and the new group protocol are complete in.
const VERSION: &str = "4.3.1";
/// The oldest Java that it runs on.
const JAVA: u32 = 17;
/// What brings Java and Maven on Debian and Ubuntu.
const PACKAGES: &[&str] = &["maven", "openjdk-17-jre-headless"];
/// Any 16 bytes; the same in every run, because a data folder never outlives its run.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";
/// A free port can be taken by somebody else before the broker has it.
const TRIES: u32 = 3;
/// A first start on a busy machine; usually 3 s.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The two artifacts that bring everything else. A newer log4j binding does not resolve.
const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sagabus</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>@VERSION@</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.25.4</version>
    </dependency>
  </dependencies>
</project>
"#;

/// Warnings on one line each, to the console.
const LOGGING: &str = "\
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1}: %m%n
";

/// `@PORT@`, `@CONTROLLER@` and `@DATA@` are filled in when a broker is started.
///
/// Short sessions let tests lose members quickly; a broker session of 2 s lets a killed broker
/// come back in 4 s instead of 12 s.
const SETTINGS: &str = "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:@CONTROLLER@
listeners=PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER@
advertised.listeners=PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER@
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=@DATA@
num.partitions=4
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=200
group.consumer.heartbeat.interval.ms=500
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.threads=1
num.network.threads=2
num.io.threads=2
num.replica.fetchers=1
background.threads=2
num.recovery.threads.per.data.dir=1
";

#[derive(Debug)]
pub(crate) struct Kafka;

impl Service for Kafka {
    fn kind(&self) -> Kind {
        Kind::Kafka
    }

    fn variable(&self) -> &'static str {
        "SAGABUS_KAFKA_BROKERS"
    }

    fn url(&self, port: u16) -> String {
        format!("127.0.0.1:{port}")
    }

    fn image(&self) -> Image {
        Image {
            name: "apache/kafka:4.3.1",
            version: "Apache Kafka 4.3.1",
            port: 9092,
            environment: CONTAINER,
            arguments: Vec::new(),
        }
    }

    fn answers(&self, address: SocketAddr) -> bool {
        // What every broker answers in every version: which versions it speaks.
        ask(address, 18, 0, &[]).is_ok()
    }

    fn addresses(&self, brokers: &str) -> Vec<(String, u16)> {
        let one = |broker: &str| {
            let (host, port) = broker.trim().rsplit_once(':')?;
            Some((host.to_owned(), port.parse().ok()?))
        };
        brokers.split(',').filter_map(one).collect()
    }

    fn more_variables(&self) -> Vec<(&'static str, String)> {
        let home = home().ok().filter(|home| home.is_dir());
        let told = |home: PathBuf| ("SAGABUS_KAFKA_HOME", home.display().to_string());
        home.map(told).into_iter().collect()
    }

    fn start_locally(&self, request: &Request<'_>) -> Result<Record> {
        have_java(request)?;
        let home = have_jars(request.log)?;
        start(&home, request)
    }
}

/// What the image needs to be told, because any variable replaces its own settings as a whole.
const CONTAINER: &[(&str, &str)] = &[
    ("KAFKA_NODE_ID", "1"),
    ("KAFKA_PROCESS_ROLES", "broker,controller"),
    ("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9093"),
    (
        "KAFKA_LISTENERS",
        "PLAINTEXT://:9092,CONTROLLER://localhost:9093",
    ),
    ("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://127.0.0.1:{port}"),
    (
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
        "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    ),
    ("KAFKA_INTER_BROKER_LISTENER_NAME", "PLAINTEXT"),
    ("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
    ("KAFKA_NUM_PARTITIONS", "4"),
    ("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false"),
    ("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1"),
    ("KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS", "4"),
    ("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1"),
    ("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1"),
    (
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR",
        "1",
    ),
    ("KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR", "1"),
    ("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0"),
    ("KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS", "1000"),
];

fn home() -> Result<PathBuf> {
    Ok(cache_folder()?.join(format!("kafka-{VERSION}")))
}

/// Finds Java and, where the jars are still to be fetched, Maven; installs them where we may.
fn have_java(request: &Request<'_>) -> Result<()> {
    let has_jars = home()?.is_dir();
    let is_complete = || {
        java_version().is_some_and(|version| version >= JAVA)
            && (has_jars || process::succeeds(Command::new("mvn").arg("--version")))
    };
    if !is_complete() && apt::is_here() && (apt::is_root() || request.install) {
        apt::install(PACKAGES, request.log)?;
    }
    if is_complete() {
        return Ok(());
    }
    fail(format!(
        "Java {JAVA} or Maven is not installed; type `{}` (or call this with `--install`), or set \
         SAGABUS_KAFKA_BROKERS, or start Docker",
        apt::one_command(PACKAGES)
    ))
}

fn java_version() -> Option<u32> {
    let shown = process::capture(Command::new("java").arg("--version")).ok()?;
    major_of(&shown)
}

/// `openjdk 17.0.21 2026-10-20` is 17.
fn major_of(shown: &str) -> Option<u32> {
    let number = shown.split_whitespace().nth(1)?;
    number.split(['.', '-', '+']).next()?.parse().ok()
}

/// Fetches the jars, unless they are there. A folder that is there is whole: it is made under
/// another name.
fn have_jars(log: &Path) -> Result<PathBuf> {
    let home = home()?;
    let cache = cache_folder()?;
    fs::create_dir_all(&cache).doing(format!("make {}", cache.display()))?;
    let lock = cache.join("kafka.lock");
    let lock = File::create(&lock).doing(format!("write {}", lock.display()))?;
    lock.lock()
        .doing("wait for another command that fetches Kafka")?;
    if !home.is_dir() {
        fetch(&home, log)?;
    }
    // Written each time, so that settings of this release and old jars go together.
    write(&home.join("log4j2.properties"), LOGGING)?;
    write(&home.join("server.properties"), SETTINGS)?;
    Ok(home)
}

fn fetch(home: &Path, log: &Path) -> Result<()> {
    let draft = home.with_extension("draft");
    if draft.exists() {
        fs::remove_dir_all(&draft).doing(format!("delete {}", draft.display()))?;
    }
    fs::create_dir_all(&draft).doing(format!("make {}", draft.display()))?;
    let pom = draft.join("pom.xml");
    write(&pom, &POM.replace("@VERSION@", VERSION))?;
    say::detail(format!(
        "fetching Apache Kafka {VERSION} by Maven, about 45 MB (log: {})",
        log.display()
    ));
    let mut maven = Command::new("mvn");
    maven.args(["-B", "-q", "-f"]).arg(&pom);
    maven.arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies");
    maven.arg("-DincludeScope=runtime");
    maven.arg(format!(
        "-DoutputDirectory={}",
        draft.join("libs").display()
    ));
    process::logged(&mut maven, log)?;
    fs::rename(&draft, home).doing(format!("make {}", home.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).doing(format!("write {}", path.display()))
}

fn start(home: &Path, request: &Request<'_>) -> Result<Record> {
    let data = Path::new("/var/tmp").join(request.name);
    let mut record = Record {
        origin: Origin::Host { process: None },
        version: format!("Apache Kafka {VERSION}"),
        port: 0,
        data: Some(data.clone()),
        mark: request.name.to_owned(),
        kept: false,
    };
    (request.announce)(&record)?;
    say::detail(format!(
        "{}: a new data folder in {}",
        record.version,
        data.display()
    ));
    let started = Instant::now();
    let mut attempt = 1;
    let (port, process) = loop {
        match start_once(home, &data, request) {
            Ok(running) => break running,
            Err(error) => {
                interrupt::check()?;
                if attempt == TRIES {
                    let said = process::tail(request.log, 10);
                    return fail(format!("{error}\nthe broker said:\n{said}"));
                }
                say::detail(format!("not started ({error}), trying another port"));
                attempt += 1;
            }
        }
    };
    record.port = port;
    record.origin = Origin::Host {
        process: Some(process),
    };
    say::detail(format!(
        "{}: started in {}",
        record.version,
        say::time(started.elapsed())
    ));
    Ok(record)
}

/// Formats a new data folder and starts a broker on free ports.
fn start_once(home: &Path, data: &Path, request: &Request<'_>) -> Result<(u16, Owned)> {
    for left in Owned::all_marked(request.name) {
        left.end(&[(rustix::process::Signal::KILL, Duration::from_secs(5))])?;
    }
    if data.exists() {
        fs::remove_dir_all(data).doing(format!("delete {}", data.display()))?;
    }
    fs::create_dir_all(data).doing(format!("make {}", data.display()))?;
    let port = free_port()?;
    let filled = SETTINGS
        .replace("@PORT@", &port.to_string())
        .replace("@CONTROLLER@", &free_port()?.to_string())
        .replace("@DATA@", &data.join("log").display().to_string());
    let settings = data.join("server.properties");
    write(&settings, &filled)?;

    let mut format = java(home, "-Xmx128m");
    format.args(["kafka.tools.StorageTool", "format", "--standalone"]);
    format.args(["-t", CLUSTER, "-c"]).arg(&settings);
    process::logged(&mut format, request.log)?;

    // In a session of its own, so that Ctrl-C in this terminal does not reach it.
    let mut server = Command::new("setsid");
    server
        .arg("--fork")
        .arg("java")
        .args(java_arguments(home, "-Xmx512m"));
    server.arg("-XX:+ExitOnOutOfMemoryError");
    server.arg(format!("-Dsagabus.data={}", data.display()));
    server.arg("kafka.Kafka").arg(&settings);
    process::logged(&mut server, request.log)?;
    wait_until_ready(port, request.name).map(|process| (port, process))
}

fn java(home: &Path, heap: &str) -> Command {
    let mut command = Command::new("java");
    command.args(java_arguments(home, heap));
    command
}

fn java_arguments(home: &Path, heap: &str) -> [String; 4] {
    let logging = home.join("log4j2.properties");
    [
        heap.to_owned(),
        format!("-Dlog4j2.configurationFile={}", logging.display()),
        "-cp".to_owned(),
        home.join("libs/*").display().to_string(),
    ]
}

/// Waits until the broker answers and coordinates groups: the first question for a coordinator
/// makes the topic of the offsets, which would cost the first test two seconds.
fn wait_until_ready(port: u16, mark: &str) -> Result<Owned> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        interrupt::check()?;
        let process = Owned::all_marked(mark).pop();
        if let Some(process) = &process
            && coordinates_groups(address)
        {
            return Ok(process.clone());
        }
        if process.is_none() {
            return fail("the broker has ended");
        }
        if Instant::now() > deadline {
            let within = say::time(READY_WITHIN);
            return fail(format!("the broker is not ready within {within}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn coordinates_groups(address: SocketAddr) -> bool {
    // FindCoordinator, version 1: the group's name with its length, and 0 for "group".
    let answer = ask(address, 10, 1, b"\0\x07sagabus\0");
    // A throttle time of four bytes, then an error code, 0 for none.
    answer.is_ok_and(|answer| answer.get(4..6) == Some(&[0, 0]))
}

/// Asks a broker one thing; returns what stands behind the answer's header. At most a second long.
fn ask(address: SocketAddr, api: i16, version: i16, body: &[u8]) -> io::Result<Vec<u8>> {
    const NUMBER: i32 = 7;
    /// No answer to our questions is longer than a few hundred bytes.
    const ANSWER_BYTES_MAX: i32 = 64 * 1024;
    let patience = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut request = Vec::new();
    request.extend(api.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(NUMBER.to_be_bytes());
    request.extend(b"\0\x05xtask");
    request.extend(body);
    let bytes = i32::try_from(request.len()).unwrap_or(i32::MAX);
    stream.write_all(&[&bytes.to_be_bytes()[..], &request].concat())?;

    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    let number =
        |at: usize| i32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if number(4) != NUMBER || !(4..=ANSWER_BYTES_MAX).contains(&number(0)) {
        return Err(io::Error::other("the answer is not Kafka's"));
    }
    let mut answer = vec![0; usize::try_from(number(0) - 4).unwrap_or(0)];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn java_says_its_version_in_its_second_word() {
        assert_eq!(major_of("openjdk 17.0.21 2026-10-20\nOpenJDK .."), Some(17));
        assert_eq!(major_of("openjdk 21-ea 2023-09-19"), Some(21));
        assert_eq!(major_of("nonsense"), None);
    }

    #[test]
    fn brokers_are_a_list_of_hosts_and_ports() {
        let found = Kafka.addresses("127.0.0.1:9092, kafka.example:9093,broken");
        let expected = [("127.0.0.1", 9092), ("kafka.example", 9093)];
        assert_eq!(found, expected.map(|(host, port)| (host.to_owned(), port)));
    }

    #[test]
    fn every_place_in_the_settings_is_filled_in() {
        let places = SETTINGS.matches('@').count();
        let known: usize = ["@PORT@", "@CONTROLLER@", "@DATA@"]
            .iter()
            .map(|place| SETTINGS.matches(place).count() * 2)
            .sum();
        assert_eq!(places, known);
    }

    #[test]
    fn a_silent_or_absent_broker_does_not_answer() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!Kafka.answers(address), "accepts and says nothing");
        drop(listener);
        assert!(!Kafka.answers(address), "refuses");
    }

    #[test]
    fn what_answers_in_another_protocol_is_no_broker() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let other = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
        });
        assert!(!Kafka.answers(address));
        other.join().unwrap();
    }
}
