//! The proxy core that arldb and ardpx stand on.
