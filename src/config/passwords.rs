//! Settings of the hashing of passwords.

use std::path::PathBuf;

use super::{
    Values, memory_limit,
    values::{Reader, core_count, to_usize},
};
use crate::passwords::PasswordPolicy;

/// By default, hashing may use the memory limit of the process divided by this number.
const MEMORY_DIVISOR: u64 = 2;

/// Rules for passwords, and parameters of their hashing.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// The minimum password length. A tenant may require longer passwords.
    pub policy: PasswordPolicy,
    /// argon2id memory, in KiB.
    pub memory_kib: u32,
    /// argon2id passes.
    pub iterations: u32,
    /// argon2id lanes.
    pub parallelism: u32,
    /// The file with the peppers; `None` without peppers.
    pub pepper: Option<PathBuf>,
    /// Number of threads that hash passwords.
    pub threads: usize,
    /// Maximum memory of all hashes that are computed at the same time, in bytes.
    pub hashing_memory: u64,
    /// Maximum number of passwords that wait for a thread.
    pub queue: usize,
}

impl Passwords {
    /// Parses and checks the settings of password hashing.
    ///
    /// # Errors
    /// Fails with one message that lists every invalid setting.
    pub fn check(values: &Values) -> anyhow::Result<Self> {
        let mut reader = Reader::new(values);
        let passwords = Self::read(&mut reader);
        reader.finish()?;
        Ok(passwords)
    }

    /// Reads the settings. The minimum argon2id costs are the recommendations of OWASP, and cannot
    /// be configured lower.
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let memory_kib = reader.number("ARGON2_MEMORY_KIB", 19_456, 4 << 20);
        let hashing_memory = read_hashing_memory(reader, memory_kib);
        let threads = match reader.number("HASHING_THREADS", 0, 1024) {
            0 => core_count().min(max_concurrent_hashes(hashing_memory, memory_kib)),
            threads => to_usize(threads),
        };
        Self {
            policy: PasswordPolicy::of_server(to_usize(reader.number(
                "PASSWORD_MIN_LENGTH",
                PasswordPolicy::LOWEST.into(),
                PasswordPolicy::HIGHEST.into(),
            ))),
            memory_kib,
            iterations: reader.number("ARGON2_ITERATIONS", 2, 100),
            parallelism: reader.number("ARGON2_PARALLELISM", 1, 64),
            pepper: reader.path_or_off("PASSWORD_PEPPER_PATH"),
            threads,
            hashing_memory,
            queue: to_usize(reader.number("HASHING_QUEUE", 1, 100_000)),
        }
    }

    /// The number of hashes with the configured parameters that may be computed at the same time.
    /// Not zero.
    #[must_use]
    pub fn max_concurrent_hashes(&self) -> usize {
        max_concurrent_hashes(self.hashing_memory, self.memory_kib)
    }

    /// Logs how many passwords are hashed at the same time, and the limits that this number depends
    /// on.
    pub fn log_hashing(&self) {
        let (threads, at_once) = (self.threads, self.max_concurrent_hashes());
        let mib = |bytes: u64| bytes >> 20;
        tracing::info!(
            threads,
            hashing_memory_mib = mib(self.hashing_memory),
            hash_memory_mib = mib(u64::from(self.memory_kib) * 1024),
            memory_limit_mib = memory_limit::read().map(mib),
            cores = core_count(),
            "password hashing"
        );
        if threads > at_once {
            tracing::warn!(
                threads,
                at_once,
                "HASHING_THREADS is too high: HASHING_MEMORY_BYTES allows fewer hashes at a time"
            );
        }
        if u64::from(self.memory_kib) * 1024 > self.hashing_memory {
            tracing::warn!(
                "ARGON2_MEMORY_KIB is too high: one hash needs more than HASHING_MEMORY_BYTES, \
                 which is half of the memory limit; raise the memory limit"
            );
        }
    }
}

/// Reads the maximum memory of all hashes, in bytes. The value 0 means a part of the memory limit,
/// or no maximum if the system reports no limit.
fn read_hashing_memory(reader: &mut Reader<'_>, memory_kib: u32) -> u64 {
    const NAME: &str = "HASHING_MEMORY_BYTES";
    let bytes = reader.read(NAME, |text| {
        text.parse().map_err(|_| "must be a whole number of bytes, or 0".to_owned())
    });
    if bytes == 0 {
        return memory_limit::read().map_or(u64::MAX, |limit| limit / MEMORY_DIVISOR);
    }
    let min = u64::from(memory_kib) * 1024;
    if bytes < min {
        let text = format!("must be 0 or at least the memory of one hash, which is {min}");
        reader.add_error(NAME, &text);
    }
    bytes
}

/// The number of hashes that fit into `hashing_memory` (in bytes), but at least one.
fn max_concurrent_hashes(hashing_memory: u64, memory_kib: u32) -> usize {
    let hashes = hashing_memory / (u64::from(memory_kib).max(1) * 1024);
    usize::try_from(hashes).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::{super::SETTINGS, *};

    /// Reads the default settings with these changes.
    fn read(changes: &[(&'static str, &'static str)]) -> anyhow::Result<Passwords> {
        let mut values = Values::default();
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                values.set(setting.name, default);
            }
        }
        for (name, value) in changes {
            values.set(name, *value);
        }
        Passwords::check(&values)
    }

    /// N41: without a number of threads, there are no more threads than the memory allows.
    #[test]
    fn the_number_of_threads_depends_on_the_memory() {
        // 19456 KiB (the default ARGON2_MEMORY_KIB) in bytes.
        let one_hash = ("HASHING_MEMORY_BYTES", "19922944");
        let passwords = read(&[one_hash]).expect("valid");
        assert_eq!((passwords.threads, passwords.max_concurrent_hashes()), (1, 1));
        let passwords = read(&[one_hash, ("HASHING_THREADS", "3")]).expect("valid");
        assert_eq!((passwords.threads, passwords.max_concurrent_hashes()), (3, 1));
        let passwords = read(&[("HASHING_MEMORY_BYTES", "1000000000000")]).expect("valid");
        assert_eq!(passwords.threads, core_count());

        // One byte less than one hash needs.
        let error = read(&[("HASHING_MEMORY_BYTES", "19922943")]).expect_err("too small");
        assert!(error.to_string().contains("at least the memory of one hash"), "{error}");
    }
}
