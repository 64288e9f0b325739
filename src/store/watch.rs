//! Watches: raw Kubernetes objects in, validated objects out.
