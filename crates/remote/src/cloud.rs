//! The clients of the clouds: S3 and servers that speak like it, Google Cloud Storage and Azure Blob Storage. `bucket` uses them
//! through one trait and knows no difference.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::credentials::{AzureTokens, CommandCredentials, GoogleTokens};
use crate::error::{Error, Result};
use crate::integrity::{Checked, Proof};
use crate::settings::Remote;

/// The variable of object_store, and that of Azure's own tools.
const ACCOUNT: [&str; 2] = ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"];

/// A client of a cloud.
pub trait Cloud: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Cloud for T {}

/// Creates the client for the URL of a remote. Returns it with the prefix of all keys, without slashes at its ends.
pub fn open(remote: &Remote) -> Result<(Arc<dyn Cloud>, String)> {
    let (scheme, rest) = remote.url.split_once("://").unwrap_or(("", &remote.url));
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let client: Arc<dyn Cloud> = match scheme {
        "s3" => s3(remote, name)?,
        "gs" => google(remote, name)?,
        "az" => azure(remote, name)?,
        _ => return Err(Error::Settings(format!("{}: no such scheme", remote.url))),
    };
    Ok((client, prefix.trim_matches('/').to_owned()))
}

// A proxy, a CA and the credentials of the environment, the instance or the pod.
fn s3(remote: &Remote, bucket: &str) -> Result<Arc<dyn Cloud>> {
    // The server compares the checksums in each request with what it got.
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_retry(retry())
        .with_client_options(options(remote))
        .with_http_connector(Checked(Proof::Amazon));
    if let Some(endpoint) = &remote.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &remote.region {
        builder = builder.with_region(region);
    }
    if !remote.credential_command.is_empty() {
        builder = builder.with_credentials(Arc::new(CommandCredentials::new(&remote.credential_command)));
    }
    Ok(Arc::new(builder.build().map_err(unusable)?))
}

fn google(remote: &Remote, bucket: &str) -> Result<Arc<dyn Cloud>> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_retry(retry())
        .with_client_options(options(remote))
        .with_http_connector(Checked(Proof::Google));
    if let Some(endpoint) = &remote.endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    if !remote.credential_command.is_empty() {
        builder = builder.with_credentials(Arc::new(GoogleTokens::new(&remote.credential_command)));
    }
    Ok(Arc::new(builder.build().map_err(unusable)?))
}

fn azure(remote: &Remote, container: &str) -> Result<Arc<dyn Cloud>> {
    let of_environment = || ACCOUNT.iter().find_map(|name| std::env::var(name).ok());
    let account = remote.endpoint.as_deref().and_then(account).or_else(of_environment);
    let Some(account) = account else {
        return Err(Error::NoAccount { url: remote.url.clone() });
    };
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_account(account)
        .with_container_name(container)
        .with_retry(retry())
        .with_client_options(options(remote))
        .with_http_connector(Checked(Proof::Azure));
    if let Some(endpoint) = &remote.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    if !remote.credential_command.is_empty() {
        builder = builder.with_credentials(Arc::new(AzureTokens::new(&remote.credential_command)));
    }
    Ok(Arc::new(builder.build().map_err(unusable)?))
}

// The account is the first label of the host, or, as with the emulator, the first part of the path.
fn account(endpoint: &str) -> Option<String> {
    let (_, rest) = endpoint.split_once("://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let in_path = path.split('/').next().filter(|name| !name.is_empty());
    let name = in_path.or_else(|| host.split_once(".blob.").map(|(account, _)| account))?;
    Some(name.to_owned())
}

fn unusable(error: object_store::Error) -> Error {
    Error::Settings(crate::reason::answer_of(&error))
}

fn options(remote: &Remote) -> ClientOptions {
    let plain = remote.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    // A part of 8 MiB takes a minute at 1 Mbit/s. A connection that is silent is given up.
    let options = ClientOptions::new().with_timeout(Duration::from_secs(180));
    options.with_connect_timeout(Duration::from_secs(10)).with_allow_http(plain)
}

// Within one request. The shipper itself waits longer between its attempts.
fn retry() -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: 4, retry_timeout: Duration::from_secs(60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_azure_is_in_the_endpoint() {
        let table = [
            ("https://acme.blob.core.windows.net", Some("acme")),
            ("https://acme.blob.core.windows.net/", Some("acme")),
            ("https://acme.blob.core.chinacloudapi.cn", Some("acme")),
            ("http://127.0.0.1:10000/devstoreaccount1", Some("devstoreaccount1")),
            ("https://storage.acme.example", None),
            ("acme", None),
        ];
        for (endpoint, expected) in table {
            assert_eq!(account(endpoint).as_deref(), expected, "{endpoint}");
        }
    }
}
