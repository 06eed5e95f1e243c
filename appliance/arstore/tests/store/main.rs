//! Databases and small files as their users meet them.

mod databases;
mod documents;
mod files;
