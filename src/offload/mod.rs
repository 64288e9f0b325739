//! Pure: VF and representor choice, vendor rules.
