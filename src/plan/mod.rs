//! Generic and pure: engine, differ, transactions, adoption, fuse, explain. Knows no feature.
