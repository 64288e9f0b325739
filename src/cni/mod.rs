//! CNI specification types and the thin plugin.
