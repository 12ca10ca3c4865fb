//! Encryption of personal data with a tenant's data key, and blind indexes for lookups.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk, Salt},
    hmac::{self, HMAC_SHA256},
    rand,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    ids::TenantId,
};

/// Length of a data key, in bytes.
pub(super) const KEY: usize = 32;

/// The first byte of a sealed value: the version of its format.
const FORMAT_VERSION: u8 = 1;

/// A blind index: a keyed hash for the lookup of an encrypted value.
pub type Index = [u8; 16];

/// Encrypts and decrypts ("seals" and "opens") the personal data of one tenant.
pub struct Cipher {
    tenant: TenantId,
    root: Prk,
    index: hmac::Key,
    unreadable: Unreadable,
}

/// Counts values that could not be opened, by table.
pub(super) type Unreadable = Family<Table, Counter>;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(super) struct Table {
    table: &'static str,
}

/// Registers the counter of each table that holds personal data, so it shows 0 before the first
/// failure.
pub(super) fn show_tables(unreadable: &Unreadable) {
    for table in ["audit_events", "idempotency_records", "mail_outbox", "sessions", "users"] {
        drop(unreadable.get_or_create(&Table { table }));
    }
}

/// The table and the row of a value. A sealed value opens only for the same table and row.
#[derive(Clone, Copy)]
pub struct SealContext<'a> {
    pub table: &'static str,
    /// The 16 bytes of the row's id, then the other values of the row to which the sealed value
    /// is bound.
    pub row: &'a [u8],
}

impl<'a> SealContext<'a> {
    /// The row with this id, and no other bound values.
    #[must_use]
    pub fn row(table: &'static str, id: &'a Uuid) -> Self {
        Self { table, row: id.as_bytes() }
    }
}

/// The `row` bytes of a [`SealContext`] that also binds other values of the row. When the id or
/// any of these values differs, the sealed value does not open. Each part has a fixed length,
/// so the concatenation is unambiguous.
#[must_use]
pub fn bound_row(id: &Uuid, parts: &[&[u8]]) -> Vec<u8> {
    [id.as_bytes().as_slice(), &parts.concat()].concat()
}

impl Cipher {
    /// Derives the keys from the tenant's data key.
    pub(super) fn new(tenant: TenantId, key: &[u8; KEY], unreadable: Unreadable) -> Result<Self> {
        let root = Salt::new(HKDF_SHA256, b"tenantry data key").extract(key);
        let index = root
            .expand(&[b"index"], HMAC_SHA256)
            .map(hmac::Key::from)
            .map_err(|_| Error::defect("no index key"))?;
        Ok(Self { tenant, root, index, unreadable })
    }

    /// Seals a value: AES-256-GCM (SP 800-38D) with a random nonce. The key is derived for this
    /// row by HKDF (RFC 5869), so no key seals so many values that random nonces could repeat.
    /// The context is also the associated data.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn seal(&self, context: SealContext<'_>, value: &[u8]) -> Result<Vec<u8>> {
        let failed = |_| Error::defect("a value can't be sealed");
        let identity = self.identity(context);
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(failed)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + value.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT_VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let key = self.key(&identity)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let secret = &mut sealed[1 + NONCE_LEN..];
        let tag =
            key.seal_in_place_separate_tag(nonce, Aad::from(&identity), secret).map_err(failed)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a value that was sealed in this context.
    ///
    /// # Errors
    /// `DATA_UNREADABLE` when the value was sealed in another context or was altered. The log
    /// names the table and the row.
    pub fn open(&self, context: SealContext<'_>, sealed: &[u8]) -> Result<Vec<u8>> {
        self.try_open(context, sealed).ok_or_else(|| self.unreadable(context))
    }

    fn unreadable(&self, context: SealContext<'_>) -> Error {
        let (SealContext { table, row }, tenant) = (context, self.tenant);
        let row = row.first_chunk::<16>().map(|id| Uuid::from_bytes(*id)).unwrap_or_default();
        tracing::error!(%tenant, table, %row, "a sealed value does not open: it was altered");
        self.unreadable.get_or_create(&Table { table }).inc();
        Error::Unreadable
    }

    /// Seals a serializable value, as JSON.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn seal_parts(&self, context: SealContext<'_>, value: &impl Serialize) -> Result<Vec<u8>> {
        let text = serde_json::to_vec(value);
        self.seal(context, &text.map_err(|_| Error::defect("a value can't be written"))?)
    }

    /// Opens a value that [`Cipher::seal_parts`] sealed.
    ///
    /// # Errors
    /// `DATA_UNREADABLE` when the value was sealed in another context or was altered.
    pub fn open_parts<T: DeserializeOwned>(
        &self,
        context: SealContext<'_>,
        sealed: &[u8],
    ) -> Result<T> {
        let text = self.open(context, sealed)?;
        serde_json::from_slice(&text).map_err(|_| self.unreadable(context))
    }

    fn try_open(&self, context: SealContext<'_>, sealed: &[u8]) -> Option<Vec<u8>> {
        let (version, rest) = sealed.split_first()?;
        let (nonce, secret) =
            rest.split_at_checked(NONCE_LEN).filter(|_| *version == FORMAT_VERSION)?;
        let identity = self.identity(context);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut value = secret.to_vec();
        let plaintext =
            self.key(&identity).ok()?.open_in_place(nonce, Aad::from(&identity), &mut value);
        let length = plaintext.ok()?.len();
        value.truncate(length);
        Some(value)
    }

    /// The blind index of a value: HMAC-SHA-256 under a key of the tenant, truncated to half
    /// its length (RFC 2104, section 5). `kind` names the kind of value, so equal values of two
    /// kinds have different indexes.
    #[must_use]
    pub fn index(&self, kind: &str, value: &[u8]) -> Index {
        let mut context = hmac::Context::with_key(&self.index);
        context.update(kind.as_bytes());
        context.update(&[0]);
        context.update(value);
        let mut index = Index::default();
        let length = index.len();
        index.copy_from_slice(&context.sign().as_ref()[..length]);
        index
    }

    fn identity(&self, context: SealContext<'_>) -> Vec<u8> {
        [context.table.as_bytes(), &[0], self.tenant.0.as_bytes(), context.row].concat()
    }

    fn key(&self, identity: &[u8]) -> Result<LessSafeKey> {
        self.root
            .expand(&[b"seal", identity], &AES_256_GCM)
            .map(|key| LessSafeKey::new(UnboundKey::from(key)))
            .map_err(|_| Error::defect("no key for a row"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(tenant: u128, key: u8) -> Cipher {
        let tenant = TenantId(Uuid::from_u128(tenant));
        Cipher::new(tenant, &[key; KEY], Unreadable::default())
            .expect("the cipher cannot be created")
    }

    #[test]
    fn a_value_opens_only_for_its_row_table_tenant_and_key() {
        let (cipher_of_tenant, row) = (cipher(1, 1), Uuid::from_u128(9));
        let context = SealContext::row("users", &row);
        let sealed = cipher_of_tenant.seal(context, b"ada@acme.test").expect("sealing failed");
        assert_eq!(
            cipher_of_tenant.open(context, &sealed).expect("opening failed"),
            b"ada@acme.test"
        );
        assert_ne!(
            cipher_of_tenant.seal(context, b"ada@acme.test").expect("sealing failed"),
            sealed
        );

        let other = Uuid::from_u128(10);
        assert!(
            cipher_of_tenant.open(SealContext::row("users", &other), &sealed).is_err(),
            "another row"
        );
        assert!(
            cipher_of_tenant.open(SealContext::row("sessions", &row), &sealed).is_err(),
            "another table"
        );
        assert!(cipher(2, 1).open(context, &sealed).is_err(), "another tenant");
        assert!(cipher(1, 2).open(context, &sealed).is_err(), "another key");
    }

    #[test]
    fn an_altered_or_truncated_value_does_not_open() {
        let (cipher, row) = (cipher(1, 1), Uuid::nil());
        let context = SealContext::row("users", &row);
        let sealed = cipher.seal(context, b"Ada").expect("sealing failed");
        for index in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[index] ^= 1;
            assert!(cipher.open(context, &altered).is_err(), "byte {index}");
            assert!(cipher.open(context, &sealed[..index]).is_err(), "{index} bytes");
        }
    }

    #[test]
    fn an_index_depends_on_the_tenant_the_kind_and_the_value() {
        let index = cipher(1, 1).index("email", b"ada@acme.test");
        assert_eq!(index, cipher(1, 1).index("email", b"ada@acme.test"));
        assert_ne!(index, cipher(2, 2).index("email", b"ada@acme.test"));
        assert_ne!(index, cipher(1, 1).index("phone", b"ada@acme.test"));
        assert_ne!(index, cipher(1, 1).index("email", b"ada@acme.tesT"));
    }
}
