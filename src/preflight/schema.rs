//! The schema of a dataset, as DescribeSchema returns it: Avro JSON.

use super::finding::Finding;
use crate::api::{ImportMode, plural};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// The type of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatasetType {
    /// Item interactions.
    Interactions,
    /// Users.
    Users,
    /// Items.
    Items,
    /// Actions.
    Actions,
    /// Action interactions.
    ActionInteractions,
}

/// The domain of a dataset group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Domain {
    /// ECOMMERCE.
    Ecommerce,
    /// VIDEO_ON_DEMAND.
    VideoOnDemand,
}

/// The letters and digits of a name, in lower case: names must differ in them.
fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

impl FromStr for DatasetType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match letters(text).as_str() {
            "interactions" | "iteminteractions" => Self::Interactions,
            "users" => Self::Users,
            "items" => Self::Items,
            "actions" => Self::Actions,
            "actioninteractions" => Self::ActionInteractions,
            _ => return Err("must be INTERACTIONS, USERS, ITEMS, ACTIONS or ACTION_INTERACTIONS".into()),
        })
    }
}

impl FromStr for Domain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match letters(text).as_str() {
            "ecommerce" => Ok(Self::Ecommerce),
            "videoondemand" => Ok(Self::VideoOnDemand),
            _ => Err("must be ECOMMERCE or VIDEO_ON_DEMAND".into()),
        }
    }
}

/// A type of the values in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `int`.
    Int,
    /// `long`.
    Long,
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// `boolean`.
    Boolean,
    /// `string`.
    String,
}

impl Kind {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "int" => Self::Int,
            "long" => Self::Long,
            "float" => Self::Float,
            "double" => Self::Double,
            "boolean" => Self::Boolean,
            "string" => Self::String,
            _ => return None,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::String => "string",
        })
    }
}

/// A field of a schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Field {
    /// The name, which is also the header of its column.
    pub name: String,
    /// The type of its values.
    pub kind: Kind,
    /// A value may be missing.
    pub nullable: bool,
    /// The value is a list of categories, separated by `|`.
    pub categorical: bool,
    /// The value is unstructured text.
    pub textual: bool,
}

impl Field {
    /// Whether its values identify a user, an item or an action.
    pub(super) fn is_id(&self) -> bool {
        matches!(self.name.as_str(), "USER_ID" | "ITEM_ID" | "ACTION_ID")
    }

    /// Whether its values are points in time.
    pub(super) fn is_time(&self) -> bool {
        matches!(
            self.name.as_str(),
            "TIMESTAMP" | "CREATION_TIMESTAMP" | "EXPIRATION_TIMESTAMP" | "ACTION_EXPIRATION_TIMESTAMP"
        )
    }
}

/// The schema of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Schema {
    /// The fields, in their order.
    pub fields: Vec<Field>,
    /// The type of the dataset.
    pub dataset_type: DatasetType,
}

/// What a field with a reserved name has to be.
struct Rule {
    name: &'static str,
    kinds: &'static [Kind],
    required: bool,
    categorical: Option<bool>,
}

const STRING: &[Kind] = &[Kind::String];
const LONG: &[Kind] = &[Kind::Long];
const NUMBER: &[Kind] = &[Kind::Float, Kind::Double];

const fn required(name: &'static str, kinds: &'static [Kind]) -> Rule {
    Rule { name, kinds, required: true, categorical: None }
}

const fn reserved(name: &'static str, kinds: &'static [Kind]) -> Rule {
    Rule { name, kinds, required: false, categorical: None }
}

const fn plain(name: &'static str) -> Rule {
    Rule { name, kinds: STRING, required: false, categorical: Some(false) }
}

const fn category(name: &'static str, required: bool) -> Rule {
    Rule { name, kinds: STRING, required, categorical: Some(true) }
}

const INTERACTIONS: &[Rule] = &[
    required("USER_ID", STRING),
    required("ITEM_ID", STRING),
    required("TIMESTAMP", LONG),
    plain("EVENT_TYPE"),
    reserved("EVENT_VALUE", NUMBER),
    plain("IMPRESSION"),
    plain("RECOMMENDATION_ID"),
    plain("EVENT_ATTRIBUTION_SOURCE"),
];
const USERS: &[Rule] = &[required("USER_ID", STRING)];
const ITEMS: &[Rule] = &[required("ITEM_ID", STRING), reserved("CREATION_TIMESTAMP", LONG)];
const ACTIONS: &[Rule] = &[
    required("ACTION_ID", STRING),
    reserved("CREATION_TIMESTAMP", LONG),
    reserved("VALUE", LONG),
    reserved("TYPE", STRING),
    reserved("EXPIRATION_TIMESTAMP", LONG),
    reserved("ACTION_EXPIRATION_TIMESTAMP", LONG),
    reserved("REPEAT_FREQUENCY", LONG),
];
const ACTION_INTERACTIONS: &[Rule] = &[
    required("USER_ID", STRING),
    required("ACTION_ID", STRING),
    required("EVENT_TYPE", STRING),
    required("TIMESTAMP", LONG),
    plain("IMPRESSION"),
    plain("RECOMMENDATION_ID"),
];
const DOMAIN_INTERACTIONS: &[Rule] = &[required("EVENT_TYPE", STRING)];
const ECOMMERCE_ITEMS: &[Rule] = &[
    required("PRICE", NUMBER),
    category("CATEGORY_L1", true),
    category("CATEGORY_L2", false),
    category("CATEGORY_L3", false),
];
const VIDEO_ITEMS: &[Rule] = &[
    required("CREATION_TIMESTAMP", LONG),
    category("GENRES", true),
    category("GENRE_L2", false),
    category("GENRE_L3", false),
    reserved("PRICE", NUMBER),
    reserved("DURATION", NUMBER),
    reserved("AVERAGE_RATING", NUMBER),
    category("CONTENT_OWNER", false),
    category("CONTENT_CLASSIFICATION", false),
];

impl DatasetType {
    /// The type in the ARN of a dataset; `None` if the ARN is of something else.
    #[must_use]
    pub fn of(arn: &str) -> Option<Self> {
        arn.rsplit('/').next()?.parse().ok()
    }

    fn rules(self) -> &'static [Rule] {
        match self {
            Self::Interactions => INTERACTIONS,
            Self::Users => USERS,
            Self::Items => ITEMS,
            Self::Actions => ACTIONS,
            Self::ActionInteractions => ACTION_INTERACTIONS,
        }
    }

    /// The keywords that may not be values of the data.
    pub(super) fn keywords(self) -> impl Iterator<Item = &'static str> {
        self.rules().iter().filter(|rule| !rule.required).map(|rule| rule.name)
    }

    /// The least number of records per import.
    pub(super) fn min_records(self, mode: ImportMode) -> u64 {
        match (self, mode) {
            (Self::Interactions, _) | (Self::ActionInteractions, ImportMode::Incremental) => 1000,
            _ => 1,
        }
    }

    fn max_metadata(self) -> usize {
        match self {
            Self::Interactions | Self::ActionInteractions => 5,
            Self::Users => 25,
            Self::Items => 100,
            Self::Actions => 10,
        }
    }

    fn domain_rules(self, domain: Option<Domain>) -> &'static [Rule] {
        match (self, domain) {
            (Self::Interactions, Some(_)) => DOMAIN_INTERACTIONS,
            (Self::Items, Some(Domain::Ecommerce)) => ECOMMERCE_ITEMS,
            (Self::Items, Some(Domain::VideoOnDemand)) => VIDEO_ITEMS,
            _ => &[],
        }
    }
}

impl Schema {
    /// Reads a schema. Without a type, the schema's own name says it.
    ///
    /// # Errors
    /// What breaks a rule of schemas.
    pub fn parse(json: &str, dataset_type: Option<DatasetType>, domain: Option<Domain>) -> Result<Self, Vec<Finding>> {
        let broken = |expected: &str, found: &str| vec![Finding::new("Schema", expected, found)];
        let value: Value = serde_json::from_str(json)
            .map_err(|error| broken("a schema in JSON", &format!("an error in line {}", error.line())))?;
        // The whole response of DescribeSchema is accepted, too.
        if let Some(described) = value.get("schema") {
            let domain = domain.or_else(|| described.get("domain")?.as_str()?.parse().ok());
            let inner = described.get("schema").unwrap_or(described);
            let text = inner.as_str().map_or_else(|| inner.to_string(), String::from);
            return Self::parse(&text, dataset_type, domain);
        }
        let fields = value.get("fields").and_then(Value::as_array);
        let (Some("record"), Some(fields)) = (value.get("type").and_then(Value::as_str), fields) else {
            return Err(broken("an Avro record with fields", "something else"));
        };
        let mut errors = Vec::new();
        let fields: Vec<Field> =
            fields.iter().enumerate().filter_map(|(i, f)| field(f, i).map_err(|e| errors.push(*e)).ok()).collect();
        let named = value.get("name").and_then(Value::as_str).and_then(|name| name.parse::<DatasetType>().ok());
        let Some(dataset_type) = dataset_type.or(named).or_else(|| guess(&fields)) else {
            return Err(broken("a name that is a type of dataset, such as Interactions", "another name"));
        };
        if let Some(named) = named.filter(|named| *named != dataset_type) {
            let found = format!("{named:?}");
            errors.push(Finding::new("Schema", format!("the name of the type of dataset, {dataset_type:?}"), found));
        }
        let schema = Self { fields, dataset_type };
        errors.extend(schema.check_names());
        errors.extend(schema.check_reserved(domain));
        errors.extend(schema.check_metadata(domain));
        if errors.is_empty() { Ok(schema) } else { Err(errors) }
    }

    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The fields that are neither required nor reserved.
    pub(super) fn metadata(&self, domain: Option<Domain>) -> impl Iterator<Item = &Field> {
        let rules = self.dataset_type.rules().iter().chain(self.dataset_type.domain_rules(domain));
        let names: Vec<&str> = rules.map(|rule| rule.name).collect();
        self.fields.iter().filter(move |field| !names.contains(&field.name.as_str()))
    }

    fn check_names(&self) -> Vec<Finding> {
        let mut errors = Vec::new();
        for (i, field) in self.fields.iter().enumerate() {
            if self.fields[..i].iter().any(|other| letters(&other.name) == letters(&field.name)) {
                let expected = "a name that differs from the others in its letters and digits";
                errors.push(Finding::new("Schema", expected, "the name of another field").in_column(&field.name));
            }
            if field.name.is_empty() || !field.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                let found = "another name";
                errors.push(
                    Finding::new("Schema", "a name of letters, digits and _", found).in_column((i + 1).to_string()),
                );
            }
        }
        errors
    }

    fn check_reserved(&self, domain: Option<Domain>) -> Vec<Finding> {
        let mut errors = Vec::new();
        let rules = self.dataset_type.rules();
        for rule in rules.iter().chain(self.dataset_type.domain_rules(domain)) {
            let Some(field) = self.field(rule.name) else {
                if rule.required {
                    let expected = format!("the required field {}", rule.name);
                    errors.push(Finding::new("Schema", expected, "no such field"));
                }
                continue;
            };
            let error = |expected: String, found: &str| Finding::new("Schema", expected, found).in_column(rule.name);
            if !rule.kinds.contains(&field.kind) {
                errors.push(error(format!("the type {}", rule.kinds[0]), &format!("the type {}", field.kind)));
            }
            // Required fields of a domain may be null in its own default schemas.
            if field.nullable && rule.required && rules.iter().any(|own| own.name == rule.name && own.required) {
                errors.push(error("a type without null".into(), "null"));
            }
            match rule.categorical {
                Some(true) if !field.categorical => errors.push(error("categorical: true".into(), "no such attribute")),
                Some(false) if field.categorical => {
                    errors.push(error("no categorical field".into(), "categorical: true"))
                }
                _ => {}
            }
        }
        if self.field("EVENT_VALUE").is_some() && self.field("EVENT_TYPE").is_none() {
            errors.push(Finding::new("Schema", "the field EVENT_TYPE beside EVENT_VALUE", "no such field"));
        }
        errors
    }

    fn check_metadata(&self, domain: Option<Domain>) -> Vec<Finding> {
        let mut errors = Vec::new();
        let (count, max) = (self.metadata(domain).count(), self.dataset_type.max_metadata());
        if count > max {
            errors.push(Finding::new("Schema", format!("at most {max} metadata fields"), plural(count, "field")));
        }
        let needs_one = matches!(self.dataset_type, DatasetType::Users | DatasetType::Items | DatasetType::Actions);
        let is_metadata = |field: &&Field| !field.is_id() && !field.is_time();
        let is_used = |field: &Field| field.kind != Kind::String || field.categorical || field.textual;
        if needs_one && !self.fields.iter().filter(is_metadata).any(is_used) {
            errors.push(Finding::new("Schema", "a metadata field that is categorical or a number", "none"));
        }
        let textual: Vec<&Field> = self.fields.iter().filter(|field| field.textual).collect();
        if textual.len() > 1 {
            errors.push(Finding::new("Schema", "at most one textual field", plural(textual.len(), "field")));
        }
        for field in &self.fields {
            if (field.textual || field.categorical) && field.kind != Kind::String {
                let found = format!("the type {}", field.kind);
                errors.push(
                    Finding::new("Schema", "a string, as it is categorical or textual", found).in_column(&field.name),
                );
            }
            if field.textual && self.dataset_type != DatasetType::Items {
                let expected = "textual fields in Items only";
                errors.push(Finding::new("Schema", expected, "textual: true").in_column(&field.name));
            }
        }
        errors
    }
}

/// The type of a dataset with these fields, if they leave no choice.
fn guess(fields: &[Field]) -> Option<DatasetType> {
    let has = |name: &str| fields.iter().any(|field| field.name == name);
    match (has("USER_ID"), has("ITEM_ID"), has("ACTION_ID")) {
        (true, true, false) => Some(DatasetType::Interactions),
        (true, false, true) => Some(DatasetType::ActionInteractions),
        (true, false, false) => Some(DatasetType::Users),
        (false, true, false) => Some(DatasetType::Items),
        (false, false, true) => Some(DatasetType::Actions),
        _ => None,
    }
}

fn field(value: &Value, index: usize) -> Result<Field, Box<Finding>> {
    let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
    let column = if name.is_empty() { (index + 1).to_string() } else { name.to_owned() };
    let error = |found: &str| {
        let expected = "one of the types int, long, float, double, boolean and string, or a union of it with null";
        Box::new(Finding::new("Schema", expected, found).in_column(&column))
    };
    let types: Vec<&Value> = match value.get("type") {
        Some(Value::Array(types)) => types.iter().collect(),
        Some(single) => vec![single],
        None => return Err(error("no type")),
    };
    let mut kinds = types.iter().filter(|t| t.as_str() != Some("null"));
    let kind = match (kinds.next(), kinds.next()) {
        (Some(kind), None) => kind.as_str().and_then(Kind::parse).ok_or_else(|| error("another type"))?,
        (None, _) => return Err(error("no type but null")),
        (Some(_), Some(_)) => return Err(error("more than one type")),
    };
    let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    Ok(Field {
        name: name.to_owned(),
        kind,
        nullable: types.iter().any(|t| t.as_str() == Some("null")),
        categorical: flag("categorical"),
        textual: flag("textual"),
    })
}
