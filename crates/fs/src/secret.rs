//! Text without the secrets that people put where they do not belong: secret keys of age, and credentials in URLs.

use std::borrow::Cow;

/// A secret key of age begins with this, in upper or lower case.
pub const SECRET_KEY: &str = "AGE-SECRET-KEY-";

/// The words in the name of a URL's parameter whose value is a secret: `X-Amz-Signature`, `sig`, `access_token`.
const SECRET_PARAMETERS: [&str; 6] = ["sig", "token", "secret", "password", "credential", "key"];

/// The names that are secret as a whole only: Azure's functions have a `code`.
const SECRET_NAMES: [&str; 3] = ["code", "pass", "auth"];

/// What is shown in place of credentials.
const HIDDEN_CREDENTIALS: &str = "(hidden)@";

/// The schemes of URLs that have credentials in them.
const SCHEMES: [&str; 5] = ["s3", "gs", "az", "http", "https"];

/// Returns true if the text has something that looks like a secret key.
pub fn has_secret_key(text: &str) -> bool {
    text.to_ascii_uppercase().contains(SECRET_KEY)
}

/// Hides secret keys (but not the words AGE-SECRET-KEY-1 alone, which explain), and the credentials in URLs, before a text is shown or stored. Must see the whole text: a secret that was cut off
/// is not recognized.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    let is_key = |start: &[u8]| start.eq_ignore_ascii_case(SECRET_KEY.as_bytes());
    if !text.contains(':') && !text.as_bytes().windows(SECRET_KEY.len()).any(is_key) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(without_credentials(&without_keys(text)))
}

fn without_keys(text: &str) -> String {
    // Upper case changes no length in ASCII, so positions are the same.
    let upper = text.to_ascii_uppercase();
    let (mut out, mut from) = (String::new(), 0);
    while let Some(at) = upper[from..].find(SECRET_KEY).map(|at| from + at) {
        out.push_str(&text[from..at]);
        let end = upper[at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        from = end.map_or(text.len(), |length| at + length);
        let is_whole = from - at > SECRET_KEY.len() + 1;
        out.push_str(if is_whole { "(a secret key)" } else { &text[at..from] });
    }
    out + &text[from..]
}

fn without_credentials(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(':') {
        let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let (slashes, after) = after.split_at(after.len() - after.trim_start_matches('/').len());
        out.extend([before, ":", slashes]);
        rest = after;
        if is_url(scheme, slashes) {
            let (credentials, url, more) = parts(after);
            out.push_str(if credentials.is_empty() { "" } else { HIDDEN_CREDENTIALS });
            out.push_str(&without_parameters(url));
            rest = more;
        }
    }
    out + rest
}

// As a path, which some messages make of it, a URL has one slash; as a mistake it has none.
fn is_url(scheme: &str, slashes: &str) -> bool {
    let is = |known: &str| scheme.eq_ignore_ascii_case(known);
    !is("file") && (slashes.len() > 1 || SCHEMES.into_iter().any(is))
}

// Splits a text that begins behind the scheme of a URL into its credentials with the at sign, the rest of the URL, and the rest of the text.
fn parts(text: &str) -> (&str, &str, &str) {
    const LONGEST_PASSWORD: usize = 256;
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>');
    let end_of = |text: &str| text.find(ends).unwrap_or(text.len());
    let end = end_of(text);
    let mut at = credentials(&text[..end]);
    // A password may have a blank or a quote in it.
    if at == 0 && has_password(&text[..end]) {
        let password = text.lines().next().unwrap_or_default();
        at = password
            .find('@')
            .filter(|at| *at < LONGEST_PASSWORD && !password[..*at].contains("://"))
            .map_or(0, |at| at + 1);
    }
    let (credentials, rest) = text.split_at(at);
    let (url, more) = rest.split_at(if at > end { end_of(rest) } else { end - at });
    (credentials, url, more)
}

// Returns the length of the credentials at the beginning of a URL without its scheme, with the at sign. A password may have any character, so the last
// at sign counts, even one after a slash or a question mark; but not one in the query of a host with a path.
fn credentials(url: &str) -> usize {
    let base = url.split(['?', '#']).next().unwrap_or_default();
    let of_base = base.rfind('@').map_or(0, |at| at + 1);
    let has_path = base[of_base..].split_once('/').is_some_and(|(host, _)| is_host(host));
    if has_path { of_base } else { url.rfind('@').map_or(0, |at| at + 1) }
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_address = text.starts_with('[');
    is_address || is_port(port) && !host.is_empty() && host.chars().all(is_name)
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

// Returns true for `user:password`, which is no host with a port.
fn has_password(url: &str) -> bool {
    let authority = url.split('/').next().unwrap_or_default();
    !is_host(authority) && url.split_once(':').is_some_and(|(user, password)| !user.is_empty() && !password.is_empty())
}

// Hides the values of secret parameters, in the query, the fragment, and wherever else they are.
fn without_parameters(url: &str) -> String {
    let parameters = url.split_inclusive(['?', '#', '&', ';']).enumerate();
    parameters.map(|(i, part)| parameter(part, i == 0)).collect()
}

// A parameter with the separator that ends it. Its name and the equals sign may be escaped, also those of a URL that is its value.
fn parameter(part: &str, is_path: bool) -> Cow<'_, str> {
    let decoded = decoded(part);
    let mut inner = decoded.split(['?', '#', '&', ';']).skip(usize::from(is_path));
    let has_secret = |part: &str| part.split_once('=').is_some_and(|(name, _)| is_secret(&name.to_ascii_lowercase()));
    let has_credentials = || decoded != part && *without_credentials(&decoded) != decoded;
    if !inner.any(has_secret) && !has_credentials() {
        return Cow::Owned(without_credentials(part));
    }
    let (text, separator) = part.split_at(part.trim_end_matches(['?', '#', '&', ';']).len());
    let name = text.split(['=', '%']).next().unwrap_or_default();
    // A name that is escaped is hidden with its value.
    Cow::Owned(format!("{name}=(hidden){separator}"))
}

// Decodes `%74`, and `%2574`.
fn decoded(text: &str) -> String {
    const DEEPEST: usize = 4;
    let mut text = text.to_owned();
    for _ in 0..DEEPEST {
        if !text.contains('%') {
            break;
        }
        let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
        while let Some((first, after)) = rest.split_first() {
            let escaped =
                (*first == b'%').then(|| after.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
            let byte = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
            bytes.push(byte.unwrap_or(*first));
            rest = if byte.is_some() { &after[2..] } else { after };
        }
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    text
}

fn is_secret(name: &str) -> bool {
    SECRET_PARAMETERS.iter().any(|word| name.contains(word)) || SECRET_NAMES.contains(&name)
}

/// Hides everything in a text that should be one URL and may be a secret: credentials, the query, whatever its parameters are called, and the fragment.
pub fn without_query(url: &str) -> Cow<'_, str> {
    let url = url.trim();
    let (start, rest) = match url.split_once(':') {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("file") => return without_secrets(url),
        Some((scheme, rest)) if rest.starts_with('/') || is_url(scheme, "") => {
            url.split_at(url.len() - rest.trim_start_matches('/').len())
        }
        _ => ("", url),
    };
    let (credentials, rest) = rest.split_at(credentials(rest));
    let (base, rest) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let hidden = if credentials.is_empty() { "" } else { HIDDEN_CREDENTIALS };
    let base = without_secrets(base);
    let (query, fragment) = rest.split_once('#').map_or((rest, ""), |(query, _)| (query, "#(hidden)"));
    let parameter = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) => format!("{name}=(hidden)"),
        None => "(hidden)".to_owned(),
    };
    let query: Option<Vec<String>> = query.strip_prefix('?').map(|query| query.split('&').map(parameter).collect());
    let query = query.map(|query| format!("?{}", query.join("&"))).unwrap_or_default();
    Cow::Owned(format!("{start}{hidden}{base}{query}{fragment}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_a_hook_is_hidden_whatever_its_names() {
        let table = [
            ("https://h/x", "https://h/x"),
            ("https://h/x?code=a&v=1", "https://h/x?code=(hidden)&v=(hidden)"),
            ("https://h/x?s3cret", "https://h/x?(hidden)"),
            ("https://h/x?a=b?c=d", "https://h/x?a=(hidden)"),
            ("https://u:p@h/x?k=v", "https://(hidden)@h/x?k=(hidden)"),
            ("https://u:p?a@h/x", "https://(hidden)@h/x"),
            ("https://h/?", "https://h/?(hidden)"),
            ("https://h.example/x?to=ann@acme.com&token=S3KRET", "https://h.example/x?to=(hidden)&token=(hidden)"),
            ("HTTPS://h:80/x?a=S3KRET#token=S3KRET", "HTTPS://h:80/x?a=(hidden)#(hidden)"),
            ("https:u:S3KRET@h/x", "https:(hidden)@h/x"),
            ("https://u:S3 \"KRET@h/x", "https://(hidden)@h/x"),
            ("u:S3KRET@h/x", "(hidden)@h/x"),
            ("s3://b/p#S3KRET", "s3://b/p#(hidden)"),
            ("file:///mnt/a@b", "file:///mnt/a@b"),
            ("host/x", "host/x"),
        ];
        for (url, expected) in table {
            assert_eq!(without_query(url), expected);
        }
    }

    #[test]
    fn keys_and_credentials_are_hidden_and_all_else_is_kept() {
        let table = [
            ("cannot open AGE-SECRET-KEY-1QQ: no", "cannot open (a secret key): no"),
            ("\"age-secret-key-pq-1QQ\\nage-secret-key-1x\"", "\"(a secret key)\\n(a secret key)\""),
            ("it begins with AGE-SECRET-KEY-1", "it begins with AGE-SECRET-KEY-1"),
            ("s3://AKIA:se/cr@et@bucket/a is not", "s3://(hidden)@bucket/a is not"),
            ("no store at /s3:/AKIA:secret@bucket/a", "no store at /s3:/(hidden)@bucket/a"),
            ("/a:/b@c and /x:y/z@w", "/a:/b@c and /x:y/z@w"),
            ("\"https://u:p?a@h/x\" and 'gs://t@b'", "\"https://(hidden)@h/x\" and 'gs://(hidden)@b'"),
            ("https://h/b?X-Amz-Signature=abc&list-type=2", "https://h/b?X-Amz-Signature=(hidden)&list-type=2"),
            ("az://c?sv=1&sig=a%2b", "az://c?sv=1&sig=(hidden)"),
            ("https://h/api?code=a&author=b&Auth=c", "https://h/api?code=(hidden)&author=b&Auth=(hidden)"),
            ("https://h/b?prefix=a/ ann@example.org", "https://h/b?prefix=a/ ann@example.org"),
            ("file:///mnt/a@b?key=c", "file:///mnt/a@b?key=c"),
            ("https://h.example/x?to=ann@acme.com&token=S3KRET", "https://h.example/x?to=ann@acme.com&token=(hidden)"),
            ("https://h:80/x?to=ann@acme.com", "https://h:80/x?to=ann@acme.com"),
            ("https://[::1]:80/x?to=ann@acme.com", "https://[::1]:80/x?to=ann@acme.com"),
            ("https://u:p@h/x?to=a@b&token=S3KRET", "https://(hidden)@h/x?to=a@b&token=(hidden)"),
            ("https://u:p?a@h?token=S3KRET", "https://(hidden)@h?token=(hidden)"),
            ("http://h/x#access_token=S3KRET more", "http://h/x#access_token=(hidden) more"),
            ("http://h/x?%74oken=S3KRET&v=1", "http://h/x?=(hidden)&v=1"),
            ("http://h/x?%2574oken=S3KRET", "http://h/x?=(hidden)"),
            ("http://h/x?a=b;token=S3KRET", "http://h/x?a=b;token=(hidden)"),
            ("http://h/x?X-Amz-Signature%3DS3KRET", "http://h/x?X-Amz-Signature=(hidden)"),
            ("http://h/x%3Ftoken=S3KRET", "http://h/x=(hidden)"),
            ("http://h/?to=https%3A%2F%2Fu%3AS3KRET%40h", "http://h/?to=(hidden)"),
            ("http://h/?to=https://u:S3KRET@h", "http://h/?to=https://(hidden)@h"),
            ("http://h/a%20b?c=%zz%", "http://h/a%20b?c=%zz%"),
            ("s3://b/key=1/a", "s3://b/key=1/a"),
            ("at https://u:a bS3KRET@h/ now", "at https://(hidden)@h/ now"),
            ("'https://u:a\"b'c@h/x'", "'https://(hidden)@h/x'"),
            ("HTTPS:u:S3KRET@h/x", "HTTPS:(hidden)@h/x"),
            ("at https://h: ask ann@acme.com", "at https://h: ask ann@acme.com"),
            ("at https://h:80 or http://h/a:b ask ann@acme.com", "at https://h:80 or http://h/a:b ask ann@acme.com"),
            (
                "not allowed: s3:GetObject for arn:aws:s3:::b, ask ann@b",
                "not allowed: s3:GetObject for arn:aws:s3:::b, ask ann@b",
            ),
            ("ü :// @ é", "ü :// @ é"),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(without_secrets(text), expected);
        }
        assert!(matches!(without_secrets("an ordinary text"), Cow::Borrowed(_)));
        assert!(has_secret_key("x age-Secret-key-1") && !has_secret_key("age1qq"));
    }
}
