//! Private keys, parsed once: parsing an RSA key costs as much as signing with it.

use anyhow::Context;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::error::{Error, Result};

/// A private key that is ready to sign, with the one algorithm that it is for.
pub(super) enum Signer {
    /// RS256 (RFC 7518, 3.3).
    Rsa(RsaKeyPair),
    /// ES256 (RFC 7518, 3.4).
    P256(EcdsaKeyPair),
    /// `EdDSA` with Ed25519 (RFC 8037, 3.1).
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// Parses a private key.
    ///
    /// # Errors
    /// When it is no key for the algorithm. No error repeats key bytes.
    pub fn parse(key: &EncodingKey, alg: Algorithm) -> anyhow::Result<Self> {
        let der = key.as_bytes();
        let parsed = match alg {
            Algorithm::RS256 => RsaKeyPair::from_der(der).map(Self::Rsa),
            Algorithm::ES256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Self::P256)
            }
            Algorithm::EdDSA => Ed25519KeyPair::from_pkcs8(der).map(Self::Ed25519),
            _ => anyhow::bail!("its algorithm is none of RS256, ES256 and EdDSA"),
        };
        parsed.ok().context("it can't be used")
    }

    /// The signature of a JWT's header and claims (RFC 7515, 5.1), not encoded yet.
    ///
    /// # Errors
    /// INTERNAL when the key does not sign, which no message makes it do.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let failed = |_| Error::defect("a loaded key does not sign");
        let random = SystemRandom::new();
        Ok(match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(failed)?;
                signature
            }
            Self::P256(key) => key.sign(&random, message).map_err(failed)?.as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        })
    }
}
