//! Configuration: compiled-in defaults, a file and the environment, read into the configuration that each room owns.
