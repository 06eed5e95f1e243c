//! The object store as the other services meet it: through its socket, and through kills.

#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod start;
#[cfg(test)]
mod support;
#[cfg(test)]
mod transactions;
#[cfg(test)]
mod watching;
