//! Parsed private keys. A key is parsed once, because parsing an RSA key costs as much as a
//! signature.

use anyhow::Context;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::error::{Error, Result};

/// A private key that is ready to sign, with its algorithm.
pub(super) enum Signer {
    /// RS256 (RFC 7518, section 3.3).
    Rsa(RsaKeyPair),
    /// ES256 (RFC 7518, section 3.4).
    P256(EcdsaKeyPair),
    /// `EdDSA` with Ed25519 (RFC 8037, section 3.1).
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// Parses a private key.
    ///
    /// # Errors
    /// When the key is not a key for the algorithm. No error contains key bytes.
    pub fn parse(key: &EncodingKey, alg: Algorithm) -> anyhow::Result<Self> {
        let der = key.as_bytes();
        let parsed = match alg {
            Algorithm::RS256 => RsaKeyPair::from_der(der).map(Self::Rsa),
            Algorithm::ES256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Self::P256)
            }
            Algorithm::EdDSA => Ed25519KeyPair::from_pkcs8(der).map(Self::Ed25519),
            _ => anyhow::bail!("the algorithm of a key is none of RS256, ES256 and EdDSA"),
        };
        parsed.ok().context("a key is invalid")
    }

    /// Signs a JWT's header and claims; returns the raw bytes of the signature (RFC 7515, section
    /// 5.1).
    ///
    /// # Errors
    /// INTERNAL when the key can't sign. This does not happen with a valid key.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let sign_error = |_| Error::defect("a loaded key does not sign");
        let random = SystemRandom::new();
        Ok(match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(sign_error)?;
                signature
            }
            Self::P256(key) => key.sign(&random, message).map_err(sign_error)?.as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        })
    }
}
