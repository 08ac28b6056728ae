//! Credentials from the operator's command. For S3 it prints what `credential_process` of the AWS tools prints; for Google and Azure a
//! token, in the form of OAuth or of `az account get-access-token`.

use std::fmt::Debug;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use diagctl_observe::clock;
use object_store::aws::AwsCredential;
use object_store::azure::AzureCredential;
use object_store::gcp::GcpCredential;
use object_store::{CredentialProvider, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::reason::NoneFromCommand;

/// The time that the command may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A credential that ends within this time is replaced, milliseconds.
const SOON_MS: i64 = 300_000;

/// A token that does not say when it ends is taken for so long, milliseconds.
const UNKNOWN_MS: i64 = 600_000;

/// Runs the command again when its credentials are about to expire. `P` is what it prints, for one kind of remote.
#[derive(Debug)]
pub struct FromCommand<P: Printed> {
    command: Vec<String>,
    last: Mutex<Option<(Arc<P::Credential>, Expiry)>>,
}

/// Credentials for S3.
pub type CommandCredentials = FromCommand<PrintedKeys>;
/// Tokens for Google Cloud Storage.
pub type GoogleTokens = FromCommand<PrintedToken<GcpCredential>>;
/// Tokens for Azure.
pub type AzureTokens = FromCommand<PrintedToken<AzureCredential>>;

/// The end of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// There is none.
    Never,
    /// UTC in RFC 3339.
    At(String),
}

/// The output of a command.
pub trait Printed: DeserializeOwned + Debug + Send + 'static {
    /// The credential of object_store.
    type Credential: Debug + Send + Sync + 'static;
    /// The kind of remote, for errors.
    const STORE: &'static str;
    /// The expected form, for errors.
    const EXPECTED: &'static str;
    /// Returns the credential and its end.
    fn credential(self, now_ms: i64) -> (Self::Credential, Expiry);
}

/// The keys of S3.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PrintedKeys {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: Option<String>,
    #[serde(default)]
    expiration: Option<String>,
}

/// A token of OAuth for one kind of remote.
#[derive(Deserialize)]
pub struct PrintedToken<C> {
    #[serde(alias = "accessToken")]
    access_token: String,
    /// Seconds from now.
    #[serde(default)]
    expires_in: Option<i64>,
    /// Seconds since 1970.
    #[serde(default)]
    expires_on: Option<i64>,
    #[serde(skip)]
    of: std::marker::PhantomData<fn() -> C>,
}

// Neither shows a secret.
impl Debug for PrintedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrintedKeys")
    }
}

impl<C> Debug for PrintedToken<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrintedToken")
    }
}

impl Printed for PrintedKeys {
    type Credential = AwsCredential;
    const STORE: &'static str = "S3";
    const EXPECTED: &'static str = "{\"AccessKeyId\": …, \"SecretAccessKey\": …}";

    fn credential(self, _: i64) -> (AwsCredential, Expiry) {
        let credential =
            AwsCredential { key_id: self.access_key_id, secret_key: self.secret_access_key, token: self.session_token };
        (credential, self.expiration.map_or(Expiry::Never, Expiry::At))
    }
}

const TOKEN: &str = "{\"access_token\": …, \"expires_in\": SECONDS}";

impl<C> PrintedToken<C> {
    fn end(&self, now_ms: i64) -> Expiry {
        let expires_on = self.expires_on.map(|seconds| seconds.saturating_mul(1000));
        let expires_in = self.expires_in.map(|seconds| now_ms.saturating_add(seconds.saturating_mul(1000)));
        Expiry::At(clock::utc(expires_on.or(expires_in).unwrap_or(now_ms + UNKNOWN_MS)))
    }
}

impl Printed for PrintedToken<GcpCredential> {
    type Credential = GcpCredential;
    const STORE: &'static str = "GCS";
    const EXPECTED: &'static str = TOKEN;

    fn credential(self, now_ms: i64) -> (GcpCredential, Expiry) {
        let end = self.end(now_ms);
        (GcpCredential { bearer: self.access_token }, end)
    }
}

impl Printed for PrintedToken<AzureCredential> {
    type Credential = AzureCredential;
    const STORE: &'static str = "MicrosoftAzure";
    const EXPECTED: &'static str = TOKEN;

    fn credential(self, now_ms: i64) -> (AzureCredential, Expiry) {
        let end = self.end(now_ms);
        (AzureCredential::BearerToken(self.access_token), end)
    }
}

impl<P: Printed> FromCommand<P> {
    /// Creates the provider for a command and its arguments.
    pub fn new(command: &[String]) -> Self {
        Self { command: command.to_vec(), last: Mutex::new(None) }
    }

    fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    fn remembered(&self, now_ms: i64) -> Option<Arc<P::Credential>> {
        let last = self.last.lock().ok()?;
        let (credential, expiry) = last.as_ref()?;
        let lasts = match expiry {
            Expiry::Never => true,
            // Both are UTC in RFC 3339, which sorts like time.
            Expiry::At(at) => at.as_str() > clock::utc(now_ms + SOON_MS).as_str(),
        };
        lasts.then(|| Arc::clone(credential))
    }

    async fn run(&self) -> std::result::Result<P, String> {
        let (program, arguments) = self.command.split_first().ok_or("it is empty")?;
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        let output = tokio::time::timeout(TIMEOUT, command.output());
        let output = output.await.map_err(|_| "it takes longer than 30s")?.map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(output.status.to_string());
        }
        // The error of serde could quote a secret.
        serde_json::from_slice(&output.stdout).map_err(|_| format!("it does not print {}", P::EXPECTED))
    }
}

#[async_trait]
impl<P: Printed> CredentialProvider for FromCommand<P> {
    type Credential = P::Credential;

    async fn get_credential(&self) -> Result<Arc<P::Credential>> {
        let now_ms = clock::Reading::take(String::new()).wall_ms;
        if let Some(credential) = self.remembered(now_ms) {
            return Ok(credential);
        }
        let printed = self.run().await.map_err(|why| object_store::Error::Generic {
            store: P::STORE,
            source: Box::new(NoneFromCommand(format!("{}: {why}", self.program()))),
        })?;
        let (credential, expiry) = printed.credential(now_ms);
        let credential = Arc::new(credential);
        if let Ok(mut last) = self.last.lock() {
            *last = Some((Arc::clone(&credential), expiry));
        }
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(printed: &str) -> Expiry {
        let token: PrintedToken<GcpCredential> = serde_json::from_str(printed).unwrap();
        let (credential, end) = token.credential(1_000_000);
        assert_eq!(credential.bearer, "t");
        end
    }

    #[tokio::test]
    async fn a_failure_names_the_program_as_it_is_configured() {
        let tokens = GoogleTokens::new(&["/bin/false".to_owned()]);
        let error = tokens.get_credential().await.unwrap_err().to_string();
        assert!(error.contains("remote.credential_command /bin/false: exit status: 1"), "{error}");
    }

    #[test]
    fn a_token_ends_when_it_says_and_soon_if_it_does_not() {
        let at = |ms| Expiry::At(clock::utc(ms));
        assert_eq!(end("{\"access_token\":\"t\",\"expires_in\":100,\"token_type\":\"Bearer\"}"), at(1_100_000));
        let az = "{\"accessToken\":\"t\",\"expiresOn\":\"1970-01-01 01:00:00\",\"expires_on\":3600,\"tenant\":\"x\"}";
        assert_eq!(end(az), at(3_600_000));
        assert_eq!(end("{\"access_token\":\"t\"}"), at(1_600_000));
    }
}
