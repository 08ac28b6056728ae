//! Credentials from the operator's command, which prints what `credential_process` of the AWS tools prints.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use diagctl_observe::clock;
use object_store::aws::AwsCredential;
use object_store::{CredentialProvider, Result};
use serde::Deserialize;

/// The time that the command may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the command again when its credentials are about to expire.
#[derive(Debug)]
pub struct CommandCredentials {
    command: Vec<String>,
    last: Mutex<Option<(Arc<AwsCredential>, Option<String>)>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: Option<String>,
    #[serde(default)]
    expiration: Option<String>,
}

impl CommandCredentials {
    /// Creates the provider for a command and its arguments.
    pub fn new(command: &[String]) -> Self {
        Self { command: command.to_vec(), last: Mutex::new(None) }
    }

    fn remembered(&self) -> Option<Arc<AwsCredential>> {
        let last = self.last.lock().ok()?;
        let (credential, expires) = last.as_ref()?;
        // Both are UTC in RFC 3339, which sorts like time.
        let soon = clock::utc(clock::Reading::take(String::new()).wall_ms + 300_000);
        let lasts = expires.as_ref().is_none_or(|at| at.as_str() > soon.as_str());
        lasts.then(|| Arc::clone(credential))
    }

    async fn run(&self) -> std::result::Result<Printed, String> {
        let (program, arguments) = self.command.split_first().ok_or("it is empty")?;
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        let output = tokio::time::timeout(TIMEOUT, command.output());
        let output = output.await.map_err(|_| "it takes longer than 30s")?.map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(output.status.to_string());
        }
        // The error of serde could quote a secret.
        serde_json::from_slice(&output.stdout)
            .map_err(|_| "it does not print {\"AccessKeyId\": …, \"SecretAccessKey\": …}".into())
    }
}

#[async_trait]
impl CredentialProvider for CommandCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>> {
        if let Some(credential) = self.remembered() {
            return Ok(credential);
        }
        let printed = self.run().await.map_err(|why| object_store::Error::Generic {
            store: "S3",
            source: format!("remote.credential_command {:?}: {why}", self.command.first()).into(),
        })?;
        let credential = Arc::new(AwsCredential {
            key_id: printed.access_key_id,
            secret_key: printed.secret_access_key,
            token: printed.session_token,
        });
        if let Ok(mut last) = self.last.lock() {
            *last = Some((Arc::clone(&credential), printed.expiration));
        }
        Ok(credential)
    }
}
