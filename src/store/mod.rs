//! The store: tables of validated objects, indexes, and views that record what was read.
