//! The limits a client meets.  Numbers only; [`crate::front`] and [`crate::body`] keep them.

use std::time::Duration;

/// What one client, and all of them together, may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Client connections at once; one more is answered 503 and closed.
    pub max_connections: usize,
    /// Header lines of a request; more are answered 431.
    pub max_header_count: usize,
    /// Bytes of request line and headers together; more are answered 431.
    pub max_header_bytes: usize,
    /// Bytes of a request's body; more are answered 413.
    pub max_body_bytes: u64,
    /// From the first byte of a request to the end of its headers; later is answered 408.
    pub header_timeout: Duration,
    /// Longest pause of a client within a body; longer is answered 408.
    pub body_timeout: Duration,
    /// Bytes a second that a body must come with on average, once it has taken longer than
    /// `body_timeout`; 0: any.  Slower is answered 408.
    pub min_body_rate: u64,
    /// How long a connection may be open with no request.
    pub keep_alive_timeout: Duration,
    /// From a request being complete to the head of its answer; later is answered 504.  Also the
    /// longest pause of a backend within the body of an answer.
    pub request_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    pub write_timeout: Duration,
    /// How long requests in flight may take to finish once the front stops.
    pub stop_grace: Duration,
}
