//! The operations listener: health, readiness, metrics. Not for the public network.

use crate::desk::Desk;
use axum::{Router, routing::get};
use http::StatusCode;
use std::sync::Arc;

/// Its router.
pub fn router(desk: &Arc<Desk>) -> Router {
    let (ready, metrics) = (Arc::clone(desk), Arc::clone(desk));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || {
                let desk = Arc::clone(&ready);
                async move {
                    match (desk.live.log_len(), desk.vault.is_sealed()) {
                        (Err(_), _) => (StatusCode::SERVICE_UNAVAILABLE, "the store failed\n"),
                        (Ok(_), true) => (StatusCode::SERVICE_UNAVAILABLE, "sealed\n"),
                        (Ok(_), false) => (StatusCode::OK, "ready\n"),
                    }
                }
            }),
        )
        .route(
            "/metrics",
            get(move || {
                let desk = Arc::clone(&metrics);
                async move { desk.metrics.text() }
            }),
        )
}
