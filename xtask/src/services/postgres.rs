//! PostgreSQL: 17 from a Debian 13 root folder by default, else the host's (15 or newer).
//!
//! `initdb` and the server refuse to run as root, so both run as the user `postgres` of where the
//! packages are; where we are not root, as ourselves. Durability is on (`fsync`), as for users.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

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

/// The oldest version that the store supports.
const OLDEST: u32 = 15;

/// What differs from the server's defaults: many small hosts connect, and a test's working set
/// stays in memory. Everything else, durability above all, is as users have it.
const SETTINGS: &[(&str, &str)] = &[("max_connections", "200"), ("shared_buffers", "256MB")];

/// A free port can be taken by somebody else before the server has it.
const TRIES: u32 = 3;

/// What the script does where the programs are. A crash is what the server does without a word to
/// its clients; the data stays as it is.
const INSIDE: &str = r#"PATH=@PROGRAMS@:/usr/bin:/bin; cd /
case $1 in
make)
    initdb -D "$2" -A trust -U postgres --no-locale -E UTF8 --no-sync --no-instructions >/dev/null &&
    printf '%s\n' "listen_addresses = '127.0.0.1'" "unix_socket_directories = ''" "port = $3" \
        "timezone = 'UTC'" "max_connections = 200" "shared_buffers = 128MB" >> "$2/postgresql.conf" ;;
start) pg_ctl -D "$2" -w -t 60 -s -l "$2/server.log" start ;;
crash) pg_ctl -D "$2" -m immediate -w -t 30 -s stop ;;
remove) pg_ctl -D "$2" -m immediate -w -t 30 -s stop; rm -rf "$2" ;;
esac"#;

#[derive(Debug)]
pub(crate) struct Postgres;

impl Service for Postgres {
    fn kind(&self) -> Kind {
        Kind::Postgres
    }

    fn variable(&self) -> &'static str {
        "SAGABUS_POSTGRES_URL"
    }

    fn url(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/postgres")
    }

    fn image(&self) -> Image {
        let set = |(name, value): &(&str, &str)| ["-c".to_owned(), format!("{name}={value}")];
        Image {
            name: "postgres:17",
            version: "PostgreSQL 17",
            port: 5432,
            environment: &[("POSTGRES_HOST_AUTH_METHOD", "trust")],
            arguments: SETTINGS.iter().flat_map(set).collect(),
        }
    }

    /// Asks for TLS, which every server answers with one byte, before any log-in.
    fn answers(&self, address: SocketAddr) -> bool {
        const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
        let patience = Duration::from_secs(1);
        let ask = || -> std::io::Result<u8> {
            let mut stream = TcpStream::connect_timeout(&address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(&TLS_REQUEST)?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            Ok(answer[0])
        };
        matches!(ask(), Ok(b'S' | b'N'))
    }

    /// The first is "at once, but orderly", the second "now".
    fn ending(&self) -> &'static [(Signal, Duration)] {
        const STEPS: &[(Signal, Duration)] = &[
            (Signal::INT, Duration::from_secs(20)),
            (Signal::QUIT, Duration::from_secs(5)),
            (Signal::KILL, Duration::from_secs(5)),
        ];
        STEPS
    }

    fn more_variables(&self) -> Vec<(&'static str, String)> {
        let script = script().ok().filter(|script| script.is_file());
        let told = |script: PathBuf| ("SAGABUS_POSTGRES_SCRIPT", script.display().to_string());
        script.map(told).into_iter().collect()
    }

    fn start_locally(&self, request: &Request<'_>) -> Result<Record> {
        match request.source {
            Source::Host => start(&Place::on_host(request)?, request),
            Source::Debian13 => start(&Place::in_debian(request)?, request),
            Source::Auto | Source::Docker => match debian::obstacle() {
                None => Place::in_debian(request).or_else(|error| match error {
                    Error::Interrupted => Err(error),
                    Error::Failed(why) => fall_back(&why, request),
                }),
                Some(why) => fall_back(why, request),
            }
            .and_then(|place| start(&place, request)),
        }
    }
}

fn fall_back(why: &str, request: &Request<'_>) -> Result<Place> {
    say::detail(format!(
        "no PostgreSQL 17 from a Debian 13 root folder: {why}"
    ));
    say::detail("using the packages of this machine instead");
    Place::on_host(request)
}

/// Where the programs are and who runs them.
#[derive(Debug)]
struct Place {
    programs: PathBuf,
    user: User,
}

#[derive(Debug)]
enum User {
    /// `postgres` of the root folder.
    Inside(RootFolder),
    /// `postgres` of this machine, because we are root.
    Postgres,
    /// Us.
    Ourselves,
}

impl Place {
    fn in_debian(request: &Request<'_>) -> Result<Self> {
        let folder = RootFolder::with(&["postgresql"], request.log)?;
        let versions = folder.outside(Path::new("/usr/lib/postgresql"));
        let Some((version, _)) = newest(&versions) else {
            return fail(format!("no PostgreSQL in {}", versions.display()));
        };
        let programs = PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"));
        Ok(Self {
            programs,
            user: User::Inside(folder),
        })
    }

    fn on_host(request: &Request<'_>) -> Result<Self> {
        let user = if apt::is_root() {
            User::Postgres
        } else {
            User::Ourselves
        };
        let mut found = find_on_host();
        if found.is_none() && apt::is_here() && (apt::is_root() || request.install) {
            apt::install(&["postgresql"], request.log)?;
            found = find_on_host();
        }
        match found {
            Some((version, programs)) if version >= OLDEST => Ok(Self { programs, user }),
            Some((version, programs)) => fail(format!(
                "PostgreSQL {version} in {} is older than {OLDEST}; set SAGABUS_POSTGRES_URL to \
                 a newer server, or start Docker",
                programs.display()
            )),
            None => fail(format!(
                "PostgreSQL is not installed; type `{}` (or call this with `--install`), or set \
                 SAGABUS_POSTGRES_URL, or start Docker",
                apt::one_command(&["postgresql"])
            )),
        }
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match &self.user {
            User::Inside(folder) => folder.command("postgres", &program),
            User::Postgres => {
                let mut command = Command::new("setpriv");
                command.args([
                    "--reuid=postgres",
                    "--regid=postgres",
                    "--init-groups",
                    "--",
                ]);
                command.arg(program).env("HOME", "/tmp");
                command
            }
            User::Ourselves => Command::new(program),
        };
        // Not a folder that the server's user cannot enter; none of the caller's PG* settings.
        command.current_dir("/").env("LC_ALL", "C.UTF-8");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
    }

    /// The data folder as the server sees it and as the machine sees it.
    fn data(&self, name: &str) -> (PathBuf, PathBuf) {
        if let User::Inside(folder) = &self.user {
            let inside = Path::new(debian::DATA).join(name);
            let outside = folder.outside(&inside);
            (inside, outside)
        } else {
            // Not in the home folder, which the user `postgres` may not enter.
            let data = Path::new("/var/tmp").join(name);
            (data.clone(), data)
        }
    }

    /// Writes the script that runs servers here, for tests that make one fail.
    fn write_script(&self) -> Result<()> {
        let script = script()?;
        let (data, outside) = self.data("");
        let folder = |path: PathBuf| word(&format!("{}/", path.display()).replace("//", "/"));
        let (data, outside) = (folder(data), folder(outside));
        // Entered as for `initdb`, with a shell in its place.
        let program = word(&self.programs.join("initdb").display().to_string());
        let enter = quoted(&self.command("initdb")).replace(&program, "sh");
        let inside = INSIDE.replace("@PROGRAMS@", &self.programs.display().to_string());
        let text = format!(
            "#!/bin/sh\n\
             # Runs a PostgreSQL server for tests; written by `cargo xtask`.\n\
             # make NAME PORT | start NAME | crash NAME | remove NAME | where NAME\n\
             verb=$1; name=$2; shift 2\n\
             if [ \"$verb\" = where ]; then\n    \
             printf '%s\\n' {outside}\"$name\" {data}\"$name\"; exit\nfi\n\
             exec {enter} -c {} sh \"$verb\" {data}\"$name\" \"$@\"\n",
            word(&inside),
        );
        fs::write(&script, text).doing(format!("write {}", script.display()))
    }

    fn origin(&self, process: Option<Owned>) -> Origin {
        match self.user {
            User::Inside(_) => Origin::Debian13 { process },
            User::Postgres | User::Ourselves => Origin::Host { process },
        }
    }
}

fn script() -> Result<PathBuf> {
    Ok(cache_folder()?.join("postgres.sh"))
}

fn start(place: &Place, request: &Request<'_>) -> Result<Record> {
    let shown = process::capture(place.command("postgres").arg("--version"))?;
    let (inside, outside) = place.data(request.name);
    let mut record = Record {
        origin: place.origin(None),
        version: version_of(&shown),
        port: 0,
        data: Some(outside.clone()),
        mark: request.name.to_owned(),
        kept: false,
    };
    (request.announce)(&record)?;
    place.write_script()?;
    say::detail(format!(
        "{}: a new data folder in {}",
        record.version,
        outside.display()
    ));
    let started = Instant::now();
    let mut initdb = place.command("initdb");
    initdb
        .arg("-D")
        .arg(&inside)
        .args(["-A", "trust", "-U", "postgres", "--no-locale"]);
    initdb.args(["-E", "UTF8", "--no-sync", "--no-instructions"]);
    process::logged(&mut initdb, request.log)?;

    record.port = start_on_free_port(place, &inside, &outside, request.log)?;
    let Some(process) = postmaster(&outside, request.name) else {
        return fail(format!(
            "the server's process is not in {}",
            outside.display()
        ));
    };
    record.origin = place.origin(Some(process));
    say::detail(format!(
        "{}: started in {}",
        record.version,
        say::time(started.elapsed())
    ));
    Ok(record)
}

fn start_on_free_port(place: &Place, inside: &Path, outside: &Path, log: &Path) -> Result<u16> {
    let mut attempt = 1;
    loop {
        let port = free_port()?;
        configure(outside, port)?;
        let mut server = place.command("pg_ctl");
        server
            .arg("-D")
            .arg(inside)
            .args(["-w", "-t", "60", "-s", "-l"]);
        server.arg(inside.join("server.log")).arg("start");
        match process::logged(&mut server, log) {
            Ok(()) => return Ok(port),
            Err(error) => {
                interrupt::check()?;
                let said = process::tail(&outside.join("server.log"), 10);
                if attempt == TRIES {
                    return fail(format!("{error}\nthe server said:\n{said}"));
                }
                say::detail(format!("not started on port {port}, trying another one"));
                attempt += 1;
            }
        }
    }
}

/// Appends our settings: the last value of each wins.
fn configure(data: &Path, port: u16) -> Result<()> {
    let mut lines = format!(
        "\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nport = {port}\n\
         timezone = 'UTC'\nlog_timezone = 'UTC'\n"
    );
    for (name, value) in SETTINGS {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{name} = '{value}'");
    }
    let path = data.join("postgresql.conf");
    let what = format!("write {}", path.display());
    let mut file = OpenOptions::new().append(true).open(&path).doing(&what)?;
    file.write_all(lines.as_bytes()).doing(&what)
}

fn postmaster(data: &Path, mark: &str) -> Option<Owned> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    Owned::marked(text.lines().next()?.trim().parse().ok()?, mark)
}

/// Debian's folders first, newest version first; then what is on the path.
fn find_on_host() -> Option<(u32, PathBuf)> {
    newest(Path::new("/usr/lib/postgresql")).or_else(|| {
        let folder = process::capture(Command::new("pg_config").arg("--bindir")).ok()?;
        let folder = PathBuf::from(folder.trim());
        let shown = process::capture(Command::new(folder.join("initdb")).arg("--version")).ok()?;
        Some((major_of(&shown)?, folder))
    })
}

/// The newest `<folder>/<version>/bin` that has a server.
fn newest(folder: &Path) -> Option<(u32, PathBuf)> {
    let versions = fs::read_dir(folder).ok()?.flatten();
    let found = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        programs
            .join("initdb")
            .is_file()
            .then_some((version, programs))
    });
    found.max()
}

/// `postgres (PostgreSQL) 17.11 (Debian 17.11-0+deb13u1)` is `PostgreSQL 17.11`.
fn version_of(shown: &str) -> String {
    let number = shown
        .split_whitespace()
        .nth(2)
        .unwrap_or("of an unknown version");
    format!("PostgreSQL {number}")
}

fn major_of(shown: &str) -> Option<u32> {
    shown
        .split_whitespace()
        .nth(2)?
        .split('.')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        let shown = "postgres (PostgreSQL) 17.11 (Debian 17.11-0+deb13u1)\n";
        assert_eq!(version_of(shown), "PostgreSQL 17.11");
        assert_eq!(major_of("initdb (PostgreSQL) 16.4"), Some(16));
        assert_eq!(major_of("nonsense"), None);
    }

    #[test]
    fn the_container_gets_the_settings_of_the_local_server() {
        let arguments = Postgres.image().arguments.join(" ");
        assert_eq!(arguments, "-c max_connections=200 -c shared_buffers=256MB");
    }

    #[test]
    fn a_silent_or_absent_server_does_not_answer() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!Postgres.answers(address), "accepts and says nothing");
        drop(listener);
        assert!(!Postgres.answers(address), "refuses");
    }
}
