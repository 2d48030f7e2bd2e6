//! The archive stage: streams due assets into their destinations and proves that they arrived.
