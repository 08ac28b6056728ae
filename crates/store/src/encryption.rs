//! Encryption of reports to age recipients while they are written, and decryption with a person's identities.
//!
//! The format is that of age (<https://age-encryption.org/v1>), so that the standard program reads what diagctl wrote. A node has
//! recipients only, which are public. All cryptography is that of the `age` crate.

mod decrypt;
mod identity;
mod recipient;
#[cfg(test)]
pub(crate) mod testing;

use serde::{Deserialize, Serialize};

pub use decrypt::{Undecryptable, decrypt, is_encrypted};
pub use identity::{BadIdentities, Identities, MAX_IDENTITIES};
pub(crate) use recipient::Encryptor;
pub use recipient::{BadRecipient, MAX_RECIPIENTS, check_recipient};

use crate::report_name::ReportName;

/// The name of the format in records.
pub const AGE: &str = "age";

/// The suffix of an encrypted file.
pub const SUFFIX: &str = ".age";

/// The reports that are encrypted, and the people who can read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// The age recipients. The identity of any of them reads the reports.
    pub recipients: Vec<String>,
    /// The names of the reports that stay readable.
    pub except: Vec<String>,
    /// The reason why the recipients cannot be used. Reports that would be encrypted are not stored then.
    pub broken: Option<String>,
}

impl Encryption {
    /// Returns true if a report is to be encrypted.
    pub fn covers(&self, report: &ReportName) -> bool {
        !self.except.iter().any(|name| *report == **name)
    }

    /// Creates the setting that stores nothing, because nobody knows to whom it should be encrypted.
    pub fn broken(why: impl Into<String>) -> Self {
        Self { broken: Some(why.into()), ..Self::default() }
    }
}
