//! Containers, where a Docker engine answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use super::record::{Origin, Record};
use super::service::{Request, Service, free_port};
use crate::fail::{Result, fail};
use crate::{interrupt, process, say};

/// A first start unpacks the image and initialises the server.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How a service runs in a container.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Name and tag.
    pub(crate) name: &'static str,
    /// What it runs, for `status`.
    pub(crate) version: &'static str,
    /// The port inside.
    pub(crate) port: u16,
    /// `{port}` in a value is the port outside, for servers that tell clients where they are.
    pub(crate) environment: &'static [(&'static str, &'static str)],
    /// Arguments for the program in the container.
    pub(crate) arguments: Vec<String>,
}

impl Image {
    fn tells_its_port(&self) -> bool {
        let mut values = self.environment.iter().map(|(_, value)| value);
        values.any(|value| value.contains("{port}"))
    }
}

/// The version of the engine, when one answers.
pub(crate) fn engine() -> Option<String> {
    let mut command = Command::new("docker");
    let version =
        process::capture(command.args(["info", "--format", "{{.ServerVersion}}"])).ok()?;
    let version = version.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

/// Starts a container and waits until the service in it answers.
pub(crate) fn start(service: &dyn Service, request: &Request<'_>) -> Result<Record> {
    let image = service.image();
    say::detail(format!(
        "docker run {} (pulled first where it is missing)",
        image.name
    ));
    let mut record = Record {
        origin: Origin::Docker {
            container: request.name.to_owned(),
        },
        version: image.version.to_owned(),
        port: 0,
        data: None,
        mark: request.name.to_owned(),
        kept: false,
    };
    (request.announce)(&record)?;
    // 0 leaves the choice to the engine.
    let port = if image.tells_its_port() {
        free_port()?
    } else {
        0
    };
    let arguments = run_arguments(&image, request.name, port);
    process::logged(Command::new("docker").args(&arguments), request.log)?;
    let inside = format!("{}/tcp", image.port);
    let shown = process::capture(Command::new("docker").args(["port", request.name, &inside]))?;
    let Some(port) = parse_port(&shown) else {
        return fail(format!(
            "`docker port` shows no port of 127.0.0.1 for {inside}: {shown}"
        ));
    };
    record.port = port;
    wait_until_ready(service, port)?;
    Ok(record)
}

/// Whether the container still runs.
pub(crate) fn is_running(container: &str) -> bool {
    let mut command = Command::new("docker");
    command.args(["inspect", "--format", "{{.State.Running}}", container]);
    process::capture(&mut command).is_ok_and(|shown| shown.trim() == "true")
}

/// Stops the container; the engine deletes it. One that is gone already is fine.
pub(crate) fn stop(container: &str) -> Result<()> {
    if !is_running(container) {
        return Ok(());
    }
    process::capture(Command::new("docker").args(["stop", "--time", "10", container])).map(drop)
}

fn run_arguments(image: &Image, name: &str, port: u16) -> Vec<String> {
    let publish = format!("127.0.0.1:{port}:{}", image.port);
    let fixed = [
        "run",
        "-d",
        "--rm",
        "--name",
        name,
        "--shm-size",
        "512m",
        "-p",
        &publish,
    ];
    let mut arguments: Vec<String> = fixed.iter().map(|word| (*word).to_owned()).collect();
    for (variable, value) in image.environment {
        let value = value.replace("{port}", &port.to_string());
        arguments.extend(["-e".to_owned(), format!("{variable}={value}")]);
    }
    arguments.push(image.name.to_owned());
    arguments.extend(image.arguments.iter().cloned());
    arguments
}

/// `docker port` prints one line per address: `127.0.0.1:49153`.
fn parse_port(shown: &str) -> Option<u16> {
    let mut lines = shown.lines().map(str::trim);
    lines.find_map(|line| line.strip_prefix("127.0.0.1:")?.parse().ok())
}

fn wait_until_ready(service: &dyn Service, port: u16) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    while !service.answers(address) {
        interrupt::check()?;
        if Instant::now() > deadline {
            let within = say::time(READY_WITHIN);
            return fail(format!(
                "the container does not answer on {address} within {within}"
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_published_on_loopback_only_with_a_port_of_the_engines_choice() {
        let image = Image {
            name: "postgres:17",
            version: "PostgreSQL 17",
            port: 5432,
            environment: &[("A", "b")],
            arguments: vec!["-c".into(), "x=1".into()],
        };
        let expected = "run -d --rm --name sagabus-1 --shm-size 512m -p 127.0.0.1:0:5432 -e A=b \
                        postgres:17 -c x=1";
        assert_eq!(run_arguments(&image, "sagabus-1", 0).join(" "), expected);
    }

    #[test]
    fn a_server_that_tells_where_it_is_gets_a_port_that_we_chose() {
        let image = Image {
            name: "kafka",
            version: "Kafka",
            port: 9092,
            environment: &[("AT", "127.0.0.1:{port}")],
            arguments: Vec::new(),
        };
        assert!(image.tells_its_port());
        let shown = run_arguments(&image, "k", 4000).join(" ");
        let expected = "-p 127.0.0.1:4000:9092 -e AT=127.0.0.1:4000 kafka";
        assert!(shown.ends_with(expected), "{shown}");
    }

    #[test]
    fn the_port_is_read_from_what_docker_prints() {
        assert_eq!(parse_port("127.0.0.1:49153\n"), Some(49_153));
        assert_eq!(parse_port("[::1]:5\n127.0.0.1:49153\n"), Some(49_153));
        assert_eq!(parse_port("0.0.0.0:49153\n"), None);
        assert_eq!(parse_port(""), None);
    }
}
