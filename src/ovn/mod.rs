//! Pure, one file per OVN feature: View -> facts. The registry is `FEATURES`.
