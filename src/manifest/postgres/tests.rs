//! What is particular to Postgres: every statement prepared, the schema's words, several machines at once.

use crate::manifest::conformance::conformance;
use crate::manifest::conformance::world::World;

mod prepared {
    use super::*;
    conformance!(World::postgres(false));
}

mod behind_a_pooler {
    use super::*;
    conformance!(World::postgres(true));
}
