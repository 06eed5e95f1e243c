//! The admin API: authentication, roles, audit; the only door for changes.
