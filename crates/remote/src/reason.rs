//! The reason why a remote failed, in a few words, and the next step. object_store tells it in errors within errors, most of which repeat each other.

use std::error::Error as Cause;
use std::io;

use diagctl_store::units;
use object_store::Error as Failed;

/// The server gave no answer. `integrity` puts it around the error, which does not name the server.
#[derive(Debug, thiserror::Error)]
#[error("{server} gave no answer")]
pub struct Unanswered {
    /// The server, as `HOST:PORT`.
    pub server: String,
    /// The failure.
    pub source: object_store::client::HttpError,
}

/// The remote has received something else than what was sent, or does not say what.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unconfirmed(pub String);

/// Something else than a storage answered. An empty list could be read from its page.
#[derive(Debug, thiserror::Error)]
#[error("{0} answers with a web page instead of a list")]
pub struct WebPage(pub String);

/// The server sent more than is read.
#[derive(Debug, thiserror::Error)]
#[error("{server} sent {what} of more than {}", units::size(*most as u64))]
pub struct TooLong {
    /// The server.
    pub server: String,
    /// The part of its answer.
    pub what: &'static str,
    /// The most that is read, bytes.
    pub most: usize,
}

/// The operator's command gave no credentials.
#[derive(Debug, thiserror::Error)]
#[error("remote.credential_command {0}")]
pub struct NoneFromCommand(pub String);

/// The kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing listens there.
    Refused,
    /// The name of the server is unknown.
    Unresolved,
    /// The certificate, or the server does not speak TLS.
    Tls,
    /// The connection or the answer took too long.
    TimedOut,
    /// There is no way to the server, or the connection broke.
    Broken,
    /// What was sent did not arrive.
    Unconfirmed,
    /// It is no storage that answers.
    WebPage,
    /// Neither the environment nor the machine has credentials.
    NoCredentials,
    /// The operator's command gave none.
    CredentialCommand,
    /// The remote does not know the credentials, or does not believe them.
    Identity,
    /// The credentials may not do this.
    Denied,
    /// There is no such bucket or container.
    NoBucket,
    /// The bucket is in another region.
    Region,
    /// The server has a problem of its own, or too much to do.
    Overloaded,
    /// Everything else.
    Other,
}

/// The hosts that give a machine the credentials of its role.
const METADATA: [&str; 4] = ["169.254.169.254", "169.254.170.2", "169.254.170.23", "metadata.google.internal"];

/// Of object_store's error for a redirect of S3, which does not say where to.
const REDIRECT: &str = "redirect without LOCATION";

const NETWORK: &str =
    "check remote.endpoint and remote.region, and the way there: a VPN, a firewall, a proxy (HTTPS_PROXY)";

impl Kind {
    /// Returns the kind of a failure.
    pub fn of(error: &Failed) -> Self {
        let causes = causes(error);
        if causes.iter().any(|cause| cause.is::<NoneFromCommand>()) {
            return Self::CredentialCommand;
        }
        if causes.iter().any(|cause| cause.is::<Unconfirmed>()) {
            return Self::Unconfirmed;
        }
        if causes.iter().any(|cause| cause.is::<WebPage>() || cause.is::<TooLong>()) {
            return Self::WebPage;
        }
        if asked_for_a_role(&causes) {
            return Self::NoCredentials;
        }
        if server(&causes).is_some() {
            return causes.iter().rev().find_map(|cause| transport(*cause)).unwrap_or(Self::Broken);
        }
        answer(error, &causes)
    }

    /// Returns the next step.
    pub fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::Refused => "check remote.endpoint, and that the server runs, or the proxy that HTTPS_PROXY names",
            Self::Unresolved | Self::TimedOut | Self::Broken => NETWORK,
            Self::Tls => {
                "the certificate must be valid and of a CA that this machine trusts (SSL_CERT_FILE names another); for a server without \
                 TLS, remote.endpoint begins with http://"
            }
            Self::WebPage => {
                "remote.endpoint must be the address of the storage, not that of its console; a proxy or a login page may answer in its \
                 place"
            }
            Self::NoCredentials => {
                "docs/fleet.md, Setup, has the variables for each kind of remote; remote.credential_command takes those of a program, for \
                 S3 for example [\"/usr/local/bin/aws\", \"configure\", \"export-credentials\", \"--format\", \"process\"]"
            }
            Self::CredentialCommand => "run the command by hand; docs/fleet.md, Setup, says what it must print",
            Self::Identity => "check the credentials, and the clock of this machine",
            Self::Denied => "the credentials may not do this: docs/fleet.md has the policies for nodes and for people",
            Self::NoBucket => "check remote.url, remote.endpoint and remote.region, and that the bucket exists",
            Self::Region => "set remote.region to the region of the bucket",
            Self::Overloaded => "try again later",
            Self::Unconfirmed | Self::Other => return None,
        })
    }
}

/// Words a failure with an object, which may name the server.
pub fn text(error: &Failed, object: &str) -> String {
    let causes = causes(error);
    let server = server(&causes).unwrap_or_default();
    let name = host(server);
    let server = if object.contains(server) { "the server" } else { server };
    match Kind::of(error) {
        Kind::Refused => format!("{server} refuses the connection"),
        Kind::Unresolved => format!("the name {name} is unknown"),
        Kind::Tls => format!("the TLS connection to {server} failed: {}", last(&causes)),
        Kind::TimedOut => format!("{server} did not answer in time"),
        Kind::Broken => format!("the connection to {server} failed: {}", last(&causes)),
        Kind::NoCredentials => {
            "there are no credentials: the environment has none, and this machine has no role in a cloud".into()
        }
        Kind::CredentialCommand | Kind::Unconfirmed | Kind::WebPage => last(&causes),
        Kind::Region if told(error, &causes).contains(REDIRECT) => "the server redirects to another place".into(),
        _ => told(error, &causes),
    }
}

// All errors, from the outside to the inside. An io::Error skips the one that it contains.
fn causes(error: &Failed) -> Vec<&(dyn Cause + 'static)> {
    let mut causes: Vec<&(dyn Cause + 'static)> = Vec::new();
    let mut next: Option<&(dyn Cause + 'static)> = Some(error);
    while let Some(cause) = next {
        causes.push(cause);
        let contained = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = contained.map(|inner| inner as &(dyn Cause + 'static)).or_else(|| cause.source());
    }
    causes
}

fn server<'e>(causes: &[&'e (dyn Cause + 'static)]) -> Option<&'e str> {
    causes.iter().find_map(|cause| Some(cause.downcast_ref::<Unanswered>()?.server.as_str()))
}

// The outer errors have the URL, unless it is secret.
fn asked_for_a_role(causes: &[&(dyn Cause + 'static)]) -> bool {
    let is_of = |text: &str| METADATA.iter().any(|host| text.contains(&format!("://{host}/")));
    server(causes).is_some_and(is_metadata) || causes.iter().any(|cause| is_of(&cause.to_string()))
}

/// Returns true for a server that gives a machine the credentials of its role.
pub fn is_metadata(server: &str) -> bool {
    METADATA.contains(&host(server))
}

fn host(server: &str) -> &str {
    server.rsplit_once(':').map_or(server, |(host, _)| host)
}

// The innermost one knows most.
fn transport(cause: &(dyn Cause + 'static)) -> Option<Kind> {
    use io::ErrorKind;
    if cause.is::<rustls::Error>() {
        return Some(Kind::Tls);
    }
    if cause.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout) {
        return Some(Kind::TimedOut);
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return match error.kind() {
            ErrorKind::ConnectionRefused => Some(Kind::Refused),
            ErrorKind::TimedOut => Some(Kind::TimedOut),
            _ => None,
        };
    }
    // The resolver has no type for it.
    cause.to_string().starts_with("dns error").then_some(Kind::Unresolved)
}

fn last(causes: &[&(dyn Cause + 'static)]) -> String {
    one_line(&causes.last().map(ToString::to_string).unwrap_or_default())
}

// The kind of an answer. S3 and Azure send a code with it.
fn answer(error: &Failed, causes: &[&(dyn Cause + 'static)]) -> Kind {
    const IDENTITY: [&str; 9] = [
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "RequestTimeTooSkewed",
        "ExpiredToken",
        "AuthenticationRequired",
        "InvalidSecurity",
        "failed to authenticate the request",
        "InvalidAuthenticationInfo",
        "NoAuthenticationInformation",
    ];
    const REGION: [&str; 4] =
        ["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint", REDIRECT];
    let answer = told(error, causes);
    let has = |codes: &[&str]| codes.iter().any(|code| answer.contains(code));
    let status = status(causes);
    match error {
        _ if has(&IDENTITY) => Kind::Identity,
        _ if has(&["NoSuchBucket", "ContainerNotFound"]) => Kind::NoBucket,
        _ if has(&REGION) => Kind::Region,
        Failed::PermissionDenied { .. } => Kind::Denied,
        // A list that is refused is an error without a kind.
        _ if status == Some(403) => Kind::Denied,
        Failed::Unauthenticated { .. } => Kind::Identity,
        _ if status == Some(401) => Kind::Identity,
        Failed::NotFound { .. } => Kind::NoBucket,
        _ if status == Some(404) => Kind::NoBucket,
        _ if status.is_some_and(|status| status >= 500 || status == 429) => Kind::Overloaded,
        _ => Kind::Other,
    }
}

/// Returns the HTTP status of the answer, if there was one.
pub fn status_of(error: &Failed) -> Option<u16> {
    status(&causes(error))
}

// object_store's own error of a request is not public.
fn status(causes: &[&(dyn Cause + 'static)]) -> Option<u16> {
    let after = |text: &str| text.split_once("status code: ")?.1.get(..3)?.parse().ok();
    causes.iter().find_map(|cause| after(&cause.to_string()))
}

/// Returns the answer of the remote: the code and the message of its document, or else the status. Without an answer, what the errors say.
pub fn answer_of(error: &Failed) -> String {
    told(error, &causes(error))
}

fn told(error: &Failed, causes: &[&(dyn Cause + 'static)]) -> String {
    /// The most of an answer that is shown: a proxy may send a page.
    const SHOWN: usize = 200;
    // The outermost one says only whose client it is, and those of a request repeat the inner ones after its URL.
    let outer = usize::from(matches!(error, Failed::Generic { .. }));
    let mut texts: Vec<String> = causes.iter().skip(outer).map(ToString::to_string).collect();
    if let Some(at) =
        texts.iter().rposition(|text| text.starts_with("Error performing")).filter(|at| at + 1 < texts.len())
    {
        texts.drain(..=at);
    }
    let mut text = String::new();
    for inner in texts {
        if text.is_empty() {
            text = inner;
        } else if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
    }
    if let (Some(code), Some(message)) =
        (between(&text, "<Code>", "</Code>"), between(&text, "<Message>", "</Message>"))
    {
        // Azure adds lines with the request's number and time.
        return format!("{code}: {}", message.lines().next().unwrap_or(message).trim());
    }
    let answered = causes.iter().rev().map(ToString::to_string).find(|text| text.contains("status code: "));
    let text = match answered.as_deref().and_then(|text| text.split_once("status code: ")) {
        Some((_, answer)) => format!("it answers {}", answer.trim_end_matches([':', ' '])),
        None => text,
    };
    let text = one_line(&text);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use object_store::client::{HttpError, HttpErrorKind};

    use super::*;
    use crate::bucket::Bucket;
    use crate::error::Error;

    // A server on loopback that gives each request the same answer, as HOST:PORT. An empty one is a connection that breaks.
    fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        address
    }

    fn answer(status: &str, body: &str) -> &'static str {
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        Box::leak(text.into_boxed_str())
    }

    fn document(code: &str) -> String {
        format!("<Error><Code>{code}</Code><Message>By the test.\nTime:1</Message><RequestId>1</RequestId></Error>")
    }

    // Lists a bucket of that server. Returns what a person reads.
    async fn listed(endpoint: &str, credentials: &str) -> (String, String) {
        let command = ["/bin/echo", credentials];
        let remote = serde_json::json!({ "url": "s3://acme/prod", "endpoint": endpoint, "region": "x", "credential_command": command });
        let bucket = Bucket::open(&serde_json::from_value(remote).unwrap()).unwrap();
        let error = bucket.list_under("nodes").await.unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default())
    }

    #[tokio::test]
    async fn each_kind_of_failure_is_told_in_a_few_words_with_the_next_step() {
        const KEYS: &str = r#"{"AccessKeyId":"a","SecretAccessKey":"s"}"#;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let status = |status: &str, body: &str| format!("http://{}", server(answer(status, body)));
        let coded = |line: &str, code: &str| status(line, &document(code));
        let page = "<html>\n<body>".to_owned() + &"No way through. ".repeat(100);
        let table: Vec<(String, &str, &str, &str)> = vec![
            (format!("http://{closed}"), KEYS, "the server refuses the connection", "that the server runs"),
            ("http://no-such-host.invalid:81".into(), KEYS, "the name no-such-host.invalid is unknown", "a VPN"),
            (
                format!("https://{}", server(answer("200 OK", ""))),
                KEYS,
                "the TLS connection to the server failed: ",
                "begins with http://",
            ),
            (format!("http://{}", server("")), KEYS, "the connection to the server failed: ", "a VPN"),
            (coded("403 Forbidden", "AccessDenied"), KEYS, "AccessDenied: By the test.", "policies"),
            (coded("403 Forbidden", "SignatureDoesNotMatch"), KEYS, "SignatureDoesNotMatch: By the test.", "clock"),
            (coded("400 Bad Request", "ExpiredToken"), KEYS, "ExpiredToken: By the test.", "clock"),
            (status("401 Unauthorized", ""), KEYS, "it answers 401 Unauthorized", "clock"),
            (coded("404 Not Found", "NoSuchBucket"), KEYS, "NoSuchBucket: By the test.", "that the bucket exists"),
            (
                coded("301 Moved", "PermanentRedirect"),
                KEYS,
                "the server redirects to another place",
                "set remote.region",
            ),
            (
                coded("400 Bad Request", "AuthorizationHeaderMalformed"),
                KEYS,
                "AuthorizationHeaderMalformed: ",
                "set remote.region",
            ),
            (coded("503 Busy", "SlowDown"), KEYS, "SlowDown: By the test.", "try again later"),
            (
                status("404 Not Found", "<html>none</html>"),
                KEYS,
                "it answers 404 Not Found: <html>none</html>",
                "that the bucket exists",
            ),
            (status("200 OK", "{}"), KEYS, "Got invalid list response: ", ""),
            (
                format!(
                    "http://{}",
                    server("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html>Log in</html>")
                ),
                KEYS,
                "127.0.0.1:",
                "a login page",
            ),
            (status("200 OK", &" ".repeat(9 << 20)), KEYS, "127.0.0.1:", "the address of the storage"),
            (
                status("403 Forbidden", &format!("{}{}", document("AccessDenied"), " ".repeat(9 << 20))),
                KEYS,
                "AccessDenied: By the test.",
                "policies",
            ),
            (status("403 Forbidden", &page), KEYS, "it answers 403 Forbidden: <html> <body>No way", "policies"),
            (
                format!("http://{closed}"),
                "nothing",
                "remote.credential_command /bin/echo: it does not print",
                "by hand",
            ),
        ];
        for (endpoint, keys, why, hint) in table {
            let (message, told) = listed(&endpoint, keys).await;
            let expected = format!("cannot list nodes in s3://acme/prod at {endpoint}: {why}");
            assert!(message.starts_with(&expected) && told.contains(hint), "{why}: {message} | {told}");
            assert!(message.len() < 330 && !message.contains('\n') && !message.contains("retries"), "{why}: {message}");
        }
    }

    #[test]
    fn what_did_not_arrive_is_told_without_its_request() {
        let source = HttpError::new(HttpErrorKind::Request, Unconfirmed("the remote received something else".into()));
        let source = Failed::Generic { store: "S3", source: Box::new(source) };
        let error = Error::Remote { action: "write", object: "captures/k in s3://acme".into(), source };
        assert_eq!(error.to_string(), "cannot write captures/k in s3://acme: the remote received something else");
        assert!(error.hint().unwrap().starts_with("nothing is lost"));
    }

    #[test]
    fn a_machine_without_credentials_is_told_so_and_not_that_a_server_is_down() {
        let inner = HttpError::new(HttpErrorKind::Timeout, io::Error::from(io::ErrorKind::TimedOut));
        let silent =
            HttpError::new(HttpErrorKind::Timeout, Unanswered { server: "169.254.169.254".into(), source: inner });
        let answered = "Error performing PUT http://169.254.169.254/latest/api/token in 3ms - Server returned non-2xx status code: 403 Forbidden";
        let sources: [Box<dyn Cause + Send + Sync>; 2] = [Box::new(silent), answered.into()];
        for source in sources {
            let source = Failed::Generic { store: "S3", source };
            let error = Error::Remote { action: "write", object: "captures/k in s3://acme".into(), source };
            assert!(
                error.to_string().starts_with("cannot write captures/k in s3://acme: there are no credentials: the"),
                "{error}"
            );
            assert!(!error.is_denied());
            let hint = error.hint().unwrap();
            assert!(hint.contains("credential_command") && hint.contains("nothing is lost"), "{hint}");
        }
    }
}
