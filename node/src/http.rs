//! HTTP: health, state and metrics, for load balancers, people and Prometheus.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::error::Fault;
use crate::shared::Shared;
use crate::{metrics, status};

/// What stands between a node and serving.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    reasons: Vec<String>,
}

/// Binds the address.
///
/// # Errors
/// A [`Fault`] if it is in use or not of this machine.
pub fn bind(address: std::net::SocketAddr) -> Result<std::net::TcpListener, Fault> {
    let bound = std::net::TcpListener::bind(address);
    let bound = bound.and_then(|l| l.set_nonblocking(true).map(|()| l));
    bound.map_err(|e| {
        Fault::new(
            format!("cannot serve HTTP on {address}"),
            e.to_string(),
            "stop what uses the port, set another http.listen, or an empty one for no HTTP",
        )
    })
}

/// Serves until the process ends.
///
/// # Errors
/// The system's.
pub async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "live\n" }))
        .route("/readyz", get(readyz))
        .route(
            "/status",
            get(|State(shared): State<Arc<Shared>>| async move { Json(status::of(&shared)) }),
        )
        .route("/metrics", get(metrics_text))
        .with_state(shared);
    axum::serve(TcpListener::from_std(listener)?, router).await
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let reasons = status::not_ready(&shared);
    let ready = reasons.is_empty();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Readiness { ready, reasons })).into_response()
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, metrics::text(&shared)).into_response()
}
