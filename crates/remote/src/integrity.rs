//! Checksums of what is sent. object_store takes no notice of them at Google Cloud Storage and Azure, and of none in an answer.
//!
//! Google compares the CRC32C in a request with what it received, and refuses the request if they differ. Azure tells the CRC64 or the
//! MD5 of what it received in its answer, and a request whose answer tells another one, or none, has failed. For S3, object_store
//! itself sends a SHA-256, which the server compares; most tell in the answer the one that they computed.

use std::sync::Mutex;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use http_body_util::BodyExt;
use md5::{Digest, Md5};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use crate::bounded::{self, Asked};
use crate::reason::{Unanswered, Unconfirmed, WebPage};

/// The header of S3 with the checksum of a body, in base64.
const SHA256: &str = "x-amz-checksum-sha256";

/// The headers in which S3 and Azure say that what was written is encrypted.
const ENCRYPTION: [&str; 2] = ["x-amz-server-side-encryption", "x-ms-request-server-encrypted"];

/// The encryption that the last answer to a write told, if it told one.
static SAID: Mutex<Option<String>> = Mutex::new(None);

/// Returns what the last answer to a write said about encryption.
pub fn said_encryption() -> Option<String> {
    SAID.lock().ok().and_then(|said| said.clone())
}

fn note_encryption(response: &HttpResponse) {
    let said = ENCRYPTION.iter().find_map(|name| response.headers().get(*name)?.to_str().ok());
    if let (Some(said), Ok(mut last)) = (said, SAID.lock()) {
        *last = Some(said.chars().take(64).collect());
    }
}

/// How a cloud confirms what it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By comparing `x-amz-checksum-sha256` of the request. If the answer has it, it must be the same.
    Amazon,
    /// By comparing `x-goog-hash` of the request.
    Google,
    /// By `x-ms-content-crc64` or `Content-MD5` of its answer.
    Azure,
}

/// Makes clients that check each upload.
#[derive(Debug)]
pub struct Checked(pub Proof);

impl HttpConnector for Checked {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Client { inner, proof: self.0 }))
    }
}

#[derive(Debug)]
struct Client {
    inner: HttpClient,
    proof: Proof,
}

impl Client {
    // Its errors name the server, which may be one that gives credentials.
    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let server = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let asked = Asked::of(request.method().as_str(), request.uri().query().unwrap_or_default());
        let response = match self.inner.execute(request).await {
            Ok(response) => response,
            Err(source) => return Err(HttpError::new(source.kind(), Unanswered { server, source })),
        };
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        // The content of an object may be a page.
        if asked == Asked::List
            && response.status().is_success()
            && content_type.is_some_and(|kind| kind.starts_with("text/html"))
        {
            return Err(HttpError::new(HttpErrorKind::Request, WebPage(server)));
        }
        bounded::limit(response, asked, &server)
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.method() != "PUT" {
            return self.execute(request).await;
        }
        if self.proof == Proof::Amazon {
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            let sent = request.headers().get(SHA256).map(|value| text(value.as_bytes()));
            let response = self.execute(request).await?;
            note_encryption(&response);
            let told = response.headers().get(SHA256).map(|value| text(value.as_bytes()));
            return match (sent, told) {
                (Some(sent), Some(told)) if sent != told && response.status().is_success() => {
                    let why = different("SHA-256", &told, &sent);
                    Err(HttpError::new(HttpErrorKind::Request, Unconfirmed(why)))
                }
                _ => Ok(response),
            };
        }
        // The bytes are shared, not copied.
        let body = request.body().clone().collect().await?.to_bytes();
        if self.proof == Proof::Google {
            // ASCII is always a valid value.
            if let Ok(value) = format!("crc32c={}", crc32c(&body)).parse() {
                request.headers_mut().insert("x-goog-hash", value);
            }
        }
        let response = self.execute(request).await?;
        note_encryption(&response);
        let told = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        if response.status().is_success() {
            judge(self.proof, &body, told).map_err(|why| HttpError::new(HttpErrorKind::Request, Unconfirmed(why)))?;
        }
        Ok(response)
    }
}

// Compares what the answer tells with what was sent.
fn judge<'h>(proof: Proof, body: &Bytes, told: impl Fn(&'static str) -> Option<&'h str>) -> Result<(), String> {
    let google = || {
        let hashes = told("x-goog-hash")?;
        Some((hashes.split(',').find_map(|hash| hash.trim().strip_prefix("crc32c="))?, "CRC32C", crc32c(body)))
    };
    let azure = || {
        let crc64 = told("x-ms-content-crc64").map(|told| (told, "CRC64", crc64(body)));
        crc64.or_else(|| told("content-md5").map(|told| (told, "MD5", md5(body))))
    };
    match if proof == Proof::Google { google() } else { azure() } {
        Some((told, _, sent)) if told == sent => Ok(()),
        Some((told, kind, sent)) => Err(different(kind, told, &sent)),
        // Google has compared it.
        None if proof == Proof::Google => Ok(()),
        None => Err("the answer has neither x-ms-content-crc64 nor Content-MD5, so nothing confirms what the remote \
            received; is there a proxy that removes them?"
            .into()),
    }
}

fn different(kind: &str, told: &str, sent: &str) -> String {
    format!("the remote received something else than what was sent: {kind} {told} instead of {sent}")
}

// Big-endian, as Google wants it.
fn crc32c(body: &[u8]) -> String {
    let sum = u32::try_from(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, body)).unwrap_or(0);
    BASE64_STANDARD.encode(sum.to_be_bytes())
}

// Little-endian, as Azure tells it.
fn crc64(body: &[u8]) -> String {
    BASE64_STANDARD.encode(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, body).to_le_bytes())
}

fn md5(body: &[u8]) -> String {
    BASE64_STANDARD.encode(Md5::digest(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Bytes = Bytes::from_static(b"123456789");

    #[test]
    fn the_checksums_are_those_that_the_clouds_compute() {
        assert_eq!(crc32c(&SENT), "4waSgw==");
        assert_eq!(md5(&SENT), "JfnnlDI7RTiF9RgfG2JNCw==");
        assert_eq!(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &SENT), 0xae8b_1486_0a79_9888);
    }

    #[test]
    fn an_answer_with_another_checksum_or_none_is_a_failure() {
        let crc64 = crc64(&SENT);
        let answer = |proof, name: &'static str, value: &str| {
            judge(proof, &SENT, |asked| Some(value).filter(|_| asked == name)).map_err(|why| why[..24].to_owned())
        };
        let table = [
            (Proof::Azure, "x-ms-content-crc64", crc64.as_str(), true),
            (Proof::Azure, "content-md5", "JfnnlDI7RTiF9RgfG2JNCw==", true),
            (Proof::Azure, "x-ms-content-crc64", "AAAAAAAAAAA=", false),
            (Proof::Azure, "content-md5", "AAAA", false),
            (Proof::Azure, "etag", "0", false),
            (Proof::Google, "x-goog-hash", "crc32c=4waSgw==,md5=x", true),
            (Proof::Google, "x-goog-hash", "crc32c=AAAAAA==", false),
            (Proof::Google, "etag", "0", true),
        ];
        for (proof, name, value, expected) in table {
            assert_eq!(answer(proof, name, value).is_ok(), expected, "{name}: {value}");
        }
    }
}
