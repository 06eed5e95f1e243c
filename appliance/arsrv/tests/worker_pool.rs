//! The pool against real Python: calls, faults, confinement, deployments.

mod worker;
