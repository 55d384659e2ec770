//! Datasets' Avro schemas: flat records of float, double, int, long, string, boolean and null, with the columns that
//! a type of dataset requires or reserves.

use apache_avro::{Schema, schema::UnionSchema};

/// A type of dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Interactions,
    Users,
    Items,
    Actions,
    ActionInteractions,
}

/// A type of value that a column may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueType {
    Float,
    Double,
    Int,
    Long,
    Text,
    Boolean,
}

use ValueType::{Float, Long, Text};

/// A column with a meaning of its own: its type, and whether the dataset must have it.
type Reserved = (&'static str, ValueType, bool);

impl Kind {
    /// The type of this name, as ARNs and answers spell it.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().replace('_', "").as_str() {
            "interactions" => Self::Interactions,
            "users" => Self::Users,
            "items" => Self::Items,
            "actions" => Self::Actions,
            "actioninteractions" => Self::ActionInteractions,
            _ => return None,
        })
    }

    fn reserved(self) -> &'static [Reserved] {
        match self {
            Self::Interactions => &[
                ("USER_ID", Text, true),
                ("ITEM_ID", Text, true),
                ("TIMESTAMP", Long, true),
                ("EVENT_TYPE", Text, false),
                ("EVENT_VALUE", Float, false),
                ("IMPRESSION", Text, false),
                ("RECOMMENDATION_ID", Text, false),
                ("EVENT_ATTRIBUTION_SOURCE", Text, false),
            ],
            Self::Users => &[("USER_ID", Text, true)],
            Self::Items => &[("ITEM_ID", Text, true), ("CREATION_TIMESTAMP", Long, false)],
            Self::Actions => &[
                ("ACTION_ID", Text, true),
                ("CREATION_TIMESTAMP", Long, false),
                ("VALUE", Long, false),
                ("TYPE", Text, false),
                // The developer guide has both names.
                ("EXPIRATION_TIMESTAMP", Long, false),
                ("ACTION_EXPIRATION_TIMESTAMP", Long, false),
                ("REPEAT_FREQUENCY", Long, false),
            ],
            Self::ActionInteractions => &[
                ("USER_ID", Text, true),
                ("ACTION_ID", Text, true),
                ("EVENT_TYPE", Text, true),
                ("TIMESTAMP", Long, true),
                ("IMPRESSION", Text, false),
                ("RECOMMENDATION_ID", Text, false),
            ],
        }
    }

    /// Fewest and most columns without a meaning of their own.
    fn metadata(self) -> (usize, usize) {
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
    /// Text to be analysed rather than a word from a list.
    textual: bool,
    kind: Option<Kind>,
}

impl Column {
    /// Has a meaning of its own in a dataset of this type.
    fn is_reserved(&self, kind: Kind) -> bool {
        kind.reserved().iter().any(|(name, ..)| *name == self.name)
    }

    /// Holds seconds since the epoch.
    pub(crate) fn is_time(&self) -> bool {
        self.kind.is_some_and(|kind| self.is_reserved(kind)) && self.name.ends_with("TIMESTAMP")
    }

    /// Most characters of a value (documented quotas). Text to be analysed is truncated rather than refused.
    pub(crate) fn longest(&self) -> Option<usize> {
        match self.name.as_str() {
            _ if self.value_type != Text || self.textual => None,
            "USER_ID" | "ITEM_ID" | "ACTION_ID" => Some(256),
            "IMPRESSION" => Some(1000),
            _ if self.categorical || self.kind == Some(Kind::Items) => Some(1000),
            _ => None,
        }
    }
}

/// The columns of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns(pub(crate) Vec<Column>);

impl Columns {
    /// Reads an Avro schema of a dataset of this type; the error says what Personalize would not take.
    pub(crate) fn parse(text: &str, kind: Option<Kind>) -> Result<Self, String> {
        let schema = Schema::parse_str(text).map_err(|error| error.to_string())?;
        let Schema::Record(record) = schema else { return Err("The schema must be a record.".to_owned()) };
        let mut columns = Vec::new();
        for field in record.fields {
            let (value_type, nullable) = match &field.schema {
                Schema::Union(union) => nullable(union),
                schema => plain(schema).map(|value_type| (value_type, false)),
            }
            .ok_or_else(|| format!("Field {} has a type that is not supported.", field.name))?;
            let marked = |mark: &str| field.custom_attributes.get(mark) == Some(&serde_json::Value::Bool(true));
            let (categorical, textual) = (marked("categorical"), marked("textual"));
            let same = |column: &&Column| alphanumeric(&column.name) == alphanumeric(&field.name);
            if let Some(Column { name, .. }) = columns.iter().find(same) {
                return Err(format!("Fields {name} and {} have the same letters and digits.", field.name));
            }
            columns.push(Column { name: field.name, value_type, nullable, categorical, textual, kind });
        }
        let columns = Self(columns);
        if let Some(kind) = kind {
            columns.check(kind)?;
        }
        Ok(columns)
    }

    /// The columns that the type of dataset requires or reserves.
    fn check(&self, kind: Kind) -> Result<(), String> {
        let reserved = kind.reserved();
        for (name, value_type, required) in reserved {
            match self.0.iter().find(|column| column.name == *name) {
                None if *required => return Err(format!("A schema of {kind:?} must have the field {name}.")),
                Some(column) if column.value_type != *value_type => {
                    let wanted = format!("{value_type:?}").to_lowercase().replace("text", "string");
                    return Err(format!("Field {name} must be of type {wanted}."));
                }
                Some(column) if *required && column.nullable => {
                    return Err(format!("Field {name} is required and can't be null."));
                }
                _ => {}
            }
        }
        self.check_marks(kind)?;
        let has = |name: &str| self.0.iter().any(|column| column.name == name);
        if kind == Kind::Interactions && has("EVENT_VALUE") && !has("EVENT_TYPE") {
            return Err("Field EVENT_VALUE needs the field EVENT_TYPE.".to_owned());
        }
        let metadata: Vec<&Column> = self.0.iter().filter(|column| !column.is_reserved(kind)).collect();
        let (fewest, most) = kind.metadata();
        if metadata.len() < fewest || metadata.len() > most {
            return Err(format!(
                "A schema of {kind:?} has {fewest} to {most} metadata fields, this one has {}.",
                metadata.len()
            ));
        }
        let useful = |column: &&&Column| column.value_type != Text || column.categorical || column.textual;
        if metadata.iter().filter(useful).count() < fewest {
            return Err(format!("A schema of {kind:?} must have a metadata field that is categorical or a number."));
        }
        Ok(())
    }

    /// What the marks `categorical` and `textual` may be on.
    fn check_marks(&self, kind: Kind) -> Result<(), String> {
        for Column { name, value_type, textual, .. } in &self.0 {
            if *textual && (kind != Kind::Items || *value_type != Text) {
                return Err(format!("Field {name} can't be textual: only fields of type string in Items can."));
            }
        }
        if self.0.iter().filter(|column| column.textual).count() > 1 {
            return Err("A schema of Items has at most one textual field.".to_owned());
        }
        match self.0.iter().find(|column| column.categorical && column.is_reserved(kind)) {
            Some(column) => Err(format!("Field {} is reserved and can't be categorical.", column.name)),
            None => Ok(()),
        }
    }
}

fn plain(schema: &Schema) -> Option<ValueType> {
    Some(match schema {
        Schema::Float => Float,
        Schema::Double => ValueType::Double,
        Schema::Int => ValueType::Int,
        Schema::Long => Long,
        Schema::String => Text,
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

/// What must be unique of a column's name.
pub(crate) fn alphanumeric(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).collect()
}

/// `INTERACTIONS` in an ARN is `Interactions` in an answer.
pub(crate) fn type_name(text: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters.map(|letter| letter.to_ascii_lowercase())).collect::<String>()
    };
    text.split('_').map(capital).collect::<Vec<_>>().join("_")
}

/// The least schema that a dataset of this type may have.
pub(crate) fn minimal(kind: &str) -> String {
    let known = Kind::of(kind).unwrap_or(Kind::Interactions);
    let mut fields = Vec::new();
    for (name, value_type, _) in known.reserved().iter().filter(|(.., required)| *required) {
        let value_type = if *value_type == Long { "long" } else { "string" };
        fields.push(serde_json::json!({"name": name, "type": value_type}));
    }
    if known.metadata().0 > 0 {
        fields.push(serde_json::json!({"name": "CATEGORY", "type": "string", "categorical": true}));
    }
    serde_json::json!({
        "type": "record", "name": type_name(kind), "namespace": "com.amazonaws.personalize.schema",
        "fields": fields, "version": "1.0"
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::{Columns, Kind, ValueType, minimal, type_name};

    fn schema(kind: &str, fields: &[&str]) -> Result<Columns, String> {
        let fields: Vec<String> = fields.iter().map(|field| format!(r#"{{"name":{field}}}"#)).collect();
        let text = format!(r#"{{"type":"record","name":"S","fields":[{}]}}"#, fields.join(","));
        Columns::parse(&text, Kind::of(kind))
    }

    #[test]
    fn the_minimal_schemas_parse() {
        for kind in ["Interactions", "Users", "Items", "Actions", "Action_Interactions"] {
            assert!(!Columns::parse(&minimal(kind), Kind::of(kind)).unwrap().0.is_empty(), "{kind}");
        }
        assert_eq!(type_name("INTERACTIONS"), "Interactions");
        assert_eq!(type_name("ACTION_INTERACTIONS"), "Action_Interactions");
    }

    #[test]
    fn a_union_with_null_is_nullable() {
        let columns = schema("Users", &[r#""USER_ID","type":"string""#, r#""AGE","type":["null","int"]"#]).unwrap().0;
        assert_eq!((columns[1].value_type, columns[1].nullable), (ValueType::Int, true));
    }

    #[test]
    fn values_are_as_long_as_the_quotas_allow() {
        let id = r#""ITEM_ID","type":"string""#;
        let marked = r#""D","type":["null","string"],"textual":true"#;
        let items = schema("Items", &[id, marked, r#""C","type":"string""#, r#""N","type":"int""#]).unwrap().0;
        assert_eq!(items.iter().map(super::Column::longest).collect::<Vec<_>>(), [Some(256), None, Some(1000), None]);
        let user = r#""USER_ID","type":"string""#;
        let users = schema("Users", &[user, r#""C","type":"string","categorical":true"#, r#""F","type":"string""#]);
        assert_eq!(
            users.unwrap().0.iter().map(super::Column::longest).collect::<Vec<_>>(),
            [Some(256), Some(1000), None]
        );
    }

    #[test]
    fn nested_schemas_are_refused() {
        let nested = r#""A","type":{"type":"array","items":"int"}"#;
        assert!(schema("Users", &[r#""USER_ID","type":"string""#, nested]).unwrap_err().contains("not supported"));
        assert!(Columns::parse(r#""string""#, None).unwrap_err().contains("record"));
        assert!(Columns::parse("{", None).is_err());
    }

    #[test]
    fn required_and_reserved_fields_have_their_types() {
        let [user, item, time] =
            [r#""USER_ID","type":"string""#, r#""ITEM_ID","type":"string""#, r#""TIMESTAMP","type":"long""#];
        let refused = |fields: &[&str], words: &str| {
            let why = schema("Interactions", fields).unwrap_err();
            assert!(why.contains(words), "{why}");
        };
        refused(&[user, time], "must have the field ITEM_ID");
        refused(&[user, item, r#""TIMESTAMP","type":"string""#], "TIMESTAMP must be of type long");
        refused(&[user, item, r#""TIMESTAMP","type":["null","long"]"#], "can't be null");
        refused(&[user, item, time, r#""EVENT_VALUE","type":"float""#], "needs the field EVENT_TYPE");
        refused(&[user, item, time, r#""EVENT_TYPE","type":"int""#], "EVENT_TYPE must be of type string");
        refused(&[user, item, time, r#""IMPRESSION","type":"long""#], "IMPRESSION must be of type string");
        refused(
            &[user, item, time, r#""EVENT_TYPE","type":"string""#, r#""EVENT_VALUE","type":"double""#],
            "EVENT_VALUE must be of type float",
        );
        refused(
            &[user, item, time, r#""EVENT_TYPE","type":"string","categorical":true"#],
            "EVENT_TYPE is reserved and can't be categorical",
        );
        assert!(schema("Users", &[user]).unwrap_err().contains("1 to 25 metadata fields, this one has 0"));
    }

    #[test]
    fn metadata_is_of_use_and_text_belongs_to_items() {
        let refused = |kind: &str, fields: &[&str], words: &str| {
            let why = schema(kind, fields).unwrap_err();
            assert!(why.contains(words), "{why}");
        };
        let [user, item] = [r#""USER_ID","type":"string""#, r#""ITEM_ID","type":"string""#];
        let (plain, number) = (r#""NOTE","type":"string""#, r#""PRICE","type":"double""#);
        let (text, more) = (r#""TEXT","type":"string","textual":true"#, r#""MORE","type":"string","textual":true"#);
        refused("Users", &[user, plain], "must have a metadata field that is categorical or a number");
        assert!(schema("Users", &[user, plain, number]).is_ok());
        assert!(schema("Items", &[item, text]).is_ok());
        refused("Users", &[user, number, text], "TEXT can't be textual");
        refused("Items", &[item, r#""TEXT","type":"long","textual":true"#], "TEXT can't be textual");
        refused("Items", &[item, text, more], "at most one textual field");
        let (one, other) = (r#""GENRES_FIELD_1","type":"int""#, r#""GENRESFIELD1","type":"int""#);
        refused("Items", &[item, one, other], "GENRES_FIELD_1 and GENRESFIELD1 have the same letters");
    }

    #[test]
    fn actions_and_what_users_do_with_them_have_columns_of_their_own() {
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
            assert!(columns.0[2].is_time(), "{end}");
            assert!(schema("Actions", &[action, &end]).unwrap_err().contains("this one has 0"), "{end} is no metadata");
        }
    }
}
