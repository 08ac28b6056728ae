//! Limits on the answers of a remote. object_store collects every answer but the content of objects in memory, whatever its length.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use object_store::HeaderValue;
use object_store::client::{HttpError, HttpErrorKind, HttpResponse, HttpResponseBody};

use crate::reason::{self, TooLong};

/// The most of a page of a list, or of an answer to the deletion of many objects. Azure lists 5,000 objects in some 5 MB.
const LONGEST_LIST: usize = 8 << 20;

/// The most of any other answer, and the part of a refusal that is read.
const LONGEST: usize = 64 << 10;

/// The most of all answers that are being received.
const MOST_AT_ONCE: usize = 16 << 20;

/// The longest ETag. Each part of an upload has one, and they are kept until the upload is complete.
const LONGEST_TAG: usize = 1024;

/// The bytes of answers that are in memory.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The content of an object, which is not collected. The credentials of a machine are asked for in the same way.
    Content,
    /// A page of a list.
    List,
    /// The deletion of many objects.
    Deletion,
    /// Anything else.
    Other,
}

impl Asked {
    /// Tells from the method and the query of a request.
    pub fn of(method: &str, query: &str) -> Self {
        let has = |part: &str| query.split('&').any(|it| it.split('=').next() == Some(part));
        match method {
            "GET" if has("list-type") || query.contains("comp=list") => Self::List,
            "GET" => Self::Content,
            "POST" if has("delete") || query.contains("comp=batch") => Self::Deletion,
            _ => Self::Other,
        }
    }
}

/// Limits the length of an answer. Reading more of a success fails; of a refusal, only the beginning is read.
pub fn limit(response: HttpResponse, asked: Asked, server: &str) -> Result<HttpResponse, HttpError> {
    let tag = response.headers().get("etag").map_or(0, HeaderValue::len);
    if tag > LONGEST_TAG {
        let too_long = TooLong { server: server.to_owned(), what: "an ETag", most: LONGEST_TAG };
        return Err(HttpError::new(HttpErrorKind::Decode, too_long));
    }
    if response.status().is_success() && asked == Asked::Content && !reason::is_metadata(server) {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let (what, most) = match asked {
        Asked::List => ("a list", LONGEST_LIST),
        Asked::Deletion => ("an answer", LONGEST_LIST),
        Asked::Content | Asked::Other => ("an answer", LONGEST),
    };
    let too_long = TooLong { server: server.to_owned(), what, most };
    let is_refusal = !parts.status.is_success();
    let collected = async move {
        let body = if is_refusal { beginning(body).await } else { whole(body, too_long).await };
        body.map(Frame::data)
    };
    // Not read unless somebody wants it, and without the length that the server tells, for which memory would be taken.
    let body = StreamBody::new(stream::once(collected));
    Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
}

async fn whole(mut body: HttpResponseBody, too_long: TooLong) -> Result<Bytes, HttpError> {
    let (mut data, mut held) = (Vec::new(), Held(0));
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame?.into_data() else { continue };
        if data.len() + chunk.len() > too_long.most {
            return Err(HttpError::new(HttpErrorKind::Decode, too_long));
        }
        if !held.grow(chunk.len()) {
            let too_long = TooLong { what: "answers at once", most: MOST_AT_ONCE, ..too_long };
            return Err(HttpError::new(HttpErrorKind::Decode, too_long));
        }
        data.extend_from_slice(&chunk);
    }
    Ok(data.into())
}

// Its status says most. object_store wants UTF-8.
async fn beginning(mut body: HttpResponseBody) -> Result<Bytes, HttpError> {
    let mut data = Vec::new();
    while data.len() < LONGEST
        && let Some(frame) = body.frame().await
    {
        let Ok(chunk) = frame?.into_data() else { continue };
        data.extend_from_slice(&chunk[..chunk.len().min(LONGEST - data.len())]);
    }
    Ok(String::from_utf8_lossy(&data).into_owned().into())
}

/// A share of the memory for answers.
struct Held(usize);

impl Held {
    fn grow(&mut self, bytes: usize) -> bool {
        self.0 += bytes;
        HELD.fetch_add(bytes, Ordering::Relaxed) + bytes <= MOST_AT_ONCE
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // An answer whose length nobody tells. The header is the ETag.
    fn answer(status: u16, bytes: usize, tag: &str) -> HttpResponse {
        let chunks = (0..bytes.div_ceil(4000)).map(move |at| "ü".repeat(4000.min(bytes - at * 4000) / 2));
        let frames = chunks.map(|chunk| Ok::<_, HttpError>(Frame::data(Bytes::from(chunk))));
        let mut response = HttpResponse::new(HttpResponseBody::new(StreamBody::new(stream::iter(frames))));
        *response.status_mut() = status.try_into().unwrap();
        response.headers_mut().insert("etag", tag.parse().unwrap());
        response
    }

    async fn read(response: HttpResponse, asked: Asked, server: &str) -> Result<usize, String> {
        let why = |error: HttpError| error.to_string();
        Ok(limit(response, asked, server).map_err(why)?.into_body().bytes().await.map_err(why)?.len())
    }

    #[tokio::test]
    async fn only_the_content_of_an_object_may_be_long() {
        let error = |text: &str| Err(format!("HTTP error: {text}"));
        let table = [
            (200, 20 << 20, Asked::Content, "s3:9000", Ok(20 << 20)),
            (200, 8 << 20, Asked::List, "s3:9000", Ok(8 << 20)),
            (200, 9 << 20, Asked::List, "s3:9000", error("s3:9000 sent a list of more than 8.00 MiB")),
            (200, 64 << 10, Asked::Other, "s3:9000", Ok(64 << 10)),
            (200, 65 << 10, Asked::Other, "s3:9000", error("s3:9000 sent an answer of more than 64.0 KiB")),
            (
                200,
                65 << 10,
                Asked::Content,
                "169.254.169.254",
                error("169.254.169.254 sent an answer of more than 64.0 KiB"),
            ),
            (403, 9 << 20, Asked::Content, "s3:9000", Ok(64 << 10)),
            (503, 9 << 20, Asked::List, "s3:9000", Ok(64 << 10)),
        ];
        for (status, bytes, asked, server, expected) in table {
            assert_eq!(read(answer(status, bytes, ""), asked, server).await, expected, "{status} {asked:?}");
        }
        assert_eq!(HELD.load(Ordering::Relaxed), 0);
        let long = answer(200, 0, &"x".repeat(2000));
        assert_eq!(read(long, Asked::Other, "s3:9000").await, error("s3:9000 sent an ETag of more than 1.00 KiB"));
    }

    #[tokio::test]
    async fn a_refusal_is_text_even_if_it_is_cut_within_a_letter() {
        let body = HttpResponseBody::from([b"x".repeat(LONGEST - 1), "üü".into()].concat());
        let mut response = HttpResponse::new(body);
        *response.status_mut() = 403.try_into().unwrap();
        let read = limit(response, Asked::Other, "").unwrap().into_body().bytes().await.unwrap();
        assert!(std::str::from_utf8(&read).unwrap().starts_with("xxx"));
    }

    #[test]
    fn lists_and_deletions_of_many_objects_have_long_answers() {
        let table = [
            ("GET", "", Asked::Content),
            ("GET", "list-type=2&prefix=a", Asked::List),
            ("GET", "restype=container&comp=list&prefix=a", Asked::List),
            ("POST", "delete", Asked::Deletion),
            ("POST", "restype=container&comp=batch", Asked::Deletion),
            ("POST", "uploads", Asked::Other),
            ("POST", "uploadId=1", Asked::Other),
            ("PUT", "", Asked::Other),
        ];
        for (method, query, expected) in table {
            assert_eq!(Asked::of(method, query), expected, "{method} {query}");
        }
    }
}
