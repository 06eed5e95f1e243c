//! Fuzz targets of our own parsers, in `tests/`.
//!
//! Under `make test` each runs a few seconds of random input; `make fuzz` runs each for a minute; with the program
//! cargo-bolero, `cargo bolero test -p fuzz NAME` runs one under a coverage-guided engine.
//! What breaks a parser is kept by a unit test beside the parser.
