//! Tools for HTTP as a client: the transport, bodies, the pace of calls, and the guard against inside addresses.
