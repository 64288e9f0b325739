//! Logging, metrics registry, health endpoints. Knows no feature: callers hand in closures and
//! collectors.

mod auth;
pub mod family;
pub mod log;
pub mod metrics;
pub mod serve;
pub mod tls;

pub use family::{Family, Recorder, Sample, Snapshot};
pub use log::{Format, LogFile, LogOptions};
pub use serve::{Exposure, Probe, Probes, Serving, Transport, serve};
pub use tls::TlsPolicy;
