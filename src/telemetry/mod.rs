//! Logging, metrics registry, health endpoints.
