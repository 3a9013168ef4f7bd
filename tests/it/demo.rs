//! The demo as a newcomer runs it: killed again and again until every order has ended.
//!
//! The payment gateway is a process of its own that lives through all kills.

mod page;
#[cfg(all(feature = "postgres", feature = "kafka", feature = "rabbitmq"))]
mod services;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const SIGKILL: i32 = 9;

/// Longer than a whole run without a kill takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("sagabus-demo-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays is only litter.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An example's program, which `cargo test` builds beside this one.
pub(crate) fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("a test knows where it is");
    let profile = tests.parent().and_then(Path::parent);
    let program = profile.map(|profile| profile.join("examples").join(name));
    let program = program.expect("tests are in `target/<profile>/deps`");
    assert!(
        program.exists(),
        "{} is missing; build it: cargo build --example {name}",
        program.display()
    );
    program
}

fn demo(folder: &Folder, options: &[&str]) -> Command {
    let mut command = Command::new(program("orders"));
    command.arg("--folder").arg(&folder.0).args(options);
    command.kill_on_drop(true);
    command
}

async fn run(folder: &Folder, options: &[&str]) -> Output {
    let output = demo(folder, options).output();
    let output = timeout(PATIENCE, output).await.expect("a run ends in time");
    output.expect("the demo can be started")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

async fn check(folder: &Folder) -> (Option<i32>, String) {
    let output = run(folder, &["--check"]).await;
    (output.status.code(), text(&output))
}

/// Starts the gateway and returns its address.
async fn start_gateway(folder: &Folder) -> (Child, String) {
    let mut command = demo(folder, &["--gateway"]);
    let mut gateway = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let said = gateway.stdout.take().expect("its output is a pipe");
    let mut lines = BufReader::new(said).lines();
    let line = timeout(PATIENCE, lines.next_line()).await;
    let line = line.expect("it says its address in time");
    let line = line.expect("it can be read").unwrap_or_default();
    let address = line.strip_prefix("gateway at ").unwrap_or_default();
    assert!(!address.is_empty(), "no address in {line:?}");
    (gateway, address.to_owned())
}

/// Returns the number that the ledger has beside `what`.
fn figure(text: &str, what: &str) -> u64 {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(what));
    let figure = line.and_then(|rest| rest.split_whitespace().next());
    let figure = figure.and_then(|figure| figure.parse().ok());
    figure.unwrap_or_else(|| panic!("no figure for {what:?} in {text}"))
}

/// Lives that get longer: the first ones end while cards are being charged, the last ones are long
/// enough for parcels.
fn life(kills: u32) -> String {
    (30 + 15 * kills).to_string()
}

/// More than are ever under way at a time, so that every run has new ones among the old.
const ORDERS: u64 = 400;

#[tokio::test]
async fn killed_until_it_is_done_every_order_ends_once() {
    let folder = Folder::new("killed");
    let (mut gateway, address) = start_gateway(&folder).await;
    let orders = ORDERS.to_string();
    let options = [
        "--headless",
        "--orders",
        &orders,
        "--external-gateway",
        &address,
    ];
    let mut kills = 0;
    let last = loop {
        let life = life(kills);
        let output = run(&folder, &[&options[..], &["--kill-after", &life]].concat()).await;
        if kills == 1 {
            // The check has just said that orders are under way. The last run may find none left.
            let text = text(&output);
            assert!(text.contains("resumed"), "{text}");
        }
        if output.status.signal() != Some(SIGKILL) {
            break output;
        }
        kills += 1;
        assert!(kills < 200, "no end in sight: {}", text(&output));
        if kills == 1 {
            let (code, text) = check(&folder).await;
            assert_eq!(code, Some(3), "orders under way are no balance: {text}");
            assert!(text.contains("NOT OVER"), "{text}");
        }
    };
    let text = text(&last);
    assert_eq!(last.status.code(), Some(0), "{text}");
    assert!(kills >= 2, "it was killed {kills} times only: {text}");
    assert!(text.contains("BALANCED"), "{text}");
    assert_eq!(figure(&text, "orders placed"), ORDERS, "{text}");
    // The proof that kills hit what they are about: a charge between the gateway's answer and our
    // commit is asked for again. Without one, the balance would say nothing about keys.
    assert!(
        figure(&text, "calls repeated") > 0,
        "no call was hit: {text}"
    );
    for what in ["finished", "declined", "given back"] {
        assert!(figure(&text, what) > 0, "nothing was {what}: {text}");
    }
    let gateway_end = gateway.try_wait().expect("the gateway is our child");
    assert_eq!(gateway_end, None, "the gateway lived through it all");
    let (code, text) = check(&folder).await;
    assert_eq!(code, Some(0), "{text}");
    gateway.kill().await.expect("the gateway is our child");
}

#[tokio::test]
async fn the_ledger_says_exactly_what_is_off() {
    let folder = Folder::new("off");
    let output = run(
        &folder,
        &["--headless", "--orders", "5", "--fail-rate", "0"],
    )
    .await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let file = folder.0.join("gateway.jsonl");
    let lines = std::fs::read_to_string(&file).expect("the gateway has a file");
    let charge = lines
        .lines()
        .find(|line| line.contains("\"order\":3"))
        .expect("order 3 was charged");
    let again = charge.replace("\"key\":\"", "\"key\":\"another-");
    std::fs::write(&file, format!("{lines}{again}\n")).expect("it can be written");
    let (code, text) = check(&folder).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("OFF: order 3 was charged 2 times"), "{text}");
    assert!(text.contains("DOES NOT BALANCE"), "{text}");
    // Cut in the middle of the line, as by a power cut before it was synced: it never counted.
    let torn = &again[..again.len() / 2];
    std::fs::write(&file, format!("{lines}{torn}")).expect("it can be written");
    let (code, text) = check(&folder).await;
    assert_eq!(code, Some(0), "{text}");
}
