//! The demo's page, asked as a browser asks: orders are placed, payments broken and mended, the
//! process killed; the next one goes on with what it finds, and every order ends once.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use sagabus_testkit::wait::eventually;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::timeout;

use super::{Folder, PATIENCE, SIGKILL, check, demo};

/// A running shop with its page.
struct Shop {
    process: Child,
    /// What it prints goes here.
    log: PathBuf,
    address: String,
}

impl Shop {
    /// Starts it and reads where its page is, which is what it says last.
    async fn open(folder: &Folder, life: u32) -> Self {
        let log = folder.0.join(format!("page-{life}.log"));
        let said = File::create(&log).expect("a log can be written");
        let errors = said.try_clone().expect("a log can be shared");
        let mut command = demo(folder, &["--port", "0", "--fail-rate", "10"]);
        let process = command.stdout(said).stderr(errors).spawn();
        let process = process.expect("the demo can be started");
        let look = || async {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let line = text.lines().find(|line| line.contains("ready."))?;
            let (_, place) = line.split_once("The shop's page: http://")?;
            place.strip_suffix('/').map(str::to_owned)
        };
        let (address, _) = eventually("address of the page", look).await;
        Self {
            process,
            log,
            address,
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks as a page of `host` would, and returns the status and the body.
    async fn ask_as(&self, host: &str, method: &str, path: &str) -> (String, String) {
        let ask = async {
            let mut socket = TcpStream::connect(&self.address).await?;
            let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
            let head = head + "Content-Length: 0\r\nConnection: close\r\n\r\n";
            socket.write_all(head.as_bytes()).await?;
            let mut text = String::new();
            socket.read_to_string(&mut text).await?;
            Ok::<_, std::io::Error>(text)
        };
        let text = timeout(PATIENCE, ask).await.expect("it answers in time");
        let text = text.expect("it answers");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).unwrap_or_default();
        (status.to_owned(), body.to_owned())
    }

    async fn ask(&self, method: &str, path: &str) -> String {
        let (status, body) = self.ask_as(&self.address, method, path).await;
        assert_eq!(status, "200", "{method} {path}: {body}");
        body
    }

    async fn state(&self) -> Value {
        let state = self.ask("GET", "/state").await;
        serde_json::from_str(&state).expect("it is JSON")
    }

    /// Waits until the page shows something of which `is` is true.
    async fn shows(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let look = || async {
            let state = self.state().await;
            is(&state).then_some(state)
        };
        eventually(what, look).await.0
    }
}

/// Returns a figure of the ledger on the page.
fn figure(state: &Value, name: &str) -> u64 {
    state["ledger"][name].as_u64().unwrap_or_default()
}

#[tokio::test]
async fn what_the_page_offers_is_done_and_a_killed_shop_goes_on() {
    let folder = Folder::new("page");
    let mut shop = Shop::open(&folder, 1).await;
    let page = shop.ask("GET", "/").await;
    for button in [
        "Place 1 order",
        "Place 200",
        "Break payments",
        "Kill the process",
    ] {
        assert!(page.contains(button), "no {button:?} on the page");
    }
    let (status, _) = shop.ask_as("elsewhere.example", "POST", "/orders").await;
    assert_eq!(status, "403", "another site's page has no business here");

    assert_eq!(shop.ask("POST", "/orders").await, "placed 1\n");
    assert_eq!(shop.ask("POST", "/orders?n=200").await, "placed 200\n");
    let state = shop.state().await;
    assert_eq!(figure(&state, "placed"), 201);
    shop.shows("orders by state", |state| {
        let stages = state["stages"].as_object();
        stages.is_some_and(|stages| !stages.is_empty()) || state["verdict"] == "balanced"
    })
    .await;
    shop.shows("balanced books", |state| state["verdict"] == "balanced")
        .await;

    assert_eq!(shop.ask("POST", "/gateway/break").await, "broken\n");
    shop.shows("payments that are broken", |state| {
        state["gateway"] == "down"
    })
    .await;
    assert_eq!(shop.ask("POST", "/orders?n=20").await, "placed 20\n");
    let is_late = |state: &Value| state["stages"]["overdue"].as_u64() > Some(0);
    let state = shop.shows("orders that are overdue", is_late).await;
    assert_eq!(figure(&state, "under_way"), 20, "nobody can be charged");
    assert_eq!(shop.ask("POST", "/gateway/mend").await, "mended\n");
    shop.shows("balanced books again", |state| {
        state["verdict"] == "balanced"
    })
    .await;

    assert_eq!(shop.ask("POST", "/orders?n=200").await, "placed 200\n");
    assert_eq!(shop.ask("POST", "/kill").await, "goodbye\n");
    let ended = timeout(PATIENCE, shop.process.wait()).await;
    let ended = ended.expect("it is gone in time").expect("it is our child");
    assert_eq!(ended.signal(), Some(SIGKILL), "{}", shop.said());
    let (code, text) = check(&folder).await;
    assert_eq!(code, Some(3), "it was killed in the middle: {text}");

    let mut shop = Shop::open(&folder, 2).await;
    assert!(shop.said().contains("resumed "), "{}", shop.said());
    let state = shop
        .shows("balanced books", |state| state["verdict"] == "balanced")
        .await;
    let [placed, finished, cancelled] =
        ["placed", "finished", "cancelled"].map(|name| figure(&state, name));
    assert_eq!((placed, finished + cancelled), (421, 421));
    assert_eq!(state["dead_letters"], serde_json::json!([]));
    let said = shop.said();
    let first = said.lines().find(|line| line.contains("first message"));
    let first = first.map_or("", str::trim);
    println!("placed {placed}, finished {finished}, cancelled {cancelled}; {first}");

    let pid = shop.process.id().and_then(|id| i32::try_from(id).ok());
    let pid = pid.and_then(Pid::from_raw).expect("it runs");
    kill_process(pid, Signal::TERM).expect("it is our child");
    let ended = timeout(PATIENCE, shop.process.wait()).await;
    let ended = ended.expect("it stops in time").expect("it is our child");
    assert!(ended.success(), "{ended}: {}", shop.said());
    let (code, text) = check(&folder).await;
    assert_eq!(code, Some(0), "{text}");
}
