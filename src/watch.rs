//! The watch stage: asks providers how their tasks stand and writes what they said.
