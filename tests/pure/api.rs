//! The Kubernetes surface.

mod names;
