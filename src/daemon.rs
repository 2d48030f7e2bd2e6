//! The daemon: wires the rooms together, starts the stages, and stops them cleanly.
