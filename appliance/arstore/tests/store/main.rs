//! Databases and small files as their users meet them.

#[cfg(test)]
mod databases;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod files;
