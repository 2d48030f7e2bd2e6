//! The store port: destinations, behind one face.
