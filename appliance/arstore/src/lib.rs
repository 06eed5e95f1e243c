//! SQLite: opening, durable settings, migrations; the only crate that names rusqlite.
