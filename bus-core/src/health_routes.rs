//! Liveness and readiness for whoever runs the process, as routes of axum.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::get;
use serde_json::{Value, json};

use crate::health::{HostHealth, Verdict};

/// Makes `GET /livez` and `GET /readyz`: 200 or 503, with the reasons as JSON. Merge them into a
/// router that is not open to everybody: reasons name endpoints and errors.
///
/// # Examples
/// ```
/// # use sagabus_core::{RunningHost, health_routes};
/// fn router(host: &RunningHost) -> axum::Router {
///     axum::Router::new().merge(health_routes(host.health()))
/// }
/// ```
pub fn health_routes(health: HostHealth) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(health)
}

async fn livez(State(health): State<HostHealth>) -> (StatusCode, Json<Value>) {
    answer(&health.liveness())
}

async fn readyz(State(health): State<HostHealth>) -> (StatusCode, Json<Value>) {
    answer(&health.readiness())
}

fn answer(verdict: &Verdict) -> (StatusCode, Json<Value>) {
    let status = match verdict.is_well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let (is_well, reasons) = (verdict.is_well, &verdict.reasons);
    (
        status,
        Json(json!({ "is_well": is_well, "reasons": reasons })),
    )
}
