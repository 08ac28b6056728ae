//! Keys and files for tests.

use std::io::Write as _;

use super::{Encryption, Encryptor, Identities};

/// Makes a key: the setting that encrypts to it, and the identities that decrypt.
pub(crate) fn pair() -> (Encryption, Identities) {
    let identity = age::x25519::Identity::generate();
    let key = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    let recipients = vec![identity.to_public().to_string()];
    (Encryption { recipients, ..Encryption::default() }, Identities::parse("key", key.as_bytes()).unwrap())
}

/// Encrypts content.
pub(crate) fn encrypted(encryption: &Encryption, content: &[u8]) -> Vec<u8> {
    let mut encryptor = Encryptor::new(encryption, Vec::new()).unwrap();
    encryptor.write_all(content).unwrap();
    encryptor.finish().unwrap()
}
