//! Names, object kinds, wire types and one client per service.
