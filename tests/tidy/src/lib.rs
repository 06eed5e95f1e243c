//! The repository's own rules.  What matters is a test here; docs/style.md gives the reasons.
