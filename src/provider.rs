//! The provider port: task APIs, each read through a declarative description.
