//! The intake stage: the one door by which a task becomes known.
