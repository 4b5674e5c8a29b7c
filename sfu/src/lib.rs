//! Media core.
