//! Loops of the node daemon: CNI server, attachments, reconcile.
