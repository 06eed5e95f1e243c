//! Figures beside the named peer.
