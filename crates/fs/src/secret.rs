//! Text without the secrets that people put where they do not belong: secret keys of age, and credentials in URLs.

use std::borrow::Cow;

/// A secret key of age begins with this, in upper or lower case.
pub const SECRET_KEY: &str = "AGE-SECRET-KEY-";

/// The words in the name of a URL's parameter whose value is a secret: `X-Amz-Signature`, `sig`, `access_token`.
const SECRET_PARAMETERS: [&str; 6] = ["sig", "token", "secret", "password", "credential", "key"];

/// The names that are secret as a whole only: Azure's functions have a `code`.
const SECRET_NAMES: [&str; 3] = ["code", "pass", "auth"];

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
    if !text.contains(":/") && !text.as_bytes().windows(SECRET_KEY.len()).any(is_key) {
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
    while let Some((before, after)) = rest.split_once(":/") {
        let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let slashes = after.len() - after.trim_start_matches('/').len();
        let (slashes, after) = after.split_at(slashes);
        out.extend([before, ":/", slashes]);
        // As a path, which some messages make of it, a URL has one slash.
        let is_url = scheme != "file" && (!slashes.is_empty() || SCHEMES.contains(&scheme));
        if !is_url {
            rest = after;
            continue;
        }
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>');
        let (url, more) = after.split_at(after.find(ends).unwrap_or(after.len()));
        // A password may have any character, so the last at sign counts, even one after a slash.
        let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
        match (base.rsplit_once('@'), query.and_then(|query| query.rsplit_once('@'))) {
            // The question mark is a part of the password.
            (_, Some((_, host))) => out.extend(["(hidden)@", host]),
            (Some((_, host)), None) => out.extend(["(hidden)@", host]),
            (None, None) => out.push_str(base),
        }
        if let Some(query) = query.filter(|query| !query.contains('@')) {
            let parameters: Vec<Cow<'_, str>> = query.split('&').map(parameter).collect();
            out.extend(["?", &parameters.join("&")]);
        }
        rest = more;
    }
    out + rest
}

fn parameter(parameter: &str) -> Cow<'_, str> {
    match parameter.split_once('=') {
        Some((name, _)) if is_secret(&name.to_ascii_lowercase()) => Cow::Owned(format!("{name}=(hidden)")),
        _ => Cow::Borrowed(parameter),
    }
}

fn is_secret(name: &str) -> bool {
    SECRET_PARAMETERS.iter().any(|word| name.contains(word)) || SECRET_NAMES.contains(&name)
}

/// Hides everything in the URL of a hook that may be a secret: credentials, and the query, whatever its parameters are called.
pub fn without_query(url: &str) -> Cow<'_, str> {
    let clean = without_secrets(url);
    let Some((base, query)) = clean.split_once('?') else { return clean };
    let hidden = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) => format!("{name}=(hidden)"),
        None => "(hidden)".to_owned(),
    };
    let query: Vec<String> = query.split('&').map(hidden).collect();
    Cow::Owned(format!("{base}?{}", query.join("&")))
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
