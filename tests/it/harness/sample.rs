//! Sample requests that satisfy the field rules, built from the descriptors, and replies in a form
//! that tests can compare.

use std::collections::BTreeMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use tonic::Code;
use tonic_types::StatusExt;
use uuid::Uuid;

use super::{Client, Method, PASSWORD, RawReply};

/// Ids for the fields of a sample request, by field name.
#[derive(Clone, Debug)]
pub struct Ids(pub BTreeMap<&'static str, String>);

/// The fields that hold an id. A new id field must be added here and to the tests that set
/// ids.
const ID_FIELDS: &[&str] =
    &["user_id", "role_id", "session_id", "tenant", "service_account_id", "api_key_id"];

/// Fields whose names end in `_id`, but whose values are texts that the client chooses.
const CLIENT_CHOSEN_FIELDS: &[&str] = &["request_id", "correlation_id"];

impl Ids {
    /// Random ids that match no object.
    pub fn random() -> Self {
        Self(ID_FIELDS.iter().map(|name| (*name, Uuid::now_v7().to_string())).collect())
    }

    /// The ids of a client and this role. The other ids are random.
    pub fn of_client(client: &Client, role_id: &str) -> Self {
        let mut ids = Self::random();
        ids.0.extend([
            ("user_id", client.user_id.clone()),
            ("role_id", role_id.to_owned()),
            ("session_id", client.tokens.session_id.clone()),
            ("tenant", client.tenant_id.clone()),
        ]);
        ids
    }

    /// A copy in which the id of one field is that of `other`.
    pub fn with_id_of(&self, name: &'static str, other: &Self) -> Self {
        let mut ids = self.clone();
        ids.0.insert(name, other.0[name].clone());
        ids
    }
}

impl Method {
    /// A request that satisfies every field rule.
    pub fn sample(&self, ids: &Ids) -> DynamicMessage {
        sample_message(&self.0.input(), ids)
    }

    /// Names of the fields that hold an id, at any depth.
    pub fn id_fields(&self) -> Vec<&'static str> {
        id_fields_of(&self.0.input())
    }

    /// Calls the method and returns the reply without `decision_id` and `consistency_token`,
    /// which differ between equal replies.
    pub async fn call_comparable(
        &self,
        client: &Client,
        message: &DynamicMessage,
    ) -> ComparableReply {
        match self.call(client, message).await {
            Ok(reply) => {
                let bytes = reply.into_inner();
                let mut body = DynamicMessage::decode(self.0.output(), bytes.as_slice())
                    .expect("a response of the method's type");
                body.clear_field_by_name("decision_id");
                body.clear_field_by_name("consistency_token");
                ComparableReply { code: Code::Ok, text: String::new(), details: Vec::new(), body }
            }
            Err(status) => ComparableReply {
                code: status.code(),
                text: status.message().to_owned(),
                details: status.details().to_vec(),
                body: DynamicMessage::new(self.0.output()),
            },
        }
    }
}

/// All parts of a reply that the caller sees.
#[derive(Debug, PartialEq)]
pub struct ComparableReply {
    pub code: Code,
    pub text: String,
    pub details: Vec<u8>,
    pub body: DynamicMessage,
}

fn sample_message(descriptor: &MessageDescriptor, ids: &Ids) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        if let Some(value) = sample_value(&field, ids) {
            message.set_field(&field, value);
        }
    }
    message
}

/// Sample value of a field. `None` for a field that may stay unset.
fn sample_value(field: &FieldDescriptor, ids: &Ids) -> Option<Value> {
    let text = |text: &str| Some(Value::String(text.to_owned()));
    match field.name() {
        name if is_id_field(name) => text(&ids.0[name]),
        "email" | "new_email" => text("ada@sample.test"),
        "password" | "current_password" => text(PASSWORD),
        "new_password" => text("another horse battery staple"),
        "name" | "display_name" => text("sample"),
        "organization_name" => text("The sample company"),
        "permission" => text("invoice:read"),
        "token" | "refresh_token" => text("no.such.token"),
        "level" => Some(Value::EnumNumber(1)),
        "items" => match field.kind() {
            Kind::Message(item) => {
                Some(Value::List(vec![Value::Message(sample_message(&item, ids))]))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether a field holds an id. Panics for an unknown field whose name ends in `_id`.
fn is_id_field(name: &str) -> bool {
    let is_known = ID_FIELDS.contains(&name);
    assert!(
        is_known || !name.ends_with("_id") || CLIENT_CHOSEN_FIELDS.contains(&name),
        "unknown id field {name}"
    );
    is_known
}

fn id_fields_of(message: &MessageDescriptor) -> Vec<&'static str> {
    let mut names = Vec::new();
    for field in message.fields() {
        if is_id_field(field.name()) {
            names.extend(ID_FIELDS.iter().find(|name| **name == field.name()));
        }
        if let Kind::Message(inner) = field.kind()
            && inner.package_name() == "tenantry.v1"
        {
            names.extend(id_fields_of(&inner));
        }
    }
    names
}

/// Asserts that a reply is a success, or an error with a documented reason and a code that does not
/// mean a defect of the server. Returns the reason, or an empty text for a success.
#[track_caller]
pub fn assert_success_or_documented_error(case: &str, reply: &RawReply) -> String {
    let Err(status) = reply else { return String::new() };
    let defect_codes = [Code::Internal, Code::Unknown, Code::DataLoss, Code::Unavailable];
    assert!(!defect_codes.contains(&status.code()), "{case}: {status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{case}: no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "tenantry", "{case}");
    let name = format!("ERROR_REASON_{}", info.reason);
    let reason = tenantry::proto::v1::ErrorReason::from_str_name(&name);
    assert!(reason.is_some(), "{case}: {} is not documented", info.reason);
    info.reason.clone()
}
