//! Recipients: the public keys to which reports are encrypted.

use std::io::{self, BufWriter, Write};

use age::stream::StreamWriter;
use age::x25519::Recipient;

use super::Encryption;

/// The most recipients. Each one adds about 100 bytes to every report.
pub const MAX_RECIPIENTS: usize = 32;

/// Holds the header until the first block is written, and a block at a time from then on.
const BUFFER: usize = 64 << 10;

/// The reason why a text is no recipient. Never contains the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipient {
    /// It is a secret key.
    #[error("this is a secret key, not a recipient")]
    SecretKey,
    /// It is an SSH key.
    #[error("this is an SSH key, which diagctl does not encrypt to")]
    Ssh,
    /// It is a recipient of another kind.
    #[error("this is a recipient of a kind that diagctl does not know")]
    OtherKind,
    /// It looks like a recipient, but its checksum does not match.
    #[error("this is not a whole recipient: a character is wrong or missing")]
    Damaged,
    /// It is something else.
    #[error("this is not an age recipient")]
    Other,
}

/// Returns the problem with a recipient, if it has one.
pub fn check_recipient(text: &str) -> Result<(), BadRecipient> {
    parse(text).map(drop)
}

fn parse(text: &str) -> Result<Recipient, BadRecipient> {
    text.parse().map_err(|_| {
        let lower = text.to_ascii_lowercase();
        if diagctl_fs::has_secret_key(text) {
            BadRecipient::SecretKey
        } else if lower.starts_with("ssh-") || lower.starts_with("ecdsa-") || lower.starts_with("sk-ssh-") {
            BadRecipient::Ssh
        } else if let Some(rest) = lower.strip_prefix("age1") {
            // A plugin's recipient has a name and another 1: age1yubikey1…, age1pq1…
            if rest.contains('1') { BadRecipient::OtherKind } else { BadRecipient::Damaged }
        } else {
            BadRecipient::Other
        }
    })
}

/// Encrypts what is written to it.
pub(crate) struct Encryptor<W: Write>(StreamWriter<BufWriter<W>>);

impl<W: Write> Encryptor<W> {
    /// Begins a file for the recipients.
    pub(crate) fn new(encryption: &Encryption, out: W) -> Result<Self, String> {
        if let Some(why) = &encryption.broken {
            return Err(why.clone());
        }
        let mut recipients = Vec::new();
        for (number, text) in encryption.recipients.iter().enumerate() {
            recipients.push(parse(text).map_err(|why| format!("encrypt.recipients[{number}]: {why}"))?);
        }
        let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients)
            .map_err(|_| "encrypt.recipients names nobody who could read the report".to_owned())?;
        // The header fits into the buffer, so nothing that can fail is written yet.
        let stream = encryptor.wrap_output(BufWriter::with_capacity(BUFFER, out)).map_err(|e| e.to_string())?;
        Ok(Self(stream))
    }

    /// Writes the last block, without which the file counts as cut off.
    pub(crate) fn finish(self) -> io::Result<W> {
        self.0.finish()?.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_recipient_is_named_and_not_repeated() {
        let identity = age::x25519::Identity::generate();
        let (recipient, key) = (identity.to_public().to_string(), identity.to_string());
        let key = age::secrecy::ExposeSecret::expose_secret(&key).to_owned();
        assert_eq!(check_recipient(&recipient), Ok(()));
        let table = [
            (key.clone(), BadRecipient::SecretKey),
            (key.to_lowercase(), BadRecipient::SecretKey),
            (format!("# {key}"), BadRecipient::SecretKey),
            ("AGE-SECRET-KEY-PQ-1QQ".into(), BadRecipient::SecretKey),
            ("ssh-ed25519 AAAA me".into(), BadRecipient::Ssh),
            ("age1yubikey1qw".into(), BadRecipient::OtherKind),
            (recipient[..recipient.len() - 1].to_owned(), BadRecipient::Damaged),
            (recipient.replace("age1", "age1b"), BadRecipient::Damaged),
            ("me@example.org".into(), BadRecipient::Other),
            (String::new(), BadRecipient::Other),
            (format!("{recipient} "), BadRecipient::Damaged),
        ];
        for (text, expected) in table {
            assert_eq!(check_recipient(&text), Err(expected), "{expected:?}");
            assert!(!expected.to_string().contains(&key));
        }
    }

    #[test]
    fn without_a_usable_recipient_nothing_is_written() {
        let with = |recipients: &[&str]| Encryption {
            recipients: recipients.iter().map(|&r| r.to_owned()).collect(),
            ..Encryption::default()
        };
        let table = [
            (with(&[]), "names nobody"),
            (with(&["age1x"]), "encrypt.recipients[0]: this is not a whole recipient"),
            (Encryption::broken("[encrypt] is not valid"), "[encrypt] is not valid"),
        ];
        for (encryption, expected) in table {
            let mut out = Vec::new();
            let why = Encryptor::new(&encryption, &mut out).err().unwrap();
            assert!(why.contains(expected), "{why}");
            assert!(out.is_empty());
        }
    }
}
