//! Signalling.
