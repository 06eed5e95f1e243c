//! `arctl messages`: what a channel has kept of requests and answers.

use arapi::client::path_part;
use arapi::messages::{Direction, Message, MessagePage};

use crate::cli::MessageFilter;
use crate::client::Api;
use crate::failure::Failure;
use crate::out::{self, Table, moment};

/// Shows a page of them, newest first.
pub(crate) async fn show(
    api: &Api,
    channel: &str,
    filter: &MessageFilter,
    json: bool,
) -> Result<(), Failure> {
    let page: MessagePage = api.get(&path(channel, filter)).await?;
    if json {
        return out::json(&page);
    }
    if filter.full {
        if page.messages.is_empty() {
            return out::line(NOTHING);
        }
        for message in &page.messages {
            out::line(&full(message))?;
        }
        return Ok(());
    }
    let titles =
        ["TIME", "WAY", "CID", "FROM", "CALLER", "METHOD", "PATH", "STATUS", "MS", "BYTES"];
    let mut table = Table::new(&titles);
    for message in page.messages {
        table.row([
            moment(message.time_ms),
            way(&message).to_owned(),
            message.cid,
            message.remote,
            message.caller.unwrap_or_default(),
            message.method,
            message.path,
            message.status.map(|status| status.to_string()).unwrap_or_default(),
            message.elapsed_ms.map(|took| format!("{took:.1}")).unwrap_or_default(),
            message.bytes.to_string(),
        ]);
    }
    table.print(NOTHING)
}

const NOTHING: &str = "the channel has kept nothing that fits";

fn path(channel: &str, filter: &MessageFilter) -> String {
    let way = match (filter.received, filter.sent) {
        (true, _) => "&direction=received",
        (_, true) => "&direction=sent",
        _ => "",
    };
    let cid = filter.cid.as_ref().map(|cid| format!("&cid={}", path_part(cid))).unwrap_or_default();
    format!("/v1/channels/{}/messages?most={}{way}{cid}", path_part(channel), filter.most)
}

fn way(message: &Message) -> &'static str {
    match message.direction {
        Direction::Received => "received",
        Direction::Sent => "sent",
    }
}

fn full(message: &Message) -> String {
    let mut text = format!(
        "{} {} {} {} {}",
        moment(message.time_ms),
        way(message),
        message.cid,
        message.method,
        message.path
    );
    if let Some(status) = message.status {
        text.push_str(&format!(" {status}"));
    }
    text.push('\n');
    for (name, value) in &message.headers {
        text.push_str(&format!("{}: {}\n", name.escape_debug(), value.escape_debug()));
    }
    text.push('\n');
    if let Some(body) = &message.body {
        // What a stranger sent is not to move the cursor.
        let shown = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
        text.extend(body.chars().filter(shown));
        text.push('\n');
    }
    if let Some(body) = &message.body_base64 {
        text.push_str(&format!("(base64) {body}\n"));
    }
    if message.is_truncated {
        text.push_str(&format!("(cut: {} bytes in all)\n", message.bytes));
    }
    if let Some(note) = &message.note {
        text.push_str(&format!("({} bytes, not kept: {note})\n", message.bytes));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_written_for_people_and_moves_no_cursor() {
        let message: Message = serde_json::from_value(json!({
            "seq": 1, "time_ms": 1_795_219_669_001u64, "channel": "orders", "direction": "sent",
            "cid": "abcdefgh", "method": "POST", "path": "/orders", "remote": "192.0.2.7", "status": 201,
            "elapsed_ms": 1.5, "headers": [["content-type", "text/plain"]], "bytes": 900,
            "body": "a\u{1b}[2Jb\nc", "is_truncated": true,
        }))
        .unwrap();
        assert_eq!(
            full(&message),
            "2026-11-21 00:07:49 sent abcdefgh POST /orders 201\ncontent-type: text/plain\n\n\
             a[2Jb\nc\n(cut: 900 bytes in all)\n"
        );
    }

    #[test]
    fn a_filter_becomes_a_query() {
        let mut filter =
            MessageFilter { received: false, sent: true, cid: None, most: 5, full: false };
        assert_eq!(path("a b", &filter), "/v1/channels/a%20b/messages?most=5&direction=sent");
        filter.sent = false;
        filter.cid = Some("x".to_owned());
        assert_eq!(path("a", &filter), "/v1/channels/a/messages?most=5&cid=x");
    }
}
