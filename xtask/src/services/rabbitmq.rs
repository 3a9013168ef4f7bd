//! RabbitMQ: 4.0 from a Debian 13 root folder by default, else the host's (3.10 or newer).
//!
//! A broker is run by a small script that is written to the cache folder. It hides where the
//! packages are, so tests that kill a broker start brokers of their own with it. The node's name is
//! its data folder's; it has an `epmd` of its own on a port of our own, and neither listens on
//! anything but loopback.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::apt;
use super::debian::{self, RootFolder};
use super::docker::Image;
use super::kind::Kind;
use super::owned::Owned;
use super::record::{Origin, Record};
use super::service::{Request, Service, Source, free_port};
use crate::fail::{Doing, Error, Result, fail};
use crate::process::{quoted, word};
use crate::workspace::cache_folder;
use crate::{interrupt, process, say};

/// The oldest version that the transport supports, as major and minor.
const OLDEST: (u32, u32) = (3, 10);
/// What brings it on Debian and Ubuntu.
const PACKAGES: &[&str] = &["rabbitmq-server"];
/// A free port can be taken by somebody else before the broker has it.
const TRIES: u32 = 3;
/// A first start on a busy machine; usually 4 s.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// The broker's own greeting: protocol AMQP, id 0, version 0.9.1.
const GREETING: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// Runs in the place of the packages: makes the data folder and becomes the broker or its tool.
///
/// `-noinput` is given by us because the flag that saves a shell between us and the server leaves
/// it out. The mark on the command line is how the process is found again.
const INSIDE: &str = r#"set -e
verb=$1; data=$2; shift 2
node=$(basename "$data")@localhost
clean="env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=$data \
ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_NODENAME=$node"
case $verb in
serve)
    port=$1; dist=$2; epmd=$3
    mkdir -p "$data"; cd "$data"
    [ -f .erlang.cookie ] || printf sagabus-for-tests > .erlang.cookie
    chmod 400 .erlang.cookie
    cat > rabbitmq.conf <<CONF
listeners.tcp.1 = 127.0.0.1:$port
log.file = false
log.console = true
log.console.level = warning
CONF
    echo '[].' > plugins
    exec $clean ERL_EPMD_PORT=$epmd RABBITMQ_ALLOW_INPUT=1 RABBITMQ_DIST_PORT=$dist \
        RABBITMQ_CONFIG_FILE="$data/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$data/plugins" \
        RABBITMQ_MNESIA_BASE="$data/db" RABBITMQ_LOG_BASE="$data/log" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
        @PROGRAMS@/rabbitmq-server -noinput -mark "$data" ;;
ctl)
    epmd=$1; shift
    exec $clean ERL_EPMD_PORT=$epmd @PROGRAMS@/rabbitmqctl -q -n "$node" "$@" ;;
remove)
    rm -rf "$data" ;;
esac
"#;

#[derive(Debug)]
pub(crate) struct Rabbitmq;

impl Service for Rabbitmq {
    fn kind(&self) -> Kind {
        Kind::Rabbitmq
    }

    fn variable(&self) -> &'static str {
        "SAGABUS_RABBITMQ_URL"
    }

    fn url(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}")
    }

    fn image(&self) -> Image {
        Image {
            name: "rabbitmq:4",
            version: "RabbitMQ 4",
            port: 5672,
            environment: &[],
            arguments: Vec::new(),
        }
    }

    fn answers(&self, address: SocketAddr) -> bool {
        let patience = Duration::from_secs(1);
        let ask = || -> std::io::Result<[u8; 11]> {
            let mut stream = TcpStream::connect_timeout(&address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(GREETING)?;
            let mut answer = [0; 11];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        };
        // A method frame on channel 0 whose method is connection.start.
        ask().is_ok_and(|answer| answer[..3] == [1, 0, 0] && answer[7..] == [0, 10, 0, 10])
    }

    fn more_variables(&self) -> Vec<(&'static str, String)> {
        let script = script().ok().filter(|script| script.is_file());
        let told = |script: PathBuf| ("SAGABUS_RABBITMQ_SCRIPT", script.display().to_string());
        script.map(told).into_iter().collect()
    }

    fn start_locally(&self, request: &Request<'_>) -> Result<Record> {
        let place = match request.source {
            Source::Host => Place::on_host(request)?,
            Source::Debian13 => Place::in_debian(request)?,
            Source::Auto | Source::Docker => match debian::obstacle() {
                None => Place::in_debian(request).or_else(|error| match error {
                    Error::Interrupted => Err(error),
                    Error::Failed(why) => fall_back(&why, request),
                })?,
                Some(why) => fall_back(why, request)?,
            },
        };
        start(&place, request)
    }
}

fn fall_back(why: &str, request: &Request<'_>) -> Result<Place> {
    say::detail(format!("no RabbitMQ 4 from a Debian 13 root folder: {why}"));
    say::detail("using the packages of this machine instead");
    Place::on_host(request)
}

/// Where the programs are and how they are reached.
#[derive(Debug)]
struct Place {
    version: String,
    /// The folder of the programs, in their place.
    programs: PathBuf,
    /// Words before `sh -c INSIDE sh VERB DATA ..`, quoted for a shell.
    enter: String,
    folder: Option<RootFolder>,
}

impl Place {
    fn in_debian(request: &Request<'_>) -> Result<Self> {
        let folder = RootFolder::with(PACKAGES, request.log)?;
        let programs = PathBuf::from("/usr/lib/rabbitmq/bin");
        let Some(version) = version_in(&folder.outside(Path::new("/usr/lib/rabbitmq/lib"))) else {
            return fail("no RabbitMQ in the Debian 13 root folder");
        };
        let entering = folder.command("rabbitmq", Path::new("sh"));
        Ok(Self {
            version,
            programs,
            enter: quoted(&entering),
            folder: Some(folder),
        })
    }

    fn on_host(request: &Request<'_>) -> Result<Self> {
        let libraries = Path::new("/usr/lib/rabbitmq/lib");
        if version_in(libraries).is_none() && apt::is_here() && (apt::is_root() || request.install)
        {
            apt::install(PACKAGES, request.log)?;
        }
        let Some(version) = version_in(libraries) else {
            return fail(format!(
                "RabbitMQ is not installed; type `{}` (or call this with `--install`), or set \
                 SAGABUS_RABBITMQ_URL, or start Docker",
                apt::one_command(PACKAGES)
            ));
        };
        if parse_version(&version).is_none_or(|found| found < OLDEST) {
            return fail(format!(
                "RabbitMQ {version} is older than {}.{}; set SAGABUS_RABBITMQ_URL to a newer \
                 broker, or start Docker",
                OLDEST.0, OLDEST.1
            ));
        }
        Ok(Self {
            version,
            programs: PathBuf::from("/usr/lib/rabbitmq/bin"),
            enter: "sh".to_owned(),
            folder: None,
        })
    }

    /// The data folder as the broker sees it and as the machine sees it.
    fn data(&self, name: &str) -> (PathBuf, PathBuf) {
        if let Some(folder) = &self.folder {
            let inside = Path::new(debian::DATA).join(name);
            let outside = folder.outside(&inside);
            (inside, outside)
        } else {
            let data = Path::new("/var/tmp").join(name);
            (data.clone(), data)
        }
    }

    fn origin(&self, process: Option<Owned>) -> Origin {
        match self.folder {
            Some(_) => Origin::Debian13 { process },
            None => Origin::Host { process },
        }
    }

    /// Writes the script that runs brokers here.
    fn write_script(&self) -> Result<PathBuf> {
        let script = script()?;
        let (data, _) = self.data("");
        let inside = INSIDE.replace("@PROGRAMS@", &self.programs.display().to_string());
        let text = format!(
            "#!/bin/sh\n\
             # Runs a RabbitMQ broker for tests, in the foreground; written by `cargo xtask`.\n\
             # serve NAME PORT DISTRIBUTION-PORT EPMD-PORT | ctl NAME EPMD-PORT .. | remove NAME\n\
             verb=$1; name=$2; shift 2\n\
             exec {} -c {} sh \"$verb\" {}\"$name\" \"$@\"\n",
            self.enter,
            word(&inside),
            word(&format!("{}/", data.display()).replace("//", "/")),
        );
        fs::write(&script, text).doing(format!("write {}", script.display()))?;
        Ok(script)
    }
}

fn script() -> Result<PathBuf> {
    Ok(cache_folder()?.join("rabbitmq.sh"))
}

/// The version by the folder `rabbitmq_server-4.0.5`.
fn version_in(libraries: &Path) -> Option<String> {
    let entries = fs::read_dir(libraries).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut versions: Vec<String> = names
        .filter_map(|name| name.strip_prefix("rabbitmq_server-").map(str::to_owned))
        .collect();
    versions.sort_by_key(|version| parse_version(version));
    versions.pop()
}

fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn start(place: &Place, request: &Request<'_>) -> Result<Record> {
    let (_, outside) = place.data(request.name);
    let mut record = Record {
        origin: place.origin(None),
        version: format!("RabbitMQ {}", place.version),
        port: 0,
        data: Some(outside.clone()),
        mark: request.name.to_owned(),
        kept: false,
    };
    (request.announce)(&record)?;
    say::detail(format!(
        "{}: a new data folder in {}",
        record.version,
        outside.display()
    ));
    let script = place.write_script()?;
    let started = Instant::now();
    let mut attempt = 1;
    let (port, process) = loop {
        match start_once(&script, request) {
            Ok(running) => break running,
            Err(error) => {
                interrupt::check()?;
                if attempt == TRIES {
                    let said = process::tail(request.log, 10);
                    return fail(format!("{error}\nthe broker said:\n{said}"));
                }
                say::detail(format!("not started ({error}), trying other ports"));
                attempt += 1;
            }
        }
    };
    record.port = port;
    record.origin = place.origin(Some(process));
    say::detail(format!(
        "{}: started in {}",
        record.version,
        say::time(started.elapsed())
    ));
    Ok(record)
}

/// Starts a broker on free ports, in a session of its own so that Ctrl-C does not reach it.
fn start_once(script: &Path, request: &Request<'_>) -> Result<(u16, Owned)> {
    for left in Owned::all_left_by(request.name) {
        left.end(&[(rustix::process::Signal::KILL, Duration::from_secs(5))])?;
    }
    let port = free_port()?;
    let mut server = Command::new("setsid");
    server.arg("--fork").arg("sh").arg(script);
    server.arg("serve").arg(request.name).arg(port.to_string());
    server.arg(free_port()?.to_string());
    server.arg(free_port()?.to_string());
    process::logged(&mut server, request.log)?;
    wait_until_ready(port, request.name).map(|process| (port, process))
}

fn wait_until_ready(port: u16, mark: &str) -> Result<Owned> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let started = Instant::now();
    loop {
        interrupt::check()?;
        let process = Owned::all_marked(mark).pop();
        match process {
            Some(process) if Rabbitmq.answers(address) => return Ok(process),
            // The shell in between has its last word before the server has its first.
            None if started.elapsed() > Duration::from_secs(5) => {
                return fail("the broker has ended");
            }
            _ => {}
        }
        if started.elapsed() > READY_WITHIN {
            let within = say::time(READY_WITHIN);
            return fail(format!("the broker is not ready within {within}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(parse_version("3.10.8") >= Some(OLDEST));
        assert!(parse_version("3.9.13") < Some(OLDEST));
        assert!(parse_version("4.0.5") > Some(OLDEST));
        assert_eq!(parse_version("nonsense"), None);
    }

    #[test]
    fn the_script_enters_with_a_clean_environment_and_quoted_words() {
        let mut command = Command::new("unshare");
        command.env_clear().env("A", "it's").args(["a b", "c"]);
        assert_eq!(quoted(&command), r"env -i 'A=it'\''s' 'unshare' 'a b' 'c'");
    }

    #[test]
    fn a_silent_absent_or_foreign_server_does_not_answer() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!Rabbitmq.answers(address), "accepts and says nothing");
        let other = std::thread::spawn(move || {
            let _silent = listener.accept().unwrap();
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(b"AMQP\x00\x00\x00\x00").unwrap();
        });
        assert!(!Rabbitmq.answers(address), "speaks another protocol");
        other.join().unwrap();
        assert!(!Rabbitmq.answers(address), "refuses");
    }
}
