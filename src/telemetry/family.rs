//! Tables of metric families: a program declares its names, labels and buckets once; recording,
//! registration and the checks of dashboards come from the table.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    CounterVec, Error, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Gauge,
    Counter,
    /// Upper bounds of the buckets.
    Histogram(&'static [f64]),
}

/// One metric name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

impl Family {
    pub const fn gauge(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Family { name, kind: Kind::Gauge, help, labels }
    }

    pub const fn counter(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Family { name, kind: Kind::Counter, help, labels }
    }

    pub const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        buckets: &'static [f64],
    ) -> Self {
        Family { name, kind: Kind::Histogram(buckets), help, labels }
    }

    /// A value of this family, for [`Snapshot::replace`].
    pub fn sample(&'static self, labels: &[&str], value: f64) -> Sample {
        Sample { family: self, labels: labels.iter().map(|l| (*l).to_owned()).collect(), value }
    }
}

#[derive(Debug, Clone)]
enum Series {
    Gauge(GaugeVec),
    Counter(CounterVec),
    Histogram(HistogramVec),
}

impl Series {
    fn new(family: &Family) -> Result<Self, Error> {
        let opts = Opts::new(family.name, family.help);
        Ok(match family.kind {
            Kind::Gauge => Series::Gauge(GaugeVec::new(opts, family.labels)?),
            Kind::Counter => Series::Counter(CounterVec::new(opts, family.labels)?),
            Kind::Histogram(buckets) => {
                let opts = HistogramOpts::from(opts).buckets(buckets.to_vec());
                Series::Histogram(HistogramVec::new(opts, family.labels)?)
            }
        })
    }

    fn collector(&self) -> Box<dyn Collector> {
        match self {
            Series::Gauge(vec) => Box::new(vec.clone()),
            Series::Counter(vec) => Box::new(vec.clone()),
            Series::Histogram(vec) => Box::new(vec.clone()),
        }
    }
}

/// Values that a program writes when it measures. A family that is not in the table, or labels
/// that do not fit it, are left out: a metric must never stop the program.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<BTreeMap<&'static str, Series>>);

impl Recorder {
    pub fn register(registry: &Registry, families: &[Family]) -> Result<Self, Error> {
        let mut all = BTreeMap::new();
        for family in families {
            let series = Series::new(family)?;
            registry.register(series.collector())?;
            all.insert(family.name, series);
        }
        Ok(Recorder(Arc::new(all)))
    }

    /// Sets a gauge.
    pub fn set(&self, family: &Family, labels: &[&str], value: f64) {
        if let Some(Series::Gauge(vec)) = self.0.get(family.name)
            && let Ok(gauge) = vec.get_metric_with_label_values(labels)
        {
            gauge.set(value);
        }
    }

    /// Adds to a counter.
    pub fn add(&self, family: &Family, labels: &[&str], value: f64) {
        if let Some(Series::Counter(vec)) = self.0.get(family.name)
            && let Ok(counter) = vec.get_metric_with_label_values(labels)
        {
            counter.inc_by(value.max(0.0));
        }
    }

    /// Puts a value into a histogram.
    pub fn observe(&self, family: &Family, labels: &[&str], value: f64) {
        if let Some(Series::Histogram(vec)) = self.0.get(family.name)
            && let Ok(histogram) = vec.get_metric_with_label_values(labels)
        {
            histogram.observe(value);
        }
    }

    /// Drops one series.
    pub fn remove(&self, family: &Family, labels: &[&str]) {
        let _ = match self.0.get(family.name) {
            Some(Series::Gauge(vec)) => vec.remove_label_values(labels),
            Some(Series::Counter(vec)) => vec.remove_label_values(labels),
            Some(Series::Histogram(vec)) => vec.remove_label_values(labels),
            None => Ok(()),
        };
    }
}

/// One value of a gauge or counter that is replaced with all its siblings.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub family: &'static Family,
    /// In the order of the family's labels.
    pub labels: Vec<String>,
    pub value: f64,
}

/// Gauges and counters that describe a state seen elsewhere. All samples are replaced at once, so
/// that what vanished there vanishes here, and a scrape never sees half of it (upstream resets
/// first, and exports nothing meanwhile).
#[derive(Debug, Clone)]
pub struct Snapshot {
    families: &'static [Family],
    descriptions: Vec<Desc>,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Snapshot {
    pub fn register(registry: &Registry, families: &'static [Family]) -> Result<Self, Error> {
        let mut descriptions = Vec::new();
        for family in families {
            let labels = family.labels.iter().map(|l| (*l).to_owned()).collect();
            let (name, help) = (family.name.to_owned(), family.help.to_owned());
            descriptions.push(Desc::new(name, help, labels, HashMap::new())?);
        }
        let snapshot = Snapshot { families, descriptions, samples: Arc::default() };
        registry.register(Box::new(snapshot.clone()))?;
        Ok(snapshot)
    }

    /// The state as it is now.
    pub fn replace(&self, samples: Vec<Sample>) {
        *self.samples.lock().unwrap_or_else(PoisonError::into_inner) = samples;
    }
}

impl Collector for Snapshot {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_name: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
        for sample in samples.iter() {
            by_name.entry(sample.family.name).or_default().push(sample);
        }
        let mut families = Vec::new();
        for family in self.families {
            let Some(samples) = by_name.get(family.name) else { continue };
            let Ok(series) = Series::new(family) else { continue };
            for sample in samples {
                match &series {
                    Series::Gauge(vec) => {
                        if let Ok(gauge) = vec.get_metric_with_label_values(&sample.labels) {
                            gauge.set(sample.value);
                        }
                    }
                    Series::Counter(vec) => {
                        if let Ok(counter) = vec.get_metric_with_label_values(&sample.labels) {
                            counter.inc_by(sample.value.max(0.0));
                        }
                    }
                    Series::Histogram(_) => {}
                }
            }
            families.extend(series.collector().collect());
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static UP: Family = Family::gauge("x_up", "Up.", &["who"]);
    static SEEN: Family = Family::counter("x_seen_total", "Seen.", &["who"]);
    static TABLE: &[Family] = &[UP, SEEN];

    fn text(registry: &Registry) -> String {
        prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn a_snapshot_forgets_what_vanished() {
        let registry = Registry::new();
        let snapshot = Snapshot::register(&registry, TABLE).unwrap();
        snapshot.replace(vec![UP.sample(&["a"], 1.0), SEEN.sample(&["a"], 7.0)]);
        assert!(text(&registry).contains("x_up{who=\"a\"} 1\n"));
        assert!(text(&registry).contains("x_seen_total{who=\"a\"} 7\n"));
        snapshot.replace(vec![UP.sample(&["b"], 0.0)]);
        assert!(!text(&registry).contains("\"a\""), "{}", text(&registry));
        assert!(text(&registry).contains("x_up{who=\"b\"} 0\n"));
    }

    #[test]
    fn wrong_labels_are_left_out() {
        let registry = Registry::new();
        let recorder = Recorder::register(&registry, TABLE).unwrap();
        recorder.set(&UP, &["a", "b"], 1.0);
        recorder.add(&UP, &["a"], 1.0);
        recorder.set(&Family::gauge("other", "", &[]), &[], 1.0);
        assert_eq!(text(&registry), "");
        recorder.set(&UP, &["a"], 1.0);
        recorder.remove(&UP, &["a"]);
        assert_eq!(text(&registry), "");
    }
}
