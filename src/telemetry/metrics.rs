//! The metrics registry. Names and labels are upstream's; the text format is Prometheus 0.0.4.
//!
//! Collectors are made and registered at start by the program that owns them:
//!
//! ```
//! use kube_ovn::telemetry::metrics;
//! let runs = prometheus::IntCounter::new("example_runs_total", "Runs")?;
//! metrics::register(runs)?.inc();
//! # Ok::<(), prometheus::Error>(())
//! ```

use std::sync::OnceLock;

use prometheus::{Encoder, Registry, TextEncoder, core::Collector, process_collector};

/// The registry of this process; holds `process_*` from the start.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let registry = Registry::new();
        let process = process_collector::ProcessCollector::for_self();
        // Fails only for a second registration, and the registry is new.
        let _ = registry.register(Box::new(process));
        registry
    })
}

/// Registers a collector and gives it back.
pub fn register<C: Collector + Clone + 'static>(collector: C) -> Result<C, prometheus::Error> {
    registry().register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// All samples in the text format.
pub fn render() -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry().gather(), &mut text)?;
    Ok(text)
}
