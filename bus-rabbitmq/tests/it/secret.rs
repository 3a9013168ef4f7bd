//! The password is never printed: not in an error, not in a log of ours or of the driver's.

use std::fmt::Write as _;
use std::process::Command;

use sagabus_core::transport::Transport;
use sagabus_core::{StoreId, error::chain};
use sagabus_rabbitmq::{RabbitMq, RabbitMqConfig};
use sagabus_testkit::amqp_proxy::authority;
use sagabus_testkit::service::block_on;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::refused::spec;
use crate::site::url;

/// Tells the child that it is one.
const CHILD: &str = "SAGABUS_SECRET_CHILD";
/// Stands where a password stands, and nowhere else.
const CANARY: &str = "canary-4711";

/// Prints everything that anybody logs, with all fields; of the driver nothing finer than `debug`,
/// because its `trace` shows the frames themselves, the log-in among them.
struct Everything;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Everything {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sagabus") || *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line(format!("span {}", attributes.metadata().target()));
        attributes.record(&mut line);
        println!("{}", line.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line("record".to_owned());
        values.record(&mut line);
        println!("{}", line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("log {}", event.metadata().target()));
        event.record(&mut line);
        println!("{}", line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Runs with everything logged, when it is started as a child; else there is nothing to do.
#[test]
fn runs_only_as_a_child_that_logs_everything() {
    let Ok(url) = std::env::var(CHILD) else {
        return;
    };
    tracing::subscriber::set_global_default(Everything).expect("nobody else logs here");
    let place = authority(&url);
    let urls = [
        format!("amqp://guest:{CANARY}@{place}"),
        format!("amqp://guest:{CANARY}@{place}/nowhere"),
        format!("amqps://guest:{CANARY}@{place}"),
        format!("amqp://guest:{CANARY}@127.0.0.1:1"),
        format!("amqp://guest:{CANARY}@host:port"),
        format!("guest:{CANARY}"),
    ];
    block_on(async {
        for url in urls {
            let mut config = RabbitMqConfig::new(url);
            config.connect_timeout = std::time::Duration::from_secs(3);
            let transport = RabbitMq::with(config.clone());
            let error = transport.declare(StoreId::new(), &[spec()]).await;
            let error = error.expect_err("this cannot work");
            let health = transport.health();
            println!(
                "said {config:?} {transport:?} {health:?} {error:?} {}",
                chain(&error)
            );
        }
    });
}

#[test]
fn the_password_is_in_no_error_and_in_no_log() {
    let Some(url) = url() else { return };
    let program = std::env::current_exe().expect("this test is a program");
    let mut child = Command::new(program);
    child.args([
        "--exact",
        "secret::runs_only_as_a_child_that_logs_everything",
        "--nocapture",
    ]);
    let output = child.env(CHILD, url).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("log lapin"), "the driver's log is seen");
    assert_eq!(said.matches("said RabbitMqConfig").count(), 6, "{said}");
    let lines = said.lines().filter(|line| {
        let bytes: Vec<String> = CANARY.bytes().map(|byte| byte.to_string()).collect();
        line.contains(CANARY) || line.contains(&bytes.join(", "))
    });
    let lines: Vec<_> = lines.collect();
    assert!(lines.is_empty(), "{lines:?}");
}
