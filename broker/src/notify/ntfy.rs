//! ntfy: a POST to a topic's address, the sentence as its body.

use super::{Channel, Pen, Row, Unusable, egress::Post};
use http::{HeaderMap, HeaderValue, header};
use proto::notify::ChannelKind;

/// The table's row.
pub(super) const ROW: Row = Row {
    kind: ChannelKind::Ntfy,
    judge,
    post,
};

/// Longest access token, in bytes.
const TOKEN_MAX: usize = 200;

fn judge(channel: &Channel) -> Result<(), Unusable> {
    let url = channel.address()?;
    let topic = url.path().trim_start_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let named = topic.rsplit('/').next().is_some_and(|t| !t.is_empty());
    let bare = url.query().is_none() && topic.split('/').all(|t| t.bytes().all(plain));
    if !(named && bare) {
        return Err(Unusable::new(
            "an ntfy address is https://SERVER/TOPIC, with letters, digits, - and _ in the topic",
        ));
    }
    bearer(channel).map(drop)
}

fn bearer(channel: &Channel) -> Result<Option<HeaderValue>, Unusable> {
    let Some(token) = &channel.secret else {
        return Ok(None);
    };
    let bad = || Unusable::new("an access token is short and has no blanks");
    let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    if !plain || token.len() > TOKEN_MAX {
        return Err(bad());
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| bad())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn post(channel: &Channel, pen: &Pen<'_>) -> Result<Post, Unusable> {
    let about = pen.note.about;
    let mut headers = HeaderMap::new();
    headers.insert("title", HeaderValue::from_static("Countersign"));
    let priority = if about.is_urgent() { "high" } else { "default" };
    headers.insert("priority", HeaderValue::from_static(priority));
    let page = HeaderValue::from_str(&pen.note.page)
        .map_err(|_| Unusable::new("the broker's own address does not fit a header"))?;
    headers.insert("click", page);
    if let Some(bearer) = bearer(channel)? {
        headers.insert(header::AUTHORIZATION, bearer);
    }
    Ok(Post {
        url: channel.address()?,
        headers,
        body: about.text().as_bytes().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{notify::AddChannel, time::UnixTime};

    fn take(url: &str, token: Option<&str>) -> Result<(), Unusable> {
        let given = AddChannel::Ntfy {
            url: url.to_owned(),
            token: token.map(str::to_owned),
            name: "phone".to_owned(),
        };
        Channel::take(&given, &[0; 32], UnixTime(1)).map(drop)
    }

    #[test]
    fn a_topic_and_a_token_that_fit_a_header() {
        assert_eq!(take("https://ntfy.example/releases", None), Ok(()));
        assert_eq!(
            take("https://ntfy.example/in/releases", Some("tk_1")),
            Ok(())
        );
        for (url, token) in [
            ("https://ntfy.example/", None),
            ("https://ntfy.example/releases/", None),
            ("https://ntfy.example/a?up=1", None),
            ("https://ntfy.example/a%0d%0ab", None),
            ("https://ntfy.example/releases", Some("a\r\nx: y")),
            ("https://ntfy.example/releases", Some("a b")),
            ("https://ntfy.example/releases", Some("")),
        ] {
            assert!(take(url, token).is_err(), "{url} {token:?}");
        }
    }
}
