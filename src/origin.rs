//! The origin port: the bytes behind a result URL.
