//! The shop's HTTP API and its page, on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::demo::{Demo, kill_this_process, told_to_stop};
use crate::gateway::{Answer, Ask};
use crate::ledger::{Ledger, Verdict};
use crate::shop;

const PAGE: &str = include_str!("page.html");

/// The port that the page has when it is free, so that an open page finds a restarted shop.
const PORT: u16 = 8080;

/// Orders of one request: the page asks for 200.
const ORDERS_MAX: usize = 1000;

/// How old the books may be that a page gets: several pages share one look.
const STATE_AGE_MAX: Duration = Duration::from_millis(400);

struct Api {
    demo: Demo,
    /// How to start this shop again.
    again: String,
    last: Mutex<Option<(Instant, Value)>>,
}

/// Serves the page until it is told to stop, then stops in order.
///
/// # Errors
/// When the port cannot be had.
pub(crate) async fn run(demo: Demo, port: Option<u16>) -> Result<()> {
    let sockets = bind(port).await?;
    let address = sockets.local_addr()?;
    let console = demo.console.clone();
    let api = Arc::new(Api {
        demo,
        again: again(port.is_none() && address.port() != PORT, address.port()),
        last: Mutex::default(),
    });
    let router = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/state", get(state))
        .route("/orders", post(place))
        .route(
            "/gateway/break",
            post(async |api| set_broken(api, true).await),
        )
        .route(
            "/gateway/mend",
            post(async |api| set_broken(api, false).await),
        )
        .route("/kill", post(kill))
        .layer(from_fn_with_state(address, refuse_strangers))
        .with_state(Arc::clone(&api));
    console.note(&format!(
        "ready. Ctrl-C ends it. The shop's page: http://{address}/"
    ));
    tokio::select! {
        served = axum::serve(sockets, router).into_future() => served?,
        stopped = told_to_stop() => stopped?,
    }
    console.note("stopping");
    // A request that is still answered keeps its hold; then the process ends without an orderly
    // stop, which is as good as any other end.
    if let Some(api) = Arc::into_inner(api) {
        api.demo.stop().await;
    }
    Ok(())
}

async fn bind(port: Option<u16>) -> Result<TcpListener> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    match port {
        Some(port) => at(port)
            .await
            .with_context(|| format!("cannot listen on port {port}")),
        None => match at(PORT).await {
            Ok(sockets) => Ok(sockets),
            Err(_) => at(0).await.context("cannot listen on any port"),
        },
    }
}

/// Returns the command that starts this shop again, on the page's port.
fn again(must_name_port: bool, port: u16) -> String {
    let mut options: Vec<String> = std::env::args().skip(1).collect();
    options.retain(|option| option != "--fresh");
    // Whoever looks at the page need not learn passwords.
    options
        .iter_mut()
        .for_each(|option| *option = masked(option));
    if must_name_port {
        options.push(format!("--port {port}"));
    }
    let features = ["postgres", "rabbitmq", "kafka"];
    let is_used = |feature: &&str| {
        let option = format!("--{feature}");
        options.iter().any(|one| one.starts_with(&option))
    };
    let features: Vec<_> = features.into_iter().filter(is_used).collect();
    let features = match features.join(",") {
        none if none.is_empty() => none,
        some => format!(" --features {some}"),
    };
    match options.join(" ") {
        options if options.is_empty() => "cargo run --example orders".to_owned(),
        options => format!("cargo run --example orders{features} -- {options}"),
    }
}

/// Hides the password of a URL.
fn masked(option: &str) -> String {
    let parts = option.split_once("://").and_then(|(scheme, rest)| {
        let (user, place) = rest.rsplit_once('@')?;
        let (name, _) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:***@{place}"))
    });
    parts.unwrap_or_else(|| option.to_owned())
}

/// Refuses requests that other web sites make a browser send: they have no business here.
async fn refuse_strangers(
    State(address): State<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let ours = [address.to_string(), format!("localhost:{}", address.port())];
    let is_ours = |text: &str| ours.iter().any(|one| one == text);
    let headers = request.headers();
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_host = text(header::HOST).is_some_and(is_ours);
    let is_origin = text(header::ORIGIN)
        .is_none_or(|origin| origin.strip_prefix("http://").is_some_and(is_ours));
    if is_host && is_origin {
        next.run(request).await
    } else {
        (
            StatusCode::FORBIDDEN,
            "this page belongs to this machine only\n",
        )
            .into_response()
    }
}

#[derive(Deserialize)]
struct Place {
    n: Option<usize>,
}

async fn place(State(api): State<Arc<Api>>, Query(query): Query<Place>) -> Result<String, Failure> {
    let count = query.n.unwrap_or(1).min(ORDERS_MAX);
    api.demo.shop.place_next(count).await?;
    Ok(format!("placed {count}\n"))
}

async fn set_broken(State(api): State<Arc<Api>>, is_broken: bool) -> Result<String, Failure> {
    let Some(gateway) = &api.demo.gateway else {
        return Err(anyhow!("the payment gateway is with the service `payments`").into());
    };
    gateway.ask(Ask::Break(is_broken)).await?;
    let what = if is_broken { "broken" } else { "mended" };
    api.demo
        .console
        .note(&format!("the payment gateway is {what}"));
    Ok(format!("{what}\n"))
}

async fn kill(State(api): State<Arc<Api>>) -> String {
    let console = api.demo.console.clone();
    api.demo.lifecycle.spawn(async move {
        // Long enough for the answer to leave.
        tokio::time::sleep(Duration::from_millis(50)).await;
        kill_this_process(&console);
    });
    "goodbye\n".to_owned()
}

async fn state(State(api): State<Arc<Api>>) -> Result<(HeaderMap, Json<Value>), Failure> {
    let mut last = api.last.lock().await;
    let value = match last.take() {
        Some((at, value)) if at.elapsed() < STATE_AGE_MAX => (at, value),
        _ => (Instant::now(), look(&api).await?),
    };
    let answer = value.1.clone();
    *last = Some(value);
    let no_store = [(header::CACHE_CONTROL, "no-store".parse()?)];
    Ok((HeaderMap::from_iter(no_store), Json(answer)))
}

async fn look(api: &Api) -> Result<Value> {
    let demo = &api.demo;
    let stages = shop::stages(&demo.books.orders).await?;
    let stages: serde_json::Map<_, _> = stages
        .into_iter()
        .map(|(stage, n)| (stage, json!(n)))
        .collect();
    let ledger = Ledger::read(&demo.site.folder, &demo.books).await?;
    let verdict = match ledger.verdict() {
        Verdict::Balanced => "balanced",
        Verdict::Off => "off",
        Verdict::UnderWay => "under way",
    };
    let gateway = match &demo.gateway {
        None => "elsewhere",
        Some(gateway) => match gateway.ask(Ask::Look).await {
            Ok(Answer::Up) => "up",
            _ => "down",
        },
    };
    Ok(json!({
        "again": api.again,
        "pid": std::process::id(),
        "uptime_seconds": demo.console.uptime().as_secs_f64(),
        "gateway": gateway,
        "stages": stages,
        "ledger": ledger,
        "verdict": verdict,
        "dead_letters": demo.database.dead_letters().await?,
    }))
}

/// Anything that went wrong, as the page shows it.
struct Failure(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{:#}\n", self.0)).into_response()
    }
}
