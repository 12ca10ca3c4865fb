//! Debug output of the messages.

use prost_reflect::{DescriptorPool, Kind, Value};
use tenantry::proto::{
    DESCRIPTORS,
    v1::{
        CreateUserRequest, LoginRequest, LoginResponse, UpdateUserRequest, User,
        create_user_request::Credential,
    },
};

/// Fields whose names look secret or personal, but whose values are not.
const PLAIN: &[&str] = &["consistency_token", "next_page_token", "page_token", "token_type"];

/// K09: the proto marks the fields that must not be printed, for this and other languages.
#[test]
fn secret_and_personal_fields_are_marked_in_the_proto() {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("descriptors");
    let mut marked = 0;
    for message in pool.all_messages().filter(|m| m.package_name() == "tenantry.v1") {
        for field in message.fields().filter(|field| field.kind() == Kind::String) {
            let name = field.name();
            let telling = ["password", "token", "secret", "email", "display_name", "assertion"];
            let is_telling = name == "api_key" || telling.iter().any(|word| name.contains(word));
            let expected = !PLAIN.contains(&name) && is_telling;
            let options = field.options();
            let is = options
                .get_field_by_name("debug_redact")
                .is_some_and(|value| *value == Value::Bool(true));
            assert_eq!(is, expected, "{}", field.full_name());
            marked += usize::from(is);
        }
    }
    assert!(marked > 15, "{marked}");
}

/// K09: debug output contains no sensitive field.
#[test]
fn marked_fields_are_not_printed() {
    let canary = || "canary".to_owned();
    for printed in [
        format!(
            "{:?}",
            LoginRequest { email: canary(), password: canary(), ..LoginRequest::default() }
        ),
        format!(
            "{:#?}",
            LoginResponse {
                access_token: canary(),
                refresh_token: canary(),
                ..LoginResponse::default()
            }
        ),
        format!(
            "{:?}",
            CreateUserRequest {
                email: canary(),
                credential: Some(Credential::Password(canary())),
                ..CreateUserRequest::default()
            }
        ),
        format!(
            "{:?}",
            UpdateUserRequest { display_name: Some(canary()), ..UpdateUserRequest::default() }
        ),
        format!("{:?}", User { email: canary(), display_name: canary(), ..User::default() }),
    ] {
        assert!(!printed.contains("canary"), "{printed}");
    }
    let shown = LoginRequest { organization_slug: "acme".into(), ..LoginRequest::default() };
    assert!(format!("{shown:?}").contains("organization_slug: \"acme\""));
}
