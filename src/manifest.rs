//! The manifest: the durable record of tasks, assets and objects, and the only hand-over between stages.
