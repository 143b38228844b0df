//! One metric with a member for each combination of its labels, all made at the start.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::table::{Kind, Metric, Values};

/// All members of one metric. Finding one costs a multiplication per label, no look-up by text.
#[derive(Debug)]
pub(super) struct Family<M> {
    members: Vec<M>,
    sizes: Vec<usize>,
}

impl<M> Family<M> {
    /// The member at these places of its labels' values, one place a label.
    pub(super) fn at(&self, places: &[usize]) -> Option<&M> {
        debug_assert_eq!(places.len(), self.sizes.len(), "one place a label");
        let index = places.iter().zip(&self.sizes).fold(0, |index: usize, (place, size)| index * size + place);
        self.members.get(index)
    }
}

impl Family<IntCounter> {
    /// Registers a counter.
    pub(super) fn counter(metric: &Metric, upstreams: &[&str], registry: &Registry) -> Self {
        let (names, rows, sizes) = combinations(metric, upstreams);
        let family = ok(metric, IntCounterVec::new(Opts::new(metric.name, metric.help), &names));
        register(metric, registry, &family);
        Self { members: rows.iter().map(|row| ok(metric, family.get_metric_with_label_values(row))).collect(), sizes }
    }

    pub(super) fn increment(&self, places: &[usize]) {
        self.add(places, 1);
    }

    pub(super) fn add(&self, places: &[usize], by: u64) {
        if let Some(member) = self.at(places) {
            member.inc_by(by);
        }
    }
}

impl Family<IntGauge> {
    /// Registers a gauge.
    pub(super) fn gauge(metric: &Metric, upstreams: &[&str], registry: &Registry) -> Self {
        let (names, rows, sizes) = combinations(metric, upstreams);
        let family = ok(metric, IntGaugeVec::new(Opts::new(metric.name, metric.help), &names));
        register(metric, registry, &family);
        Self { members: rows.iter().map(|row| ok(metric, family.get_metric_with_label_values(row))).collect(), sizes }
    }

    /// Sets a gauge that has no labels.
    pub(super) fn set(&self, value: u64) {
        self.set_at(&[], i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(super) fn set_at(&self, places: &[usize], value: i64) {
        if let Some(member) = self.at(places) {
            member.set(value);
        }
    }

    pub(super) fn change(&self, places: &[usize], by: i64) {
        if let Some(member) = self.at(places) {
            member.add(by);
        }
    }
}

impl Family<prometheus::Histogram> {
    /// Registers a histogram.
    pub(super) fn histogram(metric: &Metric, upstreams: &[&str], registry: &Registry) -> Self {
        let (names, rows, sizes) = combinations(metric, upstreams);
        let buckets = match metric.kind {
            Kind::Histogram(bounds) => bounds.to_vec(),
            Kind::Counter | Kind::Gauge => Vec::new(),
        };
        let options = HistogramOpts::new(metric.name, metric.help).buckets(buckets);
        let family = ok(metric, HistogramVec::new(options, &names));
        register(metric, registry, &family);
        Self { members: rows.iter().map(|row| ok(metric, family.get_metric_with_label_values(row))).collect(), sizes }
    }

    pub(super) fn observe(&self, places: &[usize], took: std::time::Duration) {
        if let Some(member) = self.at(places) {
            member.observe(took.as_secs_f64());
        }
    }
}

/// A metric without labels whose value is read at each scrape.
pub(super) fn reading(metric: &Metric, value: f64) -> Vec<prometheus::proto::MetricFamily> {
    let options = Opts::new(metric.name, metric.help);
    match metric.kind {
        Kind::Counter => {
            let family = ok(metric, CounterVec::new(options, &[]));
            ok(metric, family.get_metric_with_label_values::<&str>(&[])).inc_by(value);
            family.collect()
        }
        Kind::Gauge | Kind::Histogram(_) => {
            let family = ok(metric, GaugeVec::new(options, &[]));
            ok(metric, family.get_metric_with_label_values::<&str>(&[])).set(value);
            family.collect()
        }
    }
}

type Combinations<'a> = (Vec<&'static str>, Vec<Vec<&'a str>>, Vec<usize>);

/// The labels' names, each combination of their values (the last label changes fastest), and how many values each has.
fn combinations<'a>(metric: &Metric, upstreams: &[&'a str]) -> Combinations<'a> {
    let mut rows: Vec<Vec<&'a str>> = vec![Vec::new()];
    let mut sizes = Vec::new();
    for label in metric.labels {
        let values: Vec<&str> = match label.values {
            Values::Closed(values) => values.to_vec(),
            Values::Upstreams => upstreams.iter().copied().chain([OTHER_UPSTREAM]).collect(),
        };
        sizes.push(values.len());
        rows = rows
            .iter()
            .flat_map(|row| values.iter().map(|value| row.iter().copied().chain([*value]).collect()))
            .collect();
    }
    (metric.labels.iter().map(|label| label.name).collect(), rows, sizes)
}

fn register<C: Collector + Clone + 'static>(metric: &Metric, registry: &Registry, family: &C) {
    ok(metric, registry.register(Box::new(family.clone())));
}

#[expect(clippy::expect_used, reason = "names and labels are constants of table.rs; a test makes every metric once")]
fn ok<T>(metric: &Metric, result: prometheus::Result<T>) -> T {
    result.expect(metric.name)
}

/// Stands for an upstream that is not configured.
pub(super) const OTHER_UPSTREAM: &str = "other";
