//! A whole fake provider, CDN and S3 endpoint on loopback, for the demo, the tests and the benches.
