//! Composition roots, one file per applet: flags -> configuration -> wiring -> run.
