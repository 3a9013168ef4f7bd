//! The demo as three processes with a broker between them: each of the three is killed and started
//! again, then the broker is, and every order ends once.
//!
//! The payment gateway is a process of its own that lives through all of it.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use sagabus_testkit::kafka_broker::KafkaBroker;
use sagabus_testkit::rabbitmq_broker::RabbitMqBroker;
use sagabus_testkit::wait::eventually;
use tokio::process::Child;
use tokio::time::{Instant, timeout};

use super::{Folder, PATIENCE, demo, figure, run, start_gateway, text};
use crate::databases::{drop_database, say, server};

/// More than twice what is under way at a time, so that each kill comes in the middle.
const ORDERS: u64 = 600;

/// Calls that the gateway has had when the next one is killed.
const BETWEEN_KILLS: usize = 100;

/// A broker of the test's own, because it is killed.
trait Broker {
    fn option(&self) -> [String; 2];
    fn kill(&mut self);
    fn restart(&mut self);
}

impl Broker for RabbitMqBroker {
    fn option(&self) -> [String; 2] {
        ["--rabbitmq".to_owned(), self.url()]
    }

    fn kill(&mut self) {
        Self::kill(self);
    }

    fn restart(&mut self) {
        Self::restart(self);
    }
}

impl Broker for KafkaBroker {
    fn option(&self) -> [String; 2] {
        ["--kafka".to_owned(), self.address().to_string()]
    }

    fn kill(&mut self) {
        Self::kill(self);
    }

    fn restart(&mut self) {
        Self::restart(self);
    }
}

/// The shop and how its services are started.
struct Shop {
    folder: Folder,
    options: Vec<String>,
    gateway: String,
    started: Instant,
}

impl Shop {
    fn service(&self, name: &'static str) -> Service {
        let service = ["--service", name, "--external-gateway", &self.gateway];
        let orders = ORDERS.to_string();
        let ours = match name {
            "orders" => vec!["--headless", "--orders", &orders],
            _ => vec![],
        };
        let options = self.options.iter().map(String::as_str);
        let options: Vec<_> = options.chain(service).chain(ours).collect();
        let log = self.folder.0.join(format!("{name}.log"));
        let said = File::create(&log).expect("a log can be written");
        let errors = said.try_clone().expect("a log can be shared");
        let mut command = demo(&self.folder, &options);
        let process = command.stdout(said).stderr(errors).spawn();
        let process = process.expect("the demo can be started");
        Service { name, log, process }
    }

    /// Waits until the gateway has had so many calls.
    async fn calls(&self, count: usize) {
        let file = self.folder.0.join("gateway.jsonl");
        let called = async || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            (text.lines().count() >= count).then_some(())
        };
        eventually("so many calls of the gateway", called).await;
    }

    /// Returns the exit code of a check, and what it printed.
    async fn check(&self) -> (Option<i32>, String) {
        let options = self.options.iter().map(String::as_str);
        let options: Vec<_> = options.chain(["--check"]).collect();
        let output = run(&self.folder, &options).await;
        (output.status.code(), text(&output))
    }

    /// Checks that what was killed was killed in the middle, and that nothing is off because of it.
    async fn is_in_the_middle(&self, what: &str) {
        let (code, text) = self.check().await;
        assert_eq!(code, Some(3), "{what} was killed: {text}");
        let (placed, open) = (figure(&text, "orders placed"), figure(&text, "under way"));
        self.says(&format!(
            "{what} killed, {open} of {placed} orders under way"
        ));
    }

    fn says(&self, text: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        say(&format!("{seconds:5.1} s: {text}\n"));
    }
}

/// One process of the shop.
struct Service {
    name: &'static str,
    log: PathBuf,
    process: Child,
}

impl Service {
    async fn is_ready(&self) {
        let said = async || self.said().contains("ready.").then_some(());
        eventually("service that is ready", said).await;
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has handled something: before, it may be starting, which needs the broker.
    async fn has_handled(&self) {
        let handled = async || self.said().contains("first message handled").then_some(());
        eventually("service that has handled a message", handled).await;
    }

    /// Kills it once it has handled something.
    async fn kill(mut self) {
        self.has_handled().await;
        self.process.kill().await.expect("it is our child");
        let status = self.process.wait().await.expect("it is our child");
        let was_alive = status.signal() == Some(Signal::KILL.as_raw());
        assert!(was_alive, "{} ended: {status}: {}", self.name, self.said());
    }

    async fn stop(self) {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(Pid::from_raw).expect("it runs");
        kill_process(pid, Signal::TERM).expect("it is our child");
        let name = self.name;
        let (status, said) = self.ended().await;
        assert!(status.success(), "{name} stopped with {status}: {said}");
        let is_given_up = said.contains("stopped being tried");
        assert!(!is_given_up, "{name} gave something up: {said}");
    }

    async fn ended(mut self) -> (ExitStatus, String) {
        let status = timeout(PATIENCE, self.process.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("no end of {}: {}", self.name, self.said()));
        (status.expect("it is our child"), self.said())
    }
}

async fn everyone_is_killed_once(name: &str, mut broker: impl Broker, postgres: Option<String>) {
    let folder = Folder::new(name);
    let (mut gateway, address) = start_gateway(&folder).await;
    let mut options = broker.option().to_vec();
    options.extend(
        postgres
            .iter()
            .flat_map(|url| ["--postgres", url])
            .map(str::to_owned),
    );
    let shop = Shop {
        folder,
        options,
        gateway: address,
        started: Instant::now(),
    };
    let (payments, shipping) = (shop.service("payments"), shop.service("shipping"));
    payments.is_ready().await;
    shipping.is_ready().await;
    let orders = shop.service("orders");

    shop.calls(BETWEEN_KILLS).await;
    payments.kill().await;
    shop.is_in_the_middle("payments").await;
    let payments = shop.service("payments");

    shop.calls(2 * BETWEEN_KILLS).await;
    shipping.kill().await;
    shop.is_in_the_middle("shipping").await;
    let shipping = shop.service("shipping");

    shop.calls(3 * BETWEEN_KILLS).await;
    orders.kill().await;
    shop.is_in_the_middle("orders").await;
    let orders = shop.service("orders");

    shop.calls(4 * BETWEEN_KILLS).await;
    for service in [&payments, &shipping, &orders] {
        service.has_handled().await;
    }
    broker.kill();
    shop.is_in_the_middle("the broker").await;
    broker.restart();
    shop.says("the broker answers again");

    let (status, text) = orders.ended().await;
    shop.says(text.lines().last().unwrap_or_default());
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("resumed"), "{text}");
    let (code, text) = shop.check().await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("BALANCED"), "{text}");
    assert_eq!(figure(&text, "orders placed"), ORDERS, "{text}");
    for what in ["finished", "declined"] {
        assert!(figure(&text, what) > 0, "nothing was {what}: {text}");
    }
    payments.stop().await;
    shipping.stop().await;
    shop.says("everyone has stopped");
    let gateway_end = gateway.try_wait().expect("the gateway is our child");
    assert_eq!(gateway_end, None, "the gateway lived through it all");
    gateway.kill().await.expect("the gateway is our child");
    if let Some(url) = postgres {
        drop_databases(&shop.folder, &url).await;
    }
}

/// Removes the shop's databases from the server.
async fn drop_databases(folder: &Folder, url: &str) {
    let sign = fs::read(folder.0.join("shop.json")).expect("a shop has a sign");
    let sign: serde_json::Value = serde_json::from_slice(&sign).expect("it is JSON");
    let id = sign["id"].as_str().expect("a shop has a name");
    let (base, _) = url.rsplit_once('/').expect("an address names a database");
    for service in ["orders", "payments", "shipping"] {
        drop_database(url, &format!("{base}/orders_demo_{id}_{service}")).await;
    }
}

#[tokio::test]
async fn over_rabbitmq_every_process_and_the_broker_are_killed_and_every_order_ends_once() {
    let (Some(postgres), Some(broker)) = (server(), RabbitMqBroker::start()) else {
        return;
    };
    everyone_is_killed_once("rabbitmq", broker, Some(postgres)).await;
}

#[tokio::test]
async fn over_kafka_every_process_and_the_broker_are_killed_and_every_order_ends_once() {
    let Some(broker) = KafkaBroker::start() else {
        return;
    };
    everyone_is_killed_once("kafka", broker, None).await;
}
