//! Development only: temp dirs, free ports, wait_for, running the real services.
