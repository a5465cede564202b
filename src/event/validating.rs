//! For tests: what of a value a JSON Schema refuses, by a validator of others that knows the whole of JSON Schema.

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

/// A schema, read.
pub(crate) struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    pub(crate) fn new(schema: Value) -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        // What is written of formats (`date-time`, `uint32`) counts.
        compiler.enable_format_assertions();
        compiler.add_resource("schema:tested", schema).unwrap();
        let index = compiler.compile("schema:tested", &mut schemas).unwrap();
        Self { schemas, index }
    }

    /// What is wrong with `value`; `None` when it is valid.
    pub(crate) fn refuses(&self, value: &Value) -> Option<String> {
        self.schemas.validate(value, self.index).err().map(|error| error.to_string())
    }
}
