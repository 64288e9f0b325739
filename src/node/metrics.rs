//! Metrics of the node daemon. Names and labels are those of upstream's dashboards.

use prometheus::{CounterVec, HistogramOpts, HistogramVec, Opts, Registry, exponential_buckets};

/// Handles of the metrics that requests write.
#[derive(Debug, Clone)]
pub struct Metrics {
    node: String,
    latency: HistogramVec,
    wait_address: CounterVec,
    wait_route: CounterVec,
    wait_connectivity: CounterVec,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    Address,
    Route,
    Connectivity,
}

impl Metrics {
    /// Creates the metrics and registers all of them (BUG 13: one of upstream's never was).
    pub fn register(registry: &Registry, node: &str) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let vec = CounterVec::new(Opts::new(name, help), &["node_name"])?;
            registry.register(Box::new(vec.clone()))?;
            vec.with_label_values(&[node]).reset();
            Ok::<_, prometheus::Error>(vec)
        };
        let buckets = exponential_buckets(0.001, 2.0, 10)?;
        let latency = HistogramVec::new(
            HistogramOpts::new("cni_op_latency_seconds", "The latency seconds for cni operations.")
                .buckets(buckets),
            &["node_name", "method", "status_code"],
        )?;
        registry.register(Box::new(latency.clone()))?;
        Ok(Metrics {
            node: node.to_owned(),
            latency,
            wait_address: counter(
                "cni_wait_address_seconds_total",
                "Latency that cni wait controller to assign an address",
            )?,
            wait_route: counter(
                "cni_wait_route_seconds_total",
                "Latency that cni wait controller to add routed annotation to pod",
            )?,
            wait_connectivity: counter(
                "cni_wait_connectivity_seconds_total",
                "Latency that cni wait address ready in overlay network",
            )?,
        })
    }

    /// One request of the plugin is answered.
    pub fn observe_request(&self, endpoint: &str, status: u16, seconds: f64) {
        let status = status.to_string();
        self.latency.with_label_values(&[&*self.node, endpoint, &*status]).observe(seconds);
    }

    /// Time that a request slept; upstream counted whole polling rounds.
    pub fn observe_wait(&self, waited: Waited, seconds: f64) {
        let vec = match waited {
            Waited::Address => &self.wait_address,
            Waited::Route => &self.wait_route,
            Waited::Connectivity => &self.wait_connectivity,
        };
        vec.with_label_values(&[&*self.node]).inc_by(seconds.max(0.0));
    }
}
