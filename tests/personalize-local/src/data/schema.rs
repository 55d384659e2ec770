//! Avro schemas of datasets: flat records of float, double, int, long, string, boolean and null, with the required and
//! reserved columns of each dataset type.

use apache_avro::{Schema, schema::UnionSchema};

/// A type of dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatasetType {
    Interactions,
    Users,
    Items,
    Actions,
    ActionInteractions,
}

/// The type of the values in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueType {
    Float,
    Double,
    Int,
    Long,
    String,
    Boolean,
}

use ValueType::{Float, Long};

/// A column that the service gives a meaning: name, type, and whether the dataset must have it.
type ReservedColumn = (&'static str, ValueType, bool);

impl DatasetType {
    /// The type with this name, in the spelling of ARNs or of API responses.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().replace('_', "").as_str() {
            "interactions" => Self::Interactions,
            "users" => Self::Users,
            "items" => Self::Items,
            "actions" => Self::Actions,
            "actioninteractions" => Self::ActionInteractions,
            _ => return None,
        })
    }

    fn reserved(self) -> &'static [ReservedColumn] {
        match self {
            Self::Interactions => &[
                ("USER_ID", ValueType::String, true),
                ("ITEM_ID", ValueType::String, true),
                ("TIMESTAMP", Long, true),
                ("EVENT_TYPE", ValueType::String, false),
                ("EVENT_VALUE", Float, false),
                ("IMPRESSION", ValueType::String, false),
                ("RECOMMENDATION_ID", ValueType::String, false),
                ("EVENT_ATTRIBUTION_SOURCE", ValueType::String, false),
            ],
            Self::Users => &[("USER_ID", ValueType::String, true)],
            Self::Items => &[("ITEM_ID", ValueType::String, true), ("CREATION_TIMESTAMP", Long, false)],
            Self::Actions => &[
                ("ACTION_ID", ValueType::String, true),
                ("CREATION_TIMESTAMP", Long, false),
                ("VALUE", Long, false),
                ("TYPE", ValueType::String, false),
                // The developer guide uses both names.
                ("EXPIRATION_TIMESTAMP", Long, false),
                ("ACTION_EXPIRATION_TIMESTAMP", Long, false),
                ("REPEAT_FREQUENCY", Long, false),
            ],
            Self::ActionInteractions => &[
                ("USER_ID", ValueType::String, true),
                ("ACTION_ID", ValueType::String, true),
                ("EVENT_TYPE", ValueType::String, true),
                ("TIMESTAMP", Long, true),
                ("IMPRESSION", ValueType::String, false),
                ("RECOMMENDATION_ID", ValueType::String, false),
            ],
        }
    }

    /// Minimum and maximum number of metadata columns, which are those that are not reserved.
    fn metadata_limits(self) -> (usize, usize) {
        match self {
            Self::Interactions => (0, 5),
            Self::Users => (1, 25),
            Self::Items => (1, 100),
            Self::Actions => (1, 10),
            Self::ActionInteractions => (0, 5),
        }
    }
}

/// A column of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) value_type: ValueType,
    pub(crate) nullable: bool,
    categorical: bool,
    /// Unstructured text, not a category.
    textual: bool,
    dataset_type: Option<DatasetType>,
}

impl Column {
    fn is_reserved(&self, dataset_type: DatasetType) -> bool {
        dataset_type.reserved().iter().any(|(name, ..)| *name == self.name)
    }

    /// Whether the values are seconds since the epoch.
    pub(crate) fn is_timestamp(&self) -> bool {
        self.dataset_type.is_some_and(|dataset_type| self.is_reserved(dataset_type)) && self.name.ends_with("TIMESTAMP")
    }

    /// Maximum characters of a value (documented quotas). `None` for textual columns: the service truncates them.
    pub(crate) fn max_chars(&self) -> Option<usize> {
        match self.name.as_str() {
            _ if self.value_type != ValueType::String || self.textual => None,
            "USER_ID" | "ITEM_ID" | "ACTION_ID" => Some(256),
            "IMPRESSION" => Some(1000),
            _ if self.categorical || self.dataset_type == Some(DatasetType::Items) => Some(1000),
            _ => None,
        }
    }
}

/// The columns of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns(pub(crate) Vec<Column>);

impl Columns {
    /// Parses and validates the Avro schema of a dataset of this type; the error says why the service rejects it.
    pub(crate) fn parse(text: &str, dataset_type: Option<DatasetType>) -> Result<Self, String> {
        let schema = Schema::parse_str(text).map_err(|error| error.to_string())?;
        let Schema::Record(record) = schema else { return Err("The schema must be a record.".to_owned()) };
        let mut columns = Vec::new();
        for field in record.fields {
            let (value_type, nullable) = match &field.schema {
                Schema::Union(union) => nullable(union),
                schema => primitive(schema).map(|value_type| (value_type, false)),
            }
            .ok_or_else(|| format!("Field {} has a type that is not supported.", field.name))?;
            let attribute = |name: &str| field.custom_attributes.get(name) == Some(&serde_json::Value::Bool(true));
            let (categorical, textual) = (attribute("categorical"), attribute("textual"));
            let same = |column: &&Column| alphanumeric(&column.name) == alphanumeric(&field.name);
            if let Some(Column { name, .. }) = columns.iter().find(same) {
                return Err(format!("Fields {name} and {} have the same letters and digits.", field.name));
            }
            columns.push(Column { name: field.name, value_type, nullable, categorical, textual, dataset_type });
        }
        let columns = Self(columns);
        if let Some(dataset_type) = dataset_type {
            columns.validate(dataset_type)?;
        }
        Ok(columns)
    }

    /// Checks required, reserved and metadata columns.
    fn validate(&self, dataset_type: DatasetType) -> Result<(), String> {
        for (name, value_type, required) in dataset_type.reserved() {
            match self.0.iter().find(|column| column.name == *name) {
                None if *required => return Err(format!("A schema of {dataset_type:?} must have the field {name}.")),
                Some(column) if column.value_type != *value_type => {
                    let expected = format!("{value_type:?}").to_lowercase();
                    return Err(format!("Field {name} must be of type {expected}."));
                }
                Some(column) if *required && column.nullable => {
                    return Err(format!("Field {name} is required and can't be null."));
                }
                _ => {}
            }
        }
        self.validate_attributes(dataset_type)?;
        let has = |name: &str| self.0.iter().any(|column| column.name == name);
        if dataset_type == DatasetType::Interactions && has("EVENT_VALUE") && !has("EVENT_TYPE") {
            return Err("Field EVENT_VALUE needs the field EVENT_TYPE.".to_owned());
        }
        let metadata: Vec<&Column> = self.0.iter().filter(|column| !column.is_reserved(dataset_type)).collect();
        let (min, max) = dataset_type.metadata_limits();
        if metadata.len() < min || metadata.len() > max {
            return Err(format!(
                "A schema of {dataset_type:?} has {min} to {max} metadata fields, this one has {}.",
                metadata.len()
            ));
        }
        let usable = |column: &&&Column| column.value_type != ValueType::String || column.categorical || column.textual;
        if metadata.iter().filter(usable).count() < min {
            return Err(format!(
                "A schema of {dataset_type:?} must have a metadata field that is categorical or a number."
            ));
        }
        Ok(())
    }

    /// Checks the attributes `categorical` and `textual`.
    fn validate_attributes(&self, dataset_type: DatasetType) -> Result<(), String> {
        for Column { name, value_type, textual, .. } in &self.0 {
            if *textual && (dataset_type != DatasetType::Items || *value_type != ValueType::String) {
                return Err(format!("Field {name} can't be textual: only fields of type string in Items can."));
            }
        }
        if self.0.iter().filter(|column| column.textual).count() > 1 {
            return Err("A schema of Items has at most one textual field.".to_owned());
        }
        match self.0.iter().find(|column| column.categorical && column.is_reserved(dataset_type)) {
            Some(column) => Err(format!("Field {} is reserved and can't be categorical.", column.name)),
            None => Ok(()),
        }
    }
}

fn primitive(schema: &Schema) -> Option<ValueType> {
    Some(match schema {
        Schema::Float => Float,
        Schema::Double => ValueType::Double,
        Schema::Int => ValueType::Int,
        Schema::Long => Long,
        Schema::String => ValueType::String,
        Schema::Boolean => ValueType::Boolean,
        _ => return None,
    })
}

fn nullable(union: &UnionSchema) -> Option<(ValueType, bool)> {
    let (nulls, others): (Vec<&Schema>, Vec<&Schema>) =
        union.variants().iter().partition(|schema| matches!(schema, Schema::Null));
    let [one] = others[..] else { return None };
    Some((primitive(one)?, !nulls.is_empty()))
}

/// The letters and digits of a column name; the service requires them to be unique.
pub(crate) fn alphanumeric(name: &str) -> String {
    name.chars().filter(|character| character.is_alphanumeric()).collect()
}

/// Converts the spelling of ARNs to that of API responses: `ACTION_INTERACTIONS` to `Action_Interactions`.
pub(crate) fn type_name(text: &str) -> String {
    let capitalize = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters.map(|letter| letter.to_ascii_lowercase())).collect::<String>()
    };
    text.split('_').map(capitalize).collect::<Vec<_>>().join("_")
}

/// The smallest valid schema for a dataset type.
pub(crate) fn minimal(name: &str) -> String {
    let dataset_type = DatasetType::from_name(name).unwrap_or(DatasetType::Interactions);
    let mut fields = Vec::new();
    for (name, value_type, _) in dataset_type.reserved().iter().filter(|(.., required)| *required) {
        let value_type = if *value_type == Long { "long" } else { "string" };
        fields.push(serde_json::json!({"name": name, "type": value_type}));
    }
    if dataset_type.metadata_limits().0 > 0 {
        fields.push(serde_json::json!({"name": "CATEGORY", "type": "string", "categorical": true}));
    }
    serde_json::json!({
        "type": "record", "name": type_name(name), "namespace": "com.amazonaws.personalize.schema",
        "fields": fields, "version": "1.0"
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::{Columns, DatasetType, ValueType, minimal, type_name};

    fn schema(dataset_type: &str, fields: &[&str]) -> Result<Columns, String> {
        let fields: Vec<String> = fields.iter().map(|field| format!(r#"{{"name":{field}}}"#)).collect();
        let text = format!(r#"{{"type":"record","name":"S","fields":[{}]}}"#, fields.join(","));
        Columns::parse(&text, DatasetType::from_name(dataset_type))
    }

    #[test]
    fn minimal_schema_of_each_type_is_valid() {
        for name in ["Interactions", "Users", "Items", "Actions", "Action_Interactions"] {
            assert!(!Columns::parse(&minimal(name), DatasetType::from_name(name)).unwrap().0.is_empty(), "{name}");
        }
        assert_eq!(type_name("INTERACTIONS"), "Interactions");
        assert_eq!(type_name("ACTION_INTERACTIONS"), "Action_Interactions");
    }

    #[test]
    fn union_with_null_is_nullable() {
        let columns = schema("Users", &[r#""USER_ID","type":"string""#, r#""AGE","type":["null","int"]"#]).unwrap().0;
        assert_eq!((columns[1].value_type, columns[1].nullable), (ValueType::Int, true));
    }

    #[test]
    fn maximum_length_depends_on_column_and_dataset_type() {
        let id = r#""ITEM_ID","type":"string""#;
        let textual = r#""D","type":["null","string"],"textual":true"#;
        let items = schema("Items", &[id, textual, r#""C","type":"string""#, r#""N","type":"int""#]).unwrap().0;
        assert_eq!(items.iter().map(super::Column::max_chars).collect::<Vec<_>>(), [Some(256), None, Some(1000), None]);
        let user = r#""USER_ID","type":"string""#;
        let users = schema("Users", &[user, r#""C","type":"string","categorical":true"#, r#""F","type":"string""#]);
        assert_eq!(
            users.unwrap().0.iter().map(super::Column::max_chars).collect::<Vec<_>>(),
            [Some(256), Some(1000), None]
        );
    }

    #[test]
    fn nested_schema_is_rejected() {
        let nested = r#""A","type":{"type":"array","items":"int"}"#;
        assert!(schema("Users", &[r#""USER_ID","type":"string""#, nested]).unwrap_err().contains("not supported"));
        assert!(Columns::parse(r#""string""#, None).unwrap_err().contains("record"));
        assert!(Columns::parse("{", None).is_err());
    }

    #[test]
    fn required_or_reserved_field_with_wrong_type_is_rejected() {
        let [user, item, time] =
            [r#""USER_ID","type":"string""#, r#""ITEM_ID","type":"string""#, r#""TIMESTAMP","type":"long""#];
        let rejected = |fields: &[&str], message: &str| {
            let error = schema("Interactions", fields).unwrap_err();
            assert!(error.contains(message), "{error}");
        };
        rejected(&[user, time], "must have the field ITEM_ID");
        rejected(&[user, item, r#""TIMESTAMP","type":"string""#], "TIMESTAMP must be of type long");
        rejected(&[user, item, r#""TIMESTAMP","type":["null","long"]"#], "can't be null");
        rejected(&[user, item, time, r#""EVENT_VALUE","type":"float""#], "needs the field EVENT_TYPE");
        rejected(&[user, item, time, r#""EVENT_TYPE","type":"int""#], "EVENT_TYPE must be of type string");
        rejected(&[user, item, time, r#""IMPRESSION","type":"long""#], "IMPRESSION must be of type string");
        rejected(
            &[user, item, time, r#""EVENT_TYPE","type":"string""#, r#""EVENT_VALUE","type":"double""#],
            "EVENT_VALUE must be of type float",
        );
        rejected(
            &[user, item, time, r#""EVENT_TYPE","type":"string","categorical":true"#],
            "EVENT_TYPE is reserved and can't be categorical",
        );
        assert!(schema("Users", &[user]).unwrap_err().contains("1 to 25 metadata fields, this one has 0"));
    }

    #[test]
    fn unusable_metadata_and_textual_field_outside_items_are_rejected() {
        let rejected = |dataset_type: &str, fields: &[&str], message: &str| {
            let error = schema(dataset_type, fields).unwrap_err();
            assert!(error.contains(message), "{error}");
        };
        let [user, item] = [r#""USER_ID","type":"string""#, r#""ITEM_ID","type":"string""#];
        let (plain, number) = (r#""NOTE","type":"string""#, r#""PRICE","type":"double""#);
        let (text, more) = (r#""TEXT","type":"string","textual":true"#, r#""MORE","type":"string","textual":true"#);
        rejected("Users", &[user, plain], "must have a metadata field that is categorical or a number");
        assert!(schema("Users", &[user, plain, number]).is_ok());
        assert!(schema("Items", &[item, text]).is_ok());
        rejected("Users", &[user, number, text], "TEXT can't be textual");
        rejected("Items", &[item, r#""TEXT","type":"long","textual":true"#], "TEXT can't be textual");
        rejected("Items", &[item, text, more], "at most one textual field");
        let (one, other) = (r#""GENRES_FIELD_1","type":"int""#, r#""GENRESFIELD1","type":"int""#);
        rejected("Items", &[item, one, other], "GENRES_FIELD_1 and GENRESFIELD1 have the same letters");
    }

    #[test]
    fn action_schemas_have_reserved_columns_and_metadata_limits() {
        let [user, action] = [r#""USER_ID","type":"string""#, r#""ACTION_ID","type":"string""#];
        let (time, event) = (r#""TIMESTAMP","type":"long""#, r#""EVENT_TYPE","type":"string""#);
        let more: Vec<String> = (0..6).map(|number| format!(r#""M{number}","type":"int""#)).collect();
        let with = |count: usize| {
            let more = more.iter().take(count).map(String::as_str);
            schema("Action_Interactions", &[user, action, event, time].into_iter().chain(more).collect::<Vec<_>>())
        };
        assert!(with(5).is_ok());
        assert!(with(6).unwrap_err().contains("0 to 5 metadata fields, this one has 6"));
        for end in ["EXPIRATION_TIMESTAMP", "ACTION_EXPIRATION_TIMESTAMP"] {
            let end = format!(r#""{end}","type":["long","null"]"#);
            let columns = schema("Actions", &[action, r#""COST","type":"int""#, &end]).unwrap();
            assert!(columns.0[2].is_timestamp(), "{end}");
            assert!(
                schema("Actions", &[action, &end]).unwrap_err().contains("this one has 0"),
                "{end} is not metadata"
            );
        }
    }
}
