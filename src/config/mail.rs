//! Settings of mails.

use std::path::PathBuf;

use lettre::{AsyncSmtpTransport, Tokio1Executor, message::Mailbox};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::values::Reader;

/// The placeholder for the token in the URLs of pages, such as [`Mail::reset_page`].
pub const TOKEN_PLACEHOLDER: &str = "{token}";

/// The settings of mails.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The destination of all mails.
    pub destination: MailDestination,
    /// The sender's address.
    pub from: Mailbox,
    /// The URL of the page that resets a password, which contains [`TOKEN_PLACEHOLDER`]; `None`
    /// when mails contain only the token.
    pub reset_page: Option<String>,
    /// The URL of the page that calls `VerifyEmail`, which contains [`TOKEN_PLACEHOLDER`]; `None`
    /// when mails contain only the token.
    pub verification_page: Option<String>,
}

/// A destination of mails.
#[derive(Clone, Debug)]
pub enum MailDestination {
    /// An SMTP server, by its URL. The URL may contain a password.
    Smtp(SecretString),
    /// A folder into which mails are written as files.
    Folder(PathBuf),
}

impl Mail {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let destination = reader.read("MAIL_URL", |text| match text {
            "off" => Ok(None),
            text => parse_destination(text).map(Some),
        });
        let from = reader.read("MAIL_FROM", |text| {
            text.parse()
                .map(Some)
                .map_err(|_| "must be an address like Name <name@host>".to_owned())
        });
        let reset_page = reader.read("PASSWORD_RESET_URL", parse_page);
        let verification_page = reader.read("EMAIL_VERIFICATION_URL", parse_page);
        Some(Self { destination: destination?, from: from?, reset_page, verification_page })
    }
}

/// Parses a mail URL. The error never repeats the URL, which may contain a password.
fn parse_destination(text: &str) -> Result<MailDestination, String> {
    let expected_format =
        "must be a URL like smtps://user:password@host, smtp://host or file:///folder";
    let url = Url::parse(text).map_err(|_| expected_format)?;
    match url.scheme() {
        "file" => {
            url.to_file_path().map(MailDestination::Folder).map_err(|()| expected_format.to_owned())
        }
        "smtp" | "smtps" => {
            check_encryption(&url)?;
            let url = SecretString::from(text);
            AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret())
                .map_err(|_| expected_format)?;
            Ok(MailDestination::Smtp(url))
        }
        _ => Err(expected_format.to_owned()),
    }
}

/// Checks that a password is sent only over TLS: with `smtps`, or with STARTTLS (RFC 3207) that is
/// required. On loopback nobody else reads the connection.
fn check_encryption(url: &Url) -> Result<(), String> {
    let is_required = url.query_pairs().any(|(key, value)| key == "tls" && value == "required");
    let is_loopback = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if url.password().is_none() || url.scheme() == "smtps" || is_required || is_loopback {
        return Ok(());
    }
    Err("has a password, so it must use TLS: smtps://…, or smtp://…?tls=required for STARTTLS"
        .into())
}

/// Parses the URL of a page; `None` when it is off.
fn parse_page(text: &str) -> Result<Option<String>, String> {
    if text == "off" {
        return Ok(None);
    }
    let is_valid = Url::parse(&text.replace(TOKEN_PLACEHOLDER, "token")).is_ok()
        && text.contains(TOKEN_PLACEHOLDER);
    if is_valid {
        Ok(Some(text.to_owned()))
    } else {
        Err(format!("must be a URL with {TOKEN_PLACEHOLDER} in it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N43: a password is not sent in plain text to another host.
    #[test]
    fn a_password_needs_tls() {
        for url in [
            "smtps://user:secret@mail.test",
            "smtp://user:secret@mail.test?tls=required",
            "smtp://user:secret@localhost:25",
            "smtp://mail.test",
        ] {
            assert!(parse_destination(url).is_ok(), "{url}");
        }
        for url in
            ["smtp://user:secret@mail.test", "smtp://user:secret@mail.test?tls=opportunistic"]
        {
            let error = parse_destination(url).err().unwrap_or_default();
            assert!(error.contains("tls=required") && !error.contains("secret"), "{error}");
        }
    }
}
