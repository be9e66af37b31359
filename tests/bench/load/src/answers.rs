//! What the upstream says: OpenAI's chat completions, whole and as events.

/// Words of a streamed answer, an event each: with the one that tells the end and the one of the usage that makes 200.
const WORDS: usize = 198;
/// Reported tokens; their sum is what a request is to be charged.
const USAGE: &str = r#"{"prompt_tokens":412,"completion_tokens":96,"total_tokens":508,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}}"#;
const ID: &str = "chatcmpl-BqZ1x2Yk3mLr8vTn4wPc5sDf6gHj7";
const FINGERPRINT: &str = "fp_07871e2ad8";

/// Each answer, ready to be sent.
pub struct Answers {
    /// Head and body.
    pub json: Vec<u8>,
    /// Head, every event a chunk, the end.
    pub burst: Vec<u8>,
    /// The same in parts: what leaves at a time.
    pub paced: Vec<Vec<u8>>,
}

impl Answers {
    pub fn new() -> Self {
        let body = completion();
        let json = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_1\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        let mut paced: Vec<Vec<u8>> = events().iter().map(|event| chunk(event)).collect();
        if let Some(first) = paced.first_mut() {
            first.splice(0..0, head.bytes());
        }
        if let Some(last) = paced.last_mut() {
            last.extend(b"0\r\n\r\n");
        }
        Self {
            json: json.into_bytes(),
            burst: paced.concat(),
            paced,
        }
    }
}

fn completion() -> String {
    format!(
        r#"{{"id":"{ID}","object":"chat.completion","created":1764000000,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"A budget is a promise that somebody made, and a bursar keeps it.","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{USAGE},"service_tier":"default","system_fingerprint":"{FINGERPRINT}"}}"#
    )
}

fn events() -> Vec<String> {
    let event = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"{ID}\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"gpt-4o-mini-2024-07-18\",\
             \"service_tier\":\"default\",\"system_fingerprint\":\"{FINGERPRINT}\",\"choices\":[{choices}],\"usage\":{usage}}}\n\n"
        )
    };
    let words = [
        "A",
        " budget",
        " is",
        " a",
        " promise",
        " that",
        " somebody",
        " made",
        ",",
        " \\\"kept\\\"",
        "\\n",
        " by",
        " the",
        " bursar",
    ];
    let word = |number: usize| {
        let text = words[number % words.len()];
        event(
            &format!(
                r#"{{"index":0,"delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":null}}"#
            ),
            "null",
        )
    };
    let mut events: Vec<String> = (0..WORDS).map(word).collect();
    events.push(event(
        r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}"#,
        "null",
    ));
    events.push(event("", USAGE) + "data: [DONE]\n\n");
    events
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
