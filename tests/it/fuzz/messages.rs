//! Generator of messages of any type. Most fields are valid. Some fields are at a limit or exceed a
//! limit.

use proptest::prelude::*;
use proptest::test_runner::TestRng;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use uuid::Uuid;

use super::known_values::KnownValues;
use crate::harness::PASSWORD;

/// Probability that a field gets a value that could cause harm.
const HARMFUL_PROBABILITY: f64 = 0.06;

/// Probability that an optional field stays unset. The probability is higher for each of the
/// [`NARROWING_FIELDS`], because a random value of such a field makes most requests fail.
const UNSET_PROBABILITY: f64 = 0.4;
const NARROWING_UNSET_PROBABILITY: f64 = 0.85;

/// The passwords that requests use and set. The list is short, so that later requests often use a
/// current password.
pub const PASSWORDS: [&str; 2] = [PASSWORD, "another horse battery staple"];

/// Texts in many scripts and Unicode forms, and texts with a meaning for SQL, JSON, paths or
/// terminals.
const TEXTS: &[&str] = &[
    "",
    " ",
    "a",
    "Ω≈ç√∫",
    "שלום עולם",
    "مرحبا",
    "你好，世界",
    "ひらがなカタカナ",
    "안녕하세요",
    "สวัสดี",
    "नमस्ते",
    "ﬁnesse",
    "e\u{301}te\u{301}",
    "\u{fdfa}",
    "İıß",
    "ＡＤＭＩＮ",
    "🧑‍🚀👩‍👩‍👧",
    "\u{0}",
    "a\u{0}b",
    "a\r\nb",
    "\u{1b}[31m",
    "\u{202e}\u{200b}\u{feff}",
    "\u{fffd}\u{10ffff}",
    "%",
    "_%\\",
    "'; drop table users; --",
    "{}[]\"",
    "../../etc/passwd",
    "http://evil.test/?a=b&c=d",
    "null",
    "NaN",
    "-0",
    "1e400",
];

/// Doubles at the limits of their ranges.
const NUMBERS: &[f64] = &[
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    0.418_172_151_370_759_47,
    9_007_199_254_740_991.0,
    9_007_199_254_740_992.0,
    9_007_199_254_740_994.0,
    -9_007_199_254_740_993.0,
    1e15,
    1e21,
    1e22,
    123_456_789.123_456_79,
    f64::MAX,
    f64::MIN,
    f64::MIN_POSITIVE,
    5e-324,
    f64::EPSILON,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

/// Seconds of timestamps. Valid timestamps are in the years from 1 to 9999.
const SECONDS: &[i64] = &[
    0,
    -1,
    -62_135_596_800,
    -62_135_596_801,
    253_402_300_799,
    253_402_300_800,
    i64::MAX,
    i64::MIN,
    4_102_444_800,
];
const NANOS: &[i32] = &[0, 1, 999_999_999, 1_000_000_000, -1, i32::MAX, i32::MIN];

const INTEGERS: &[i64] =
    &[0, 1, -1, 2, 50, 999, 1000, 1001, 65_535, i32::MAX as i64, i32::MIN as i64];

const FILTER_FIELDS: &[&str] = &[
    "name",
    "email",
    "display_name",
    "state",
    "id",
    "level",
    "slug",
    "role_name",
    "kind",
    "actor_id",
    "target_id",
    "session_id",
    "request_id",
    "device_name",
    "last_sign_in_time",
    "email_verified",
    "create_time",
    "nothing",
];

/// Generator of messages.
pub struct MessageGenerator<'a> {
    pub known_values: &'a KnownValues,
    pub rng: &'a mut TestRng,
}

impl MessageGenerator<'_> {
    /// A random message of a type. `depth` is the number of messages around this message.
    pub fn message(&mut self, descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            let unset_probability = match field.name() {
                name if is_required(name) => 0.02,
                name if NARROWING_FIELDS.contains(&name) => NARROWING_UNSET_PROBABILITY,
                _ => UNSET_PROBABILITY,
            };
            if self.rng.random_bool(unset_probability) {
                continue;
            }
            if let Some(value) = self.field(&field, depth) {
                message.set_field(&field, value);
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Option<Value> {
        if field.is_map() {
            return None;
        }
        if !field.is_list() {
            return self.value(field, depth);
        }
        let small_count = self.rng.random_range(0..4);
        // A list of 1001 items is longer than most fields allow.
        let count = if self.rng.random_bool(0.02) { 1001 } else { small_count };
        let items = (0..count).filter_map(|_| self.value(field, depth)).collect();
        Some(Value::List(items))
    }

    fn value(&mut self, field: &FieldDescriptor, depth: usize) -> Option<Value> {
        Some(match field.kind() {
            Kind::Message(kind) => {
                Value::Message(self.nested_message(field.name(), &kind, depth)?)
            }
            Kind::Enum(kind) => Value::EnumNumber(self.enum_number(&kind)),
            Kind::Bool => Value::Bool(self.rng.random_bool(0.5)),
            Kind::String => Value::String(self.text(field.name())),
            Kind::Bytes => Value::Bytes(self.pick(TEXTS).as_bytes().to_vec().into()),
            Kind::Double => Value::F64(self.number()),
            Kind::Float => Value::F32(0.5),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.integer(field.name())),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.integer(field.name()).unsigned_abs()),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.pick(SECONDS)),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.pick(SECONDS).unsigned_abs()),
        })
    }

    fn nested_message(
        &mut self,
        name: &str,
        kind: &MessageDescriptor,
        depth: usize,
    ) -> Option<DynamicMessage> {
        let mut inner = DynamicMessage::new(kind.clone());
        match kind.full_name() {
            "google.protobuf.Timestamp" => {
                inner.set_field_by_name("seconds", Value::I64(self.seconds()));
                let nanos =
                    if self.rng.random_bool(HARMFUL_PROBABILITY) { self.pick(NANOS) } else { 0 };
                inner.set_field_by_name("nanos", Value::I32(nanos));
            }
            "google.protobuf.Struct" => {
                let max_depth = if self.rng.random_bool(0.05) { 30 } else { 2 };
                return Some(self.random_struct(kind, name == "scope", max_depth));
            }
            "google.protobuf.FieldMask" => {
                let paths = [
                    "display_name",
                    "email",
                    "name",
                    "slug",
                    "settings",
                    "level",
                    "permissions",
                    "description",
                    "*",
                    "id",
                    "",
                    "a.b.c",
                ];
                let count = self.rng.random_range(0..3);
                let paths = (0..count).map(|_| Value::String(self.pick(&paths).to_owned()));
                let paths = paths.collect();
                inner.set_field_by_name("paths", Value::List(paths));
            }
            _ if depth > 4 => return None,
            _ => return Some(self.message(kind, depth + 1)),
        }
        Some(inner)
    }

    /// A random Struct with at most `max_depth` levels inside. With `is_scope`, most values are
    /// valid in a scope.
    fn random_struct(
        &mut self,
        struct_type: &MessageDescriptor,
        is_scope: bool,
        max_depth: usize,
    ) -> DynamicMessage {
        let mut structure = DynamicMessage::new(struct_type.clone());
        let Some(fields) = struct_type.get_field_by_name("fields") else { return structure };
        let Kind::Message(entry) = fields.kind() else { return structure };
        let Kind::Message(value_type) = entry.map_entry_value_field().kind() else {
            return structure;
        };
        let max_count = if self.rng.random_bool(0.02) { 60 } else { 3 };
        // A deep Struct has one field per level, so that it stays small.
        let count = if max_depth > 3 { 1 } else { self.rng.random_range(0..=max_count) };
        let keys = ["region", "project", "limit", "self_registration", "password_min_length"];
        let map = (0..count).map(|_| {
            let key = if self.rng.random_bool(HARMFUL_PROBABILITY) {
                self.pick(TEXTS)
            } else {
                self.pick(&keys)
            };
            let value = self.random_json_value(&value_type, struct_type, is_scope, max_depth);
            (MapKey::String(key.to_owned()), Value::Message(value))
        });
        let map = map.collect();
        structure.set_field(&fields, Value::Map(map));
        structure
    }

    /// A random Value of a Struct.
    fn random_json_value(
        &mut self,
        value_type: &MessageDescriptor,
        struct_type: &MessageDescriptor,
        is_scope: bool,
        max_depth: usize,
    ) -> DynamicMessage {
        let mut value = DynamicMessage::new(value_type.clone());
        let is_harmful = self.rng.random_bool(HARMFUL_PROBABILITY);
        let kind_number = if max_depth > 3 {
            // A Struct, so that the value becomes deep.
            6
        } else if is_scope && !is_harmful {
            self.rng.random_range(0..4)
        } else {
            self.rng.random_range(0..7)
        };
        match kind_number {
            0 => value.set_field_by_name("number_value", Value::F64(self.number())),
            1 => value.set_field_by_name("string_value", Value::String(self.plain_text())),
            2 => value.set_field_by_name("bool_value", Value::Bool(self.rng.random_bool(0.5))),
            3 if max_depth > 0 => {
                let Some(field) = value_type.get_field_by_name("list_value") else {
                    return value;
                };
                let Kind::Message(kind) = field.kind() else { return value };
                let mut list = DynamicMessage::new(kind);
                let count = self.rng.random_range(0..4);
                let items = (0..count).map(|_| {
                    Value::Message(self.random_json_value(
                        value_type,
                        struct_type,
                        is_scope,
                        max_depth.min(3) - 1,
                    ))
                });
                let items = items.collect();
                list.set_field_by_name("values", Value::List(items));
                value.set_field(&field, Value::Message(list));
            }
            4 => value.set_field_by_name("null_value", Value::EnumNumber(0)),
            6 if max_depth > 0 => {
                let inner = self.random_struct(struct_type, is_scope, max_depth - 1);
                value.set_field_by_name("struct_value", Value::Message(inner));
            }
            // A Value without a kind, which JSON cannot represent.
            _ => {}
        }
        value
    }

    fn plain_text(&mut self) -> String {
        let texts = ["eu", "us", "a", "1", "true", "ﬁnesse", "e\u{301}"];
        let text = if self.rng.random_bool(HARMFUL_PROBABILITY) {
            self.pick(TEXTS)
        } else {
            self.pick(&texts)
        };
        self.with_random_length(text)
    }

    fn text(&mut self, name: &str) -> String {
        if self.rng.random_bool(HARMFUL_PROBABILITY) {
            let text = self.pick(TEXTS);
            return self.with_random_length(text);
        }
        match name {
            "filter" => self.filter(),
            "order_by" => self.pick(&["last_sign_in_time desc", "create_time", "x y z"]).to_owned(),
            "email" | "new_email" => self.known_values.pick("email", self.rng).unwrap_or_default(),
            "password" | "current_password" | "new_password" => self.pick(&PASSWORDS).to_owned(),
            "permission" | "permissions" => {
                self.pick(&["invoice:read", "a:b", "user:*", "*:read", "*:*", "x.y-z:q_1"]).into()
            }
            "page_token" => self.known_or_altered_value("page_token"),
            "consistency_token" => self.known_or_altered_value("consistency_token"),
            "token" | "access_token" => self.known_or_altered_value("token"),
            "refresh_token" => self.known_or_altered_value("refresh_token"),
            "api_key" => self.known_or_altered_value("api_key"),
            "etag" => self.known_values.pick("etag", self.rng).unwrap_or_default(),
            "tenant" | "organization_slug" | "slug" => {
                self.known_values.pick("slug", self.rng).unwrap_or_default()
            }
            "request_id" => format!("r{}", self.rng.random_range(0..50)),
            "correlation_id" => self.rng.random::<u32>().to_string(),
            "name" | "organization_name" | "display_name" | "device_name" | "description" => {
                let known_name = self.known_values.pick("name", self.rng).unwrap_or_default();
                let new_name = format!("name {}", self.rng.random_range(0..10_000));
                if self.rng.random_bool(0.2) { known_name } else { new_name }
            }
            "password_hash" => {
                let cost = self.pick(&["04", "05", "31", "12", "00"]);
                let tail = "N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
                format!("${}${cost}${tail}", self.pick(&["2b", "2a", "2y", "2x"]))
            }
            name if name.ends_with("_id") => self.id(name),
            _ => self.plain_text(),
        }
    }

    /// Usually an id of the matching kind. Sometimes an id of any kind or tenant, a random id, or
    /// the nil UUID.
    fn id(&mut self, name: &str) -> String {
        let kind = match name {
            "user_id" => "User",
            "role_id" => "Role",
            "session_id" => "Session",
            "service_account_id" => "ServiceAccount",
            "api_key_id" => "ApiKey",
            _ => "id",
        };
        match self.rng.random_range(0..30) {
            0 => Uuid::from_u128(self.rng.random()).to_string(),
            1 => Uuid::nil().to_string(),
            2 | 3 => self.known_values.pick("id", self.rng).unwrap_or_default(),
            _ => self.known_values.pick(kind, self.rng).unwrap_or_default(),
        }
    }

    /// A known value, sometimes cut, reversed, or with the second half of another value.
    fn known_or_altered_value(&mut self, name: &str) -> String {
        let value = self.known_values.pick(name, self.rng).unwrap_or_default();
        let other_value = self.known_values.pick(name, self.rng).unwrap_or_default();
        let half = value.len() / 2;
        match self.rng.random_range(0..8) {
            0 => value.chars().take(half).chain(other_value.chars().skip(half)).collect(),
            1 => value.chars().take(half).collect(),
            2 => value.chars().rev().collect(),
            _ => value,
        }
    }

    fn filter(&mut self) -> String {
        let count = self.rng.random_range(0..3);
        let conditions = (0..count).map(|_| {
            let field = self.pick(FILTER_FIELDS);
            let operator = self.pick(&["=", ":", "<", ">=", "!=", " = ", ""]);
            let value = match self.rng.random_range(0..5) {
                0 => format!("\"{}\"", self.pick(TEXTS)),
                1 => format!("\"{}*\"", self.pick(TEXTS)),
                2 => self.known_values.pick("id", self.rng).unwrap_or_default(),
                3 => self
                    .pick(&["ACTIVE", "\"*x\"", "\"a\\*\"", "\"\\", "0001-01-01T00:00:00Z"])
                    .into(),
                _ => self.known_values.pick("name", self.rng).unwrap_or_default(),
            };
            format!("{field}{operator}{value}")
        });
        let conditions: Vec<_> = conditions.collect();
        conditions.join(self.pick(&[" AND ", " OR ", " "]))
    }

    /// The text, sometimes repeated until it reaches or exceeds the maximum length of a field.
    fn with_random_length(&mut self, text: &str) -> String {
        if !self.rng.random_bool(0.05) || text.is_empty() {
            return text.to_owned();
        }
        let times = self.pick(&[100, 254, 1000, 1024, 10_000]) / text.chars().count().max(1);
        text.repeat(times + 1)
    }

    fn number(&mut self) -> f64 {
        match self.rng.random_range(0..4) {
            0 => f64::from_bits(self.rng.random()),
            1 => self.rng.random(),
            2 => f64::from(self.rng.random::<i32>()),
            _ => self.pick(NUMBERS),
        }
    }

    fn seconds(&mut self) -> i64 {
        if self.rng.random_bool(HARMFUL_PROBABILITY) {
            return self.pick(SECONDS);
        }
        let now = tenantry::clock::now().unix_timestamp();
        now + self.rng.random_range(-1000..1_000_000)
    }

    fn integer(&mut self, name: &str) -> i32 {
        let is_valid_page_size = name == "page_size" && !self.rng.random_bool(HARMFUL_PROBABILITY);
        let integer =
            if is_valid_page_size { self.rng.random_range(0..20) } else { self.pick(INTEGERS) };
        i32::try_from(integer).unwrap_or_default()
    }

    fn enum_number(&mut self, kind: &EnumDescriptor) -> i32 {
        if self.rng.random_bool(HARMFUL_PROBABILITY / 2.0) {
            return self.pick(&[-1, 99, i32::MAX, i32::MIN]);
        }
        let values: Vec<_> = kind.values().map(|value| value.number()).collect();
        self.pick(&values)
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.rng.random_range(0..items.len())]
    }
}

/// Fields that make most requests fail when they have a random value.
const NARROWING_FIELDS: &[&str] = &[
    "page_token",
    "consistency_token",
    "consistency",
    "etag",
    "update_mask",
    "request_id",
    "system",
    "filter",
    "order_by",
];

/// Whether a request without this field is always refused.
fn is_required(name: &str) -> bool {
    name.ends_with("_id") && name != "request_id"
        || ["email", "name", "level", "permission", "password", "items", "tenant", "token"]
            .contains(&name)
}
