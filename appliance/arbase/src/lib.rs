//! Process skeleton: journal, signals, readiness, config file, error chain, HTTP reply form.
