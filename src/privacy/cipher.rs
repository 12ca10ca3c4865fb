//! Encryption of personal data with a tenant's data key, and blind indexes for lookups
//! of encrypted values (`email.rs` has the index of emails).

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
pub(super) const KEY_LENGTH: usize = 32;

/// The first byte of a sealed value: the version of its format.
const FORMAT_VERSION: u8 = 1;

/// A blind index: a keyed hash for the lookup of an encrypted value.
pub type Index = [u8; 16];

/// Encrypts and decrypts ("seals" and "opens") the personal data of one tenant.
pub struct Cipher {
    tenant: TenantId,
    root_key: Prk,
    index_key: hmac::Key,
    unreadable_counter: UnreadableCounter,
}

/// Counts values that could not be opened, by table.
pub(super) type UnreadableCounter = Family<Table, Counter>;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(super) struct Table {
    table: &'static str,
}

/// Creates the counter of each table that contains sealed values, so that the metric shows 0 before
/// the first failure.
pub(super) fn create_counters(counter: &UnreadableCounter) {
    for table in [
        "audit_events",
        "idempotency_records",
        "mail_links",
        "mail_outbox",
        "registrations",
        "sessions",
        "users",
    ] {
        drop(counter.get_or_create(&Table { table }));
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
    /// Binds a value only to the table and to the row's id.
    #[must_use]
    pub fn row(table: &'static str, id: &'a Uuid) -> Self {
        Self { table, row: id.as_bytes() }
    }
}

/// The `row` bytes of a [`SealContext`] that binds a value to the row's id and to other values of
/// the row, `parts`. When the id or a part differs, the sealed value does not open. Each part must
/// have a fixed length, so that the concatenation is unambiguous.
#[must_use]
pub fn bound_row_bytes(id: &Uuid, parts: &[&[u8]]) -> Vec<u8> {
    [id.as_bytes().as_slice(), &parts.concat()].concat()
}

impl Cipher {
    /// Derives the keys from the tenant's data key.
    pub(super) fn new(
        tenant: TenantId,
        key: &[u8; KEY_LENGTH],
        unreadable_counter: UnreadableCounter,
    ) -> Result<Self> {
        let root_key = Salt::new(HKDF_SHA256, b"tenantry data key").extract(key);
        let index_key = root_key
            .expand(&[b"index"], HMAC_SHA256)
            .map(hmac::Key::from)
            .map_err(|_| Error::defect("no index key"))?;
        Ok(Self { tenant, root_key, index_key, unreadable_counter })
    }

    /// Seals a value: AES-256-GCM (SP 800-38D) with a random nonce. HKDF (RFC 5869) derives a key
    /// for each row, so no key seals so many values that random nonces could repeat. The table, the
    /// tenant and the row are also the associated data.
    ///
    /// # Errors
    /// When the operating system provides no random bytes.
    pub fn seal(&self, context: SealContext<'_>, value: &[u8]) -> Result<Vec<u8>> {
        let failed = |_| Error::defect("a value can't be sealed");
        let context_bytes = self.context_bytes(context);
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(failed)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + value.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT_VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let key = self.row_key(&context_bytes)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let value_bytes = &mut sealed[1 + NONCE_LEN..];
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(&context_bytes), value_bytes)
            .map_err(failed)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a value that was sealed in this context.
    ///
    /// # Errors
    /// `DATA_UNREADABLE` when the value was sealed in another context or was altered. The log
    /// line contains the table and the row.
    pub fn open(&self, context: SealContext<'_>, sealed: &[u8]) -> Result<Vec<u8>> {
        self.try_open(context, sealed).ok_or_else(|| self.report_unreadable(context))
    }

    /// Logs and counts a value that could not be opened, and returns the error.
    fn report_unreadable(&self, context: SealContext<'_>) -> Error {
        let (SealContext { table, row }, tenant) = (context, self.tenant);
        let row = row.first_chunk::<16>().map(|id| Uuid::from_bytes(*id)).unwrap_or_default();
        tracing::error!(%tenant, table, %row, "a sealed value does not open: it was altered");
        self.unreadable_counter.get_or_create(&Table { table }).inc();
        Error::Unreadable
    }

    /// Seals a serializable value, as JSON.
    ///
    /// # Errors
    /// When the operating system provides no random bytes.
    pub fn seal_json(&self, context: SealContext<'_>, value: &impl Serialize) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(value);
        self.seal(context, &json.map_err(|_| Error::defect("a value can't be encoded as JSON"))?)
    }

    /// Opens a value that [`Cipher::seal_json`] sealed.
    ///
    /// # Errors
    /// `DATA_UNREADABLE` when the value was sealed in another context or was altered.
    pub fn open_json<T: DeserializeOwned>(
        &self,
        context: SealContext<'_>,
        sealed: &[u8],
    ) -> Result<T> {
        let json = self.open(context, sealed)?;
        serde_json::from_slice(&json).map_err(|_| self.report_unreadable(context))
    }

    fn try_open(&self, context: SealContext<'_>, sealed: &[u8]) -> Option<Vec<u8>> {
        let (version, rest) = sealed.split_first()?;
        let (nonce, ciphertext) =
            rest.split_at_checked(NONCE_LEN).filter(|_| *version == FORMAT_VERSION)?;
        let context_bytes = self.context_bytes(context);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut value = ciphertext.to_vec();
        let key = self.row_key(&context_bytes).ok()?;
        let plaintext = key.open_in_place(nonce, Aad::from(&context_bytes), &mut value);
        let length = plaintext.ok()?.len();
        value.truncate(length);
        Some(value)
    }

    /// The blind index of a value: HMAC-SHA-256 under a key of the tenant, truncated to half
    /// its length (RFC 2104, section 5). The hash includes `kind`, the kind of the value, so that
    /// equal values of two kinds have different indexes.
    #[must_use]
    pub fn blind_index(&self, kind: &str, value: &[u8]) -> Index {
        let mut hmac = hmac::Context::with_key(&self.index_key);
        hmac.update(kind.as_bytes());
        // The zero byte separates the kind from the value.
        hmac.update(&[0]);
        hmac.update(value);
        let mut index = Index::default();
        let length = index.len();
        index.copy_from_slice(&hmac.sign().as_ref()[..length]);
        index
    }

    /// The table, the tenant and the row, as input of the key derivation and as associated data.
    fn context_bytes(&self, context: SealContext<'_>) -> Vec<u8> {
        [context.table.as_bytes(), &[0], self.tenant.0.as_bytes(), context.row].concat()
    }

    fn row_key(&self, context_bytes: &[u8]) -> Result<LessSafeKey> {
        self.root_key
            .expand(&[b"seal", context_bytes], &AES_256_GCM)
            .map(|key| LessSafeKey::new(UnboundKey::from(key)))
            .map_err(|_| Error::defect("no key for a row"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(tenant: u128, key: u8) -> Cipher {
        let tenant = TenantId(Uuid::from_u128(tenant));
        Cipher::new(tenant, &[key; KEY_LENGTH], UnreadableCounter::default())
            .expect("the cipher is created")
    }

    #[test]
    fn a_value_opens_only_for_its_row_table_tenant_and_key() {
        let (cipher_of_tenant, row) = (cipher(1, 1), Uuid::from_u128(9));
        let context = SealContext::row("users", &row);
        let sealed = cipher_of_tenant.seal(context, b"ada@acme.test").expect("the value is sealed");
        assert_eq!(
            cipher_of_tenant.open(context, &sealed).expect("the value opens"),
            b"ada@acme.test"
        );
        assert_ne!(
            cipher_of_tenant.seal(context, b"ada@acme.test").expect("the value is sealed"),
            sealed
        );

        let other_row = Uuid::from_u128(10);
        assert!(
            cipher_of_tenant.open(SealContext::row("users", &other_row), &sealed).is_err(),
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
        let sealed = cipher.seal(context, b"Ada").expect("the value is sealed");
        for index in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[index] ^= 1;
            assert!(cipher.open(context, &altered).is_err(), "byte {index}");
            assert!(cipher.open(context, &sealed[..index]).is_err(), "{index} bytes");
        }
    }

    #[test]
    fn an_index_depends_on_the_data_key_the_kind_and_the_value() {
        let index = cipher(1, 1).blind_index("email", b"ada@acme.test");
        assert_eq!(index, cipher(1, 1).blind_index("email", b"ada@acme.test"));
        assert_ne!(index, cipher(2, 2).blind_index("email", b"ada@acme.test"));
        assert_ne!(index, cipher(1, 1).blind_index("phone", b"ada@acme.test"));
        assert_ne!(index, cipher(1, 1).blind_index("email", b"ada@acme.tesT"));
    }
}
