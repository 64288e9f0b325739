//! ovn-central and ovs containers: start, health, leader labels, backup and repair.
