//! Datasets' Avro schemas: flat records of float, double, int, long, string, boolean and null.

use apache_avro::{Schema, schema::UnionSchema};

/// A type of value that a column may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueType {
    Float,
    Int,
    Long,
    Text,
    Boolean,
}

/// A column of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) value_type: ValueType,
    pub(crate) nullable: bool,
    /// Only such columns have a limit of 1000 characters per value.
    pub(crate) categorical: bool,
}

/// The columns of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns(pub(crate) Vec<Column>);

impl Columns {
    /// Reads an Avro schema; the error says what Personalize would not take.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let schema = Schema::parse_str(text).map_err(|error| error.to_string())?;
        let Schema::Record(record) = schema else { return Err("The schema must be a record.".to_owned()) };
        let mut columns = Vec::new();
        for field in record.fields {
            let (value_type, nullable) = match &field.schema {
                Schema::Union(union) => nullable(union),
                schema => plain(schema).map(|value_type| (value_type, false)),
            }
            .ok_or_else(|| format!("Field {} has a type that is not supported.", field.name))?;
            let categorical = field.custom_attributes.get("categorical") == Some(&serde_json::Value::Bool(true));
            columns.push(Column { name: field.name, value_type, nullable, categorical });
        }
        Ok(Self(columns))
    }
}

fn plain(schema: &Schema) -> Option<ValueType> {
    Some(match schema {
        Schema::Float | Schema::Double => ValueType::Float,
        Schema::Int => ValueType::Int,
        Schema::Long => ValueType::Long,
        Schema::String => ValueType::Text,
        Schema::Boolean => ValueType::Boolean,
        _ => return None,
    })
}

fn nullable(union: &UnionSchema) -> Option<(ValueType, bool)> {
    let (nulls, others): (Vec<&Schema>, Vec<&Schema>) =
        union.variants().iter().partition(|schema| matches!(schema, Schema::Null));
    let [one] = others[..] else { return None };
    Some((plain(one)?, !nulls.is_empty()))
}

/// `INTERACTIONS` in an ARN is `Interactions` in an answer.
pub(crate) fn type_name(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters.map(|letter| letter.to_ascii_lowercase())).collect()
}

/// The least schema that a dataset of this type may have.
pub(crate) fn minimal(kind: &str) -> String {
    let fields = match kind.to_ascii_lowercase().as_str() {
        "users" => vec![("USER_ID", "string"), ("SEGMENT", "string")],
        "items" => vec![("ITEM_ID", "string"), ("CATEGORY", "string")],
        "actions" => vec![("ACTION_ID", "string")],
        _ => vec![("USER_ID", "string"), ("ITEM_ID", "string"), ("TIMESTAMP", "long")],
    };
    let fields: Vec<serde_json::Value> =
        fields.into_iter().map(|(name, kind)| serde_json::json!({"name": name, "type": kind})).collect();
    serde_json::json!({
        "type": "record", "name": type_name(kind), "namespace": "com.amazonaws.personalize.schema",
        "fields": fields, "version": "1.0"
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::{Columns, ValueType, minimal, type_name};

    #[test]
    fn the_minimal_schemas_parse() {
        for kind in ["Interactions", "Users", "Items", "Actions"] {
            assert!(!Columns::parse(&minimal(kind)).unwrap().0.is_empty(), "{kind}");
        }
        assert_eq!(type_name("INTERACTIONS"), "Interactions");
    }

    #[test]
    fn a_union_with_null_is_nullable_and_categories_are_known() {
        let text = r#"{"type":"record","name":"Users","fields":[{"name":"AGE","type":["null","int"]},
            {"name":"G","type":"string","categorical":true}]}"#;
        let columns = Columns::parse(text).unwrap().0;
        assert_eq!((columns[0].value_type, columns[0].nullable), (ValueType::Int, true));
        assert!(columns[1].categorical);
    }

    #[test]
    fn nested_schemas_are_refused() {
        let text = r#"{"type":"record","name":"U","fields":[{"name":"A","type":{"type":"array","items":"int"}}]}"#;
        assert!(Columns::parse(text).is_err());
    }
}
