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
const NOT_SENSITIVE: &[&str] =
    &["consistency_token", "next_page_token", "page_token", "token_type"];

/// K09: the proto marks the fields that no program, in any language, may print.
#[test]
fn secret_and_personal_fields_are_marked_in_the_proto() {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("descriptors");
    let mut marked_count = 0;
    for message in pool.all_messages().filter(|m| m.package_name() == "tenantry.v1") {
        for field in message.fields().filter(|field| field.kind() == Kind::String) {
            let name = field.name();
            let sensitive_words =
                ["password", "token", "secret", "email", "display_name", "assertion"];
            let is_sensitive =
                name == "api_key" || sensitive_words.iter().any(|word| name.contains(word));
            let expected = !NOT_SENSITIVE.contains(&name) && is_sensitive;
            let options = field.options();
            let is_marked = options
                .get_field_by_name("debug_redact")
                .is_some_and(|value| *value == Value::Bool(true));
            assert_eq!(is_marked, expected, "{}", field.full_name());
            marked_count += usize::from(is_marked);
        }
    }
    assert!(marked_count > 15, "{marked_count} fields are marked");
}

/// K09: debug output contains no sensitive field.
#[test]
fn marked_fields_are_not_printed() {
    let canary = || "canary".to_owned();
    for output in [
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
        assert!(!output.contains("canary"), "{output}");
    }
    let request = LoginRequest { organization_slug: "acme".into(), ..LoginRequest::default() };
    assert!(format!("{request:?}").contains("organization_slug: \"acme\""));
}
