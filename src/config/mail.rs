//! Settings of mails.

use std::path::PathBuf;

use lettre::{AsyncSmtpTransport, Tokio1Executor, message::Mailbox};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::values::Reader;

/// The placeholder for the token in [`Mail::reset_page`].
pub const TOKEN_PLACEHOLDER: &str = "{token}";

/// The settings of mails.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The destination of all mails.
    pub post: MailDestination,
    /// The sender's address.
    pub from: Mailbox,
    /// The URL of the page that resets a password, which contains [`TOKEN_PLACEHOLDER`]; `None`
    /// when mails contain only the token.
    pub reset_page: Option<String>,
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
        let reset_page = reader.read("PASSWORD_RESET_URL", |text| match text {
            "off" => Ok(None),
            text => parse_reset_page(text).map(Some),
        });
        Some(Self { post: destination?, from: from?, reset_page })
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
            let url = SecretString::from(text);
            AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret())
                .map_err(|_| expected_format)?;
            Ok(MailDestination::Smtp(url))
        }
        _ => Err(expected_format.to_owned()),
    }
}

fn parse_reset_page(text: &str) -> Result<String, String> {
    let is_valid = Url::parse(&text.replace(TOKEN_PLACEHOLDER, "token")).is_ok()
        && text.contains(TOKEN_PLACEHOLDER);
    if is_valid {
        Ok(text.to_owned())
    } else {
        Err(format!("must be a URL with {TOKEN_PLACEHOLDER} in it"))
    }
}
