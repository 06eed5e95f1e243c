//! The balancer in front of the integrator core.
