//! Decryption of a file with a person's identities. The file may be hostile.

use std::io::{self, BufRead, Cursor, Read};

use age::DecryptError;

use super::Identities;

/// Every file of age begins with it.
pub(super) const MAGIC: &[u8] = b"age-encryption.org/";

/// The longest header, bytes: some 500 recipients. A longer one would be parsed for minutes.
const MAX_HEADER: usize = 64 << 10;

/// The reason why a file cannot be decrypted.
#[derive(Debug, thiserror::Error)]
pub enum Undecryptable {
    /// It is encrypted to others.
    #[error("no identity matches")]
    NoIdentityMatches,
    /// It is protected by a passphrase, which diagctl does not ask for.
    #[error("it is protected by a passphrase")]
    Passphrase,
    /// It is not a file of age, or its header was changed.
    #[error("{0}")]
    Damaged(&'static str),
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Returns true if content begins as an encrypted file does.
pub fn is_encrypted(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// Opens the content of an encrypted file. What is read from it is authentic: reading ends with an error if the file was changed or
/// cut off, before any byte of the damaged block is returned.
pub fn decrypt<R: BufRead>(mut input: R, identities: &Identities) -> Result<impl Read + use<R>, Undecryptable> {
    let header = read_header(&mut input)?;
    let decryptor = age::Decryptor::new_buffered(Cursor::new(header).chain(input)).map_err(failure)?;
    if decryptor.is_scrypt() {
        return Err(Undecryptable::Passphrase);
    }
    Ok(Content(decryptor.decrypt(identities.keys()).map_err(failure)?))
}

// The header ends with the line of its checksum, `--- ` and 43 characters.
fn read_header(input: &mut impl BufRead) -> Result<Vec<u8>, Undecryptable> {
    let mut header = Vec::new();
    loop {
        let start = header.len();
        let left = MAX_HEADER - start;
        let read = input.take(left as u64).read_until(b'\n', &mut header)?;
        if start == 0 && !is_encrypted(&header) {
            return Err(Undecryptable::Damaged("it is not a file that age encrypted"));
        }
        // At the end of the file nothing is read, and the line before ends as it should.
        if read == 0 || header.last() != Some(&b'\n') {
            let why = if read < left { "it is cut off within its header" } else { "its header is too long" };
            return Err(Undecryptable::Damaged(why));
        }
        if header.get(start..).is_some_and(|line| line.starts_with(b"---")) {
            return Ok(header);
        }
    }
}

fn failure(error: DecryptError) -> Undecryptable {
    match error {
        DecryptError::NoMatchingKeys => Undecryptable::NoIdentityMatches,
        DecryptError::UnknownFormat => Undecryptable::Damaged("it has a version of age's format that is not known"),
        DecryptError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Undecryptable::Damaged("it is cut off within its header")
        }
        DecryptError::Io(error) => Undecryptable::Io(error),
        _ => Undecryptable::Damaged("its header was changed"),
    }
}

// Words the errors of age.
struct Content<R>(R);

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the encrypted file is cut off"),
            io::ErrorKind::InvalidData if error.get_ref().is_some() => {
                io::Error::new(error.kind(), "the encrypted file is cut off or was changed")
            }
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Encryption;
    use super::super::testing::{encrypted, pair};
    use super::*;

    /// The size of a block of age, encrypted.
    const BLOCK: usize = (64 << 10) + 16;

    fn read(file: &[u8], identities: &Identities) -> Result<Vec<u8>, String> {
        let mut content = Vec::new();
        let mut reader = decrypt(file, identities).map_err(|e| e.to_string())?;
        reader.read_to_end(&mut content).map(|_| content).map_err(|e| e.to_string())
    }

    #[test]
    fn every_recipient_reads_and_nobody_else() {
        let ((one, own), (two, theirs), (_, stranger)) = (pair(), pair(), pair());
        let both = Encryption { recipients: [one.recipients, two.recipients].concat(), ..Encryption::default() };
        for len in [0, 1, BLOCK - 16, BLOCK, 300_000] {
            let content: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let file = encrypted(&both, &content);
            assert!(is_encrypted(&file));
            assert_eq!(read(&file, &own).as_ref(), Ok(&content));
            assert_eq!(read(&file, &theirs).as_ref(), Ok(&content));
            assert_eq!(read(&file, &stranger).unwrap_err(), "no identity matches");
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_found() {
        let (encryption, identities) = pair();
        let content = vec![7; 2 * (BLOCK - 16) + 100];
        let file = encrypted(&encryption, &content);
        let body = file.len() - 2 * BLOCK - 116;
        let further = [body + 1, body + BLOCK, body + 2 * BLOCK, file.len() - 1];
        for cut in (0..=body).chain(further) {
            let why = read(&file[..cut], &identities).unwrap_err();
            assert!(why.contains("cut off") || cut < 19 && why.contains("not a file that age"), "{cut}: {why}");
        }
        for at in (0..body).chain([body, body + BLOCK + 9, file.len() - 1]) {
            let mut changed = file.clone();
            changed[at] ^= 1;
            let read = read(&changed, &identities);
            assert!(read.is_err(), "byte {at}");
        }
        assert!(read(&[&file[..], b"more"].concat(), &identities).is_err());
    }

    #[test]
    fn a_hostile_header_costs_nothing() {
        let (encryption, identities) = pair();
        let file = encrypted(&encryption, b"x");
        let rest = &file[MAGIC.len() + 3..];
        let mac = "A".repeat(43);
        let stanzas =
            "-> X25519 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
        let table = [
            (format!("-> scrypt AAAAAAAAAAAAAAAAAAAAAA 63\n{mac}\n--- {mac}\n"), "protected by a passphrase"),
            (format!("-> piv-p256 a b\n\n--- {mac}\n"), "no identity matches"),
            ("-> X25519 a\n".repeat(1 << 20), "too long"),
            ("x".repeat(1 << 20), "too long"),
            (stanzas.repeat(300) + &format!("--- {mac}\n"), "its header was changed"),
            (format!("-> X25519 a\n\n--- {mac}\n"), "its header was changed"),
        ];
        for (header, expected) in table {
            let hostile = [b"age-encryption.org/v1\n", header.as_bytes(), &[0; 16], rest].concat();
            let why = read(&hostile, &identities).unwrap_err();
            assert!(why.contains(expected), "{expected}: {why}");
        }
        assert!(read(b"age-encryption.org/v9\n--- x\n", &identities).unwrap_err().contains("version"));
    }
}
