//! What an API server does with an object before it stores it, as far as a definition says: nulls are dropped,
//! defaults set, fields compared with the schema, lists with their keys, and CEL rules evaluated.

use std::sync::Arc;

use cel::extractors::This;
use serde_json::{Map, Value};

/// The admission of one kind.
pub struct Admission {
    schema: Value,
    shape: jsonschema::Validator,
}

impl Admission {
    /// Of this definition.
    pub fn of(definition: &Value) -> Self {
        let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap().clone();
        let shape = jsonschema::draft202012::new(&schema).unwrap();
        Self { schema, shape }
    }

    /// Everything that the object is refused for: what the shape is wrong in, and if it is right, the rules that do not
    /// hold. An API server stops between the two as well.
    pub fn refusals(&self, object: &Value) -> Vec<String> {
        let mut object = object.clone();
        complete(&self.schema, &mut object);
        let mut found = Vec::new();
        found.extend(self.shape.iter_errors(&object).map(|error| format!("{}: {error}", error.instance_path())));
        if found.is_empty() { self.broken(&object) } else { found }
    }

    /// The rules that do not hold, whatever the shape.
    pub fn broken(&self, object: &Value) -> Vec<String> {
        let mut object = object.clone();
        complete(&self.schema, &mut object);
        let mut found = Vec::new();
        walk(&self.schema, &object, "", &mut found);
        found
    }
}

/// Drops nulls, sets defaults, and makes decimals of all numbers that the schema calls so.
fn complete(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            for (name, property) in properties(schema) {
                if let Some(default) = property.get("default").filter(|_| !fields.contains_key(name)) {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(value) = fields.get_mut(name) {
                    complete(property, value);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                complete(&schema["items"], item);
            }
        }
        Value::Number(number) if schema["type"] == "number" => *value = Value::from(number.as_f64().unwrap()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn walk(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        if let Err(why) = holds(rule["rule"].as_str().unwrap(), value) {
            found.push(format!("{path}: {}: {why}", rule["message"].as_str().unwrap()));
        }
    }
    match value {
        Value::Object(fields) => {
            let is_open = schema.get("additionalProperties").is_some()
                || schema["x-kubernetes-preserve-unknown-fields"] == true
                || path.is_empty()
                || path == ".metadata";
            for (name, value) in fields {
                match schema.get("properties").and_then(|known| known.get(name)) {
                    Some(property) => walk(property, value, &format!("{path}.{name}"), found),
                    None if is_open => {}
                    None => found.push(format!("{path}: unknown field \"{name}\"")),
                }
            }
        }
        Value::Array(items) => {
            let key = |item: &Value| match schema["x-kubernetes-list-map-keys"].as_array() {
                Some(keys) => keys.iter().map(|key| item[key.as_str().unwrap()].clone()).collect(),
                None => item.clone(),
            };
            let is_unique = schema.get("x-kubernetes-list-type").is_some();
            for (at, item) in items.iter().enumerate() {
                if is_unique && items[..at].iter().any(|before| key(before) == key(item)) {
                    found.push(format!("{path}[{at}]: is there already"));
                }
                walk(&schema["items"], item, &format!("{path}[{at}]"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Evaluates a rule; the two list functions are Kubernetes' own.
fn holds(rule: &str, value: &Value) -> Result<(), String> {
    let mut context = cel::Context::default();
    context
        .add_function("isSorted", |This(list): This<Arc<Vec<cel::Value>>>| -> bool {
            list.windows(2).all(|pair| float(&pair[0]) <= float(&pair[1]))
        })
        .unwrap();
    context
        .add_function("sum", |This(list): This<Arc<Vec<cel::Value>>>| -> f64 { list.iter().map(float).sum() })
        .unwrap();
    context.add_variable_from_value("self", cel::to_value(value).map_err(|error| error.to_string())?);
    let program = cel::Program::compile(rule).map_err(|error| format!("{rule}: {error}"))?;
    match program.execute(&context) {
        Ok(cel::Value::Bool(true)) => Ok(()),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn float(value: &cel::Value) -> f64 {
    match value {
        cel::Value::Float(number) => *number,
        _ => f64::NAN,
    }
}

/// The nodes of a schema, each with its path; properties by name, items as `[]`.
pub fn nodes(schema: &Value) -> Vec<(String, &Map<String, Value>)> {
    fn below<'s>(schema: &'s Value, path: String, found: &mut Vec<(String, &'s Map<String, Value>)>) {
        let Some(fields) = schema.as_object() else { return };
        found.push((path.clone(), fields));
        for (name, property) in properties(schema) {
            below(property, format!("{path}.{name}"), found);
        }
        for (name, joint) in [("items", "[]"), ("additionalProperties", "{}")] {
            if let Some(one) = fields.get(name) {
                below(one, format!("{path}{joint}"), found);
            }
        }
    }
    let mut found = Vec::new();
    below(schema, String::new(), &mut found);
    found
}
