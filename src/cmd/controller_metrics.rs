//! Figures of the reconcile loop as metrics, read when they are scraped.

use std::sync::{Arc, PoisonError};

use prometheus::{
    IntGauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{
    controller::reconcile::{Progress, SharedProgress},
    telemetry::metrics,
};

type Read = fn(&Progress) -> i64;

const FIGURES: &[(&str, &str, Read)] = &[
    ("kube_ovn_transactions", "Northbound transactions sent.", |p| p.transactions as i64),
    ("kube_ovn_operations", "Northbound operations sent.", |p| p.operations as i64),
    ("kube_ovn_refused_transactions", "Northbound transactions refused.", |p| p.refused as i64),
    ("kube_ovn_drift", "Rows of ours that somebody else changed.", |p| p.drift as i64),
    ("kube_ovn_owner_runs", "Feature runs since the start.", |p| p.owner_runs as i64),
    ("kube_ovn_oracle_differences", "Owners that a full recomputation corrected.", |p| {
        p.oracle_differences as i64
    }),
    ("kube_ovn_oracle_runs", "Full recomputations made and compared.", |p| p.oracle_runs as i64),
    ("kube_ovn_waiting", "Pods and nodes that wait for an address.", |p| {
        p.waiting_claimants as i64
    }),
    ("kube_ovn_rows", "Northbound rows wanted.", |p| p.rows as i64),
    ("kube_ovn_settled", "1 when everything known is applied.", |p| i64::from(p.settled)),
];

#[derive(Clone)]
struct Figures {
    progress: SharedProgress,
    gauges: Vec<IntGauge>,
}

/// Registers the figures of `progress`.
pub fn register(progress: &SharedProgress) -> Result<(), prometheus::Error> {
    let gauges = FIGURES
        .iter()
        .map(|(name, help, _)| IntGauge::with_opts(Opts::new(*name, *help)))
        .collect::<Result<Vec<_>, _>>()?;
    metrics::register(Figures { progress: Arc::clone(progress), gauges })?;
    Ok(())
}

impl Collector for Figures {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        for (gauge, (_, _, read)) in self.gauges.iter().zip(FIGURES) {
            gauge.set(read(&progress));
        }
        self.gauges.iter().flat_map(Collector::collect).collect()
    }
}
