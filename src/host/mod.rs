//! Pure: what a node must look like, and the ordered operations that make it so.
