//! Counting one request, or one wait, however it ends.

use std::sync::Arc;

use tokio::time::Instant;

use super::labels::{CODE_CANCELLED, MethodLabel, RouteLabel, code_position};
use super::metrics::Metrics;

/// Counts one request when it is dropped.
#[derive(Debug)]
pub struct RequestGuard {
    metrics: Arc<Metrics>,
    route: usize,
    method: usize,
    began: Instant,
    status: Option<u16>,
    first_byte: bool,
    finished: bool,
}

impl RequestGuard {
    pub(super) fn new(metrics: Arc<Metrics>, route: RouteLabel, method: MethodLabel) -> Self {
        let route = route.position();
        metrics.http_in_flight.change(&[route], 1);
        let method = method.position();
        Self { metrics, route, method, began: Instant::now(), status: None, first_byte: false, finished: false }
    }

    /// The status that was sent.
    pub fn status(&mut self, code: u16) {
        self.status = Some(code);
    }

    /// The first body byte (or the headers of an empty body) went out; later calls change nothing.
    pub fn first_byte(&mut self) {
        if !self.first_byte {
            self.first_byte = true;
            self.metrics.http_ttfb.observe(&[self.route], self.began.elapsed());
        }
    }

    /// Body bytes went out.
    pub fn sent(&mut self, bytes: u64) {
        self.metrics.http_response_bytes.add(&[self.route], bytes);
    }

    /// The response is complete.
    pub fn finished(mut self) {
        self.finished = true;
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let code = match (self.finished, self.status) {
            (true, Some(code)) => code,
            // Complete without a status: a fault of the caller, counted as `other`.
            (true, None) => 0,
            (false, _) => CODE_CANCELLED,
        };
        self.metrics.http_in_flight.change(&[self.route], -1);
        self.metrics.http_requests.increment(&[self.route, self.method, code_position(code)]);
        self.metrics.http_request_duration.observe(&[self.route, self.method], self.began.elapsed());
    }
}

/// Counts a transfer as waiting until it is dropped.
#[derive(Debug)]
pub struct QueueGuard {
    metrics: Arc<Metrics>,
    upstream: usize,
}

impl QueueGuard {
    pub(super) fn new(metrics: Arc<Metrics>, upstream: usize) -> Self {
        metrics.cache_fills_queued.change(&[upstream], 1);
        Self { metrics, upstream }
    }
}

impl Drop for QueueGuard {
    fn drop(&mut self) {
        self.metrics.cache_fills_queued.change(&[self.upstream], -1);
    }
}
