//! Requests that satisfy the field rules, made from the descriptors, and their
//! answers in a form that compares.

use std::collections::BTreeMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use tonic::Code;
use tonic_types::StatusExt;
use uuid::Uuid;

use super::{Client, Method, PASSWORD, RawReply};

/// What requests name, by the name of the field that names it.
#[derive(Clone, Debug)]
pub struct Ids(pub BTreeMap<&'static str, String>);

/// The fields that name something; a new one must be added here, and to what
/// the tests put into it.
const ID_FIELDS: &[&str] =
    &["user_id", "role_id", "session_id", "tenant", "service_account_id", "api_key_id"];

/// End in `_id`, but are the client's own words.
const CLIENTS_OWN: &[&str] = &["request_id", "correlation_id"];

impl Ids {
    /// Of nothing that there is.
    pub fn random() -> Self {
        Self(ID_FIELDS.iter().map(|name| (*name, Uuid::now_v7().to_string())).collect())
    }

    /// A client's own, and a role.
    pub fn of(client: &Client, role_id: &str) -> Self {
        let mut ids = Self::random();
        ids.0.extend([
            ("user_id", client.user_id.clone()),
            ("role_id", role_id.to_owned()),
            ("session_id", client.tokens.session_id.clone()),
            ("tenant", client.tenant_id.clone()),
        ]);
        ids
    }

    /// The same, but for one.
    pub fn with(&self, name: &'static str, other: &Self) -> Self {
        let mut ids = self.clone();
        ids.0.insert(name, other.0[name].clone());
        ids
    }
}

impl Method {
    /// A request that breaks no field rule.
    pub fn sample(&self, ids: &Ids) -> DynamicMessage {
        fill(&self.0.input(), ids)
    }

    /// The names of the fields, at any depth, that name something.
    pub fn id_fields(&self) -> Vec<&'static str> {
        id_fields(&self.0.input())
    }

    /// What a call is answered, without what differs between equal answers.
    pub async fn answer(&self, client: &Client, message: &DynamicMessage) -> Answer {
        match self.call(client, message).await {
            Ok(reply) => {
                let bytes = reply.into_inner();
                let mut body = DynamicMessage::decode(self.0.output(), bytes.as_slice())
                    .expect("a response of the method's type");
                body.clear_field_by_name("decision_id");
                body.clear_field_by_name("consistency_token");
                Answer { code: Code::Ok, text: String::new(), details: Vec::new(), body }
            }
            Err(status) => Answer {
                code: status.code(),
                text: status.message().to_owned(),
                details: status.details().to_vec(),
                body: DynamicMessage::new(self.0.output()),
            },
        }
    }
}

/// All that a caller sees of an answer.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub code: Code,
    pub text: String,
    pub details: Vec<u8>,
    pub body: DynamicMessage,
}

fn fill(of: &MessageDescriptor, ids: &Ids) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        if let Some(value) = value(&field, ids) {
            message.set_field(&field, value);
        }
    }
    message
}

/// A field's value; a field that is not here may be unset.
fn value(field: &FieldDescriptor, ids: &Ids) -> Option<Value> {
    let text = |text: &str| Some(Value::String(text.to_owned()));
    match field.name() {
        name if is_id(name) => text(&ids.0[name]),
        "email" => text("ada@sample.test"),
        "password" | "current_password" => text(PASSWORD),
        "new_password" => text("another horse battery staple"),
        "name" | "display_name" => text("sample"),
        "organization_name" => text("The sample company"),
        "permission" => text("invoice:read"),
        "token" | "refresh_token" => text("no.such.token"),
        "level" => Some(Value::EnumNumber(1)),
        "items" => match field.kind() {
            Kind::Message(item) => Some(Value::List(vec![Value::Message(fill(&item, ids))])),
            _ => None,
        },
        _ => None,
    }
}

fn is_id(name: &str) -> bool {
    let is_id = ID_FIELDS.contains(&name);
    assert!(is_id || !name.ends_with("_id") || CLIENTS_OWN.contains(&name), "whose id is {name}?");
    is_id
}

fn id_fields(message: &MessageDescriptor) -> Vec<&'static str> {
    let mut found = Vec::new();
    for field in message.fields() {
        if is_id(field.name()) {
            found.extend(ID_FIELDS.iter().find(|name| **name == field.name()));
        }
        if let Kind::Message(inner) = field.kind()
            && inner.package_name() == "tenantry.v1"
        {
            found.extend(id_fields(&inner));
        }
    }
    found
}

/// Asserts that a reply is an answer, or an error that says what is wrong: a
/// code that is not for defects, and a documented reason. Gives the reason,
/// empty for an answer.
#[track_caller]
pub fn precise(what: &str, reply: &RawReply) -> String {
    let Err(status) = reply else { return String::new() };
    let defect = [Code::Internal, Code::Unknown, Code::DataLoss, Code::Unavailable];
    assert!(!defect.contains(&status.code()), "{what}: {status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{what}: no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "tenantry", "{what}");
    let name = format!("ERROR_REASON_{}", info.reason);
    let reason = tenantry::proto::v1::ErrorReason::from_str_name(&name);
    assert!(reason.is_some(), "{what}: {} is not documented", info.reason);
    info.reason.clone()
}
