//! Identities: the secret keys that read reports. They are a person's, and never on a node.

use std::fmt;

use age::x25519::Identity;

/// The most bytes of an identity file. One key has 74.
pub const MAX_IDENTITIES: u64 = 1 << 20;

/// The most keys of a file. Each one is tried on each report.
const MOST: usize = 1000;

/// The identities of a person.
#[derive(Clone)]
pub struct Identities {
    /// The file that they are from, for messages.
    source: String,
    keys: Vec<Identity>,
}

// A secret must not get into a message by accident.
impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({:?}, {} keys)", self.source, self.keys.len())
    }
}

impl PartialEq for Identities {
    fn eq(&self, other: &Self) -> bool {
        let public =
            |identities: &Self| identities.keys.iter().map(|key| key.to_public().to_string()).collect::<Vec<_>>();
        self.source == other.source && public(self) == public(other)
    }
}

/// The reason why a file has no usable identities. Never contains a part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentities {
    /// It is protected by a passphrase.
    #[error("it is protected by a passphrase")]
    Protected,
    /// It is encrypted to somebody.
    #[error("it is encrypted itself")]
    Encrypted,
    /// It is an SSH key.
    #[error("it is an SSH key, which diagctl does not decrypt with")]
    Ssh,
    /// A line is an identity of a plugin or of another kind.
    #[error("line {0} is an identity of a kind that diagctl does not know")]
    OtherKind(usize),
    /// A line is a recipient.
    #[error("line {0} is a recipient, which only encrypts; the identity is the line that begins with AGE-SECRET-KEY-1")]
    Recipient(usize),
    /// A line is damaged.
    #[error("line {0} is not a whole identity: a character is wrong or missing")]
    Damaged(usize),
    /// A line is something else.
    #[error("line {0} is not an age identity")]
    Other(usize),
    /// There are none.
    #[error("it has no identity")]
    None,
    /// There are too many.
    #[error("it has more than {MOST} identities")]
    TooMany,
}

impl Identities {
    /// Parses an identity file as `age-keygen` writes it: one identity a line, comments, and empty lines.
    pub fn parse(source: &str, text: &[u8]) -> Result<Self, BadIdentities> {
        if let Some(why) = encrypted(text) {
            return Err(why);
        }
        let mut keys = Vec::new();
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let key = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
            keys.push(key.ok_or_else(|| kind_of(line, number + 1))?);
            if keys.len() > MOST {
                return Err(BadIdentities::TooMany);
            }
        }
        if keys.is_empty() { Err(BadIdentities::None) } else { Ok(Self { source: source.to_owned(), keys }) }
    }

    /// The file that they are from, for messages.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.keys.iter().map(|key| key as &dyn age::Identity)
    }
}

// A file with a passphrase has one stanza, of the kind scrypt.
fn encrypted(text: &[u8]) -> Option<BadIdentities> {
    // The same beginning in base64, as far as whole bytes are the same.
    const ARMORED: &[u8] = b"YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlw";
    let has_passphrase = match text.strip_prefix(b"-----BEGIN AGE ENCRYPTED FILE-----") {
        Some(armored) => armored.trim_ascii_start().starts_with(ARMORED),
        None if text.starts_with(super::decrypt::MAGIC) => {
            text.split(|byte| *byte == b'\n').nth(1).is_some_and(|stanza| stanza.starts_with(b"-> scrypt "))
        }
        None => return None,
    };
    Some(if has_passphrase { BadIdentities::Protected } else { BadIdentities::Encrypted })
}

fn kind_of(line: &[u8], number: usize) -> BadIdentities {
    let lower = line.to_ascii_lowercase();
    let begins = |start: &str| lower.starts_with(start.as_bytes());
    if begins("age-secret-key-1") {
        BadIdentities::Damaged(number)
    } else if begins("age-secret-key-") || begins("age-plugin-") {
        BadIdentities::OtherKind(number)
    } else if begins("age1") {
        BadIdentities::Recipient(number)
    } else if begins("-----begin ") {
        BadIdentities::Ssh
    } else {
        BadIdentities::Other(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_age_keygen_is_read_and_all_else_is_told_without_its_text() {
        let identity = Identity::generate();
        let key = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
        let recipient = identity.to_public().to_string();
        let good = format!("# created: 2026-11-28\x1b[2J\r\n# public key: {recipient}\r\n\r\n{key}\r\n{key}");
        let identities = Identities::parse("key.txt", good.as_bytes()).unwrap();
        assert_eq!((identities.source(), identities.keys().count()), ("key.txt", 2));
        assert_eq!(format!("{identities:?}"), "Identities(\"key.txt\", 2 keys)");
        let table = [
            (String::new(), BadIdentities::None),
            ("# nothing\n".into(), BadIdentities::None),
            (format!("\n{recipient}"), BadIdentities::Recipient(2)),
            (key[..40].to_owned(), BadIdentities::Damaged(1)),
            ("AGE-SECRET-KEY-PQ-1QQ".into(), BadIdentities::OtherKind(1)),
            ("AGE-PLUGIN-YUBIKEY-1Q".into(), BadIdentities::OtherKind(1)),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nx".into(), BadIdentities::Ssh),
            (
                "-----BEGIN AGE ENCRYPTED FILE-----\r\nYWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBh".into(),
                BadIdentities::Protected,
            ),
            (
                "-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBh".into(),
                BadIdentities::Encrypted,
            ),
            ("age-encryption.org/v1\n-> X25519 a\n".into(), BadIdentities::Encrypted),
            ("age-encryption.org/v1\n-> scrypt a 18\n".into(), BadIdentities::Protected),
            (format!("{key} # mine"), BadIdentities::Damaged(1)),
            ("\x1b]0;x\x07".into(), BadIdentities::Other(1)),
            (format!("{key}\n").repeat(MOST + 1), BadIdentities::TooMany),
        ];
        for (text, expected) in table {
            assert_eq!(Identities::parse("f", text.as_bytes()).unwrap_err(), expected);
        }
    }
}
