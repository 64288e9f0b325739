//! Pure address allocator.
