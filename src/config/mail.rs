//! Where mails go.

use std::path::PathBuf;

use lettre::{AsyncSmtpTransport, Tokio1Executor, message::Mailbox};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::values::Reader;

/// What stands for the token in a page's address.
pub const TOKEN: &str = "{token}";

/// How mails are sent.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Where to.
    pub post: Post,
    /// From whom.
    pub from: Mailbox,
    /// The page where a password is reset, with [`TOKEN`] in it.
    pub reset_page: Option<String>,
}

/// What takes mails.
#[derive(Clone, Debug)]
pub enum Post {
    /// A server, by its URL.
    Smtp(SecretString),
    /// A folder.
    Folder(PathBuf),
}

impl Mail {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let post = reader.read("MAIL_URL", |text| match text {
            "off" => Ok(None),
            text => post(text).map(Some),
        });
        let from = reader.read("MAIL_FROM", |text| {
            text.parse().map(Some).map_err(|_| "must be like Name <name@host>".to_owned())
        });
        let reset_page = reader.read("PASSWORD_RESET_URL", |text| match text {
            "off" => Ok(None),
            text => page(text).map(Some),
        });
        Some(Self { post: post?, from: from?, reset_page })
    }
}

/// No mistake repeats the URL: it may hold a password.
fn post(text: &str) -> Result<Post, String> {
    let wanted = "must be a URL like smtps://user:password@host, smtp://host or file:///folder";
    let url = Url::parse(text).map_err(|_| wanted)?;
    match url.scheme() {
        "file" => url.to_file_path().map(Post::Folder).map_err(|()| wanted.to_owned()),
        "smtp" | "smtps" => {
            let url = SecretString::from(text);
            AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret())
                .map_err(|_| wanted)?;
            Ok(Post::Smtp(url))
        }
        _ => Err(wanted.to_owned()),
    }
}

fn page(text: &str) -> Result<String, String> {
    let is_page = Url::parse(&text.replace(TOKEN, "token")).is_ok() && text.contains(TOKEN);
    if is_page { Ok(text.to_owned()) } else { Err(format!("must be a URL with {TOKEN} in it")) }
}
