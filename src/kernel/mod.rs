//! I/O: one call is one kernel effect; no decisions.
