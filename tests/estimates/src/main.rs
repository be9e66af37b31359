//! Reports how far bursar's estimate of a prompt's tokens is from what OpenAI's tokenizers count: before anything was learned and after,
//! for chat requests in several languages and with code. The texts are our own, a request from each `----` to the next.
//!
//! Each request is estimated by what the *other* ones taught, settled in turn until the figure stands, so none is measured
//! by itself.

use std::io;
use std::path::Path;

use bursar::base::units::Tokens;
use bursar::estimate::Estimate;
use bursar::estimate::learn::BytesPerToken;
use tiktoken_rs::{ChatCompletionRequestMessage, num_tokens_from_messages};

const TEXTS: [(&str, &str); 10] = [
    ("English", include_str!("../texts/english.txt")),
    ("German", include_str!("../texts/german.txt")),
    ("Russian", include_str!("../texts/russian.txt")),
    ("Chinese", include_str!("../texts/chinese.txt")),
    ("Japanese", include_str!("../texts/japanese.txt")),
    ("Arabic", include_str!("../texts/arabic.txt")),
    ("Hindi", include_str!("../texts/hindi.txt")),
    ("Rust", include_str!("../texts/rust.txt")),
    ("Python", include_str!("../texts/python.txt")),
    ("JSON", include_str!("../texts/json.txt")),
];

/// As many clients escape what is not ASCII (`\u4f60`), this is told apart.
const ESCAPED: [&str; 3] = ["Russian", "Chinese", "Hindi"];

const VOCABULARIES: [(&str, &str); 2] = [("o200k_base", "gpt-4o"), ("cl100k_base", "gpt-4")];

/// How often the requests are settled before the figure is used.
const ROUNDS: usize = 200;

/// A chat request as a provider sees it.
struct Request {
    body_bytes: u64,
    tokens: u64,
}

/// Requests of one kind.
struct Kind {
    name: String,
    requests: Vec<Request>,
}

/// How far estimates are off, in percent: the sum of them, and each of them on the mean.
struct Off {
    sum: f64,
    each: f64,
}

fn main() -> io::Result<()> {
    let mut report = String::from(
        "# Prompt tokens: estimated against counted\n\n\
         Error in %: of the sum of all requests, and of each on the mean. *Prior*: four bytes a token. *Learned*: of a tenant that only\n\
         sends this kind of text. *Mixed*: of one that sends all of them in turn.\n",
    );
    for (vocabulary, model) in VOCABULARIES {
        report += &format!("\n## {vocabulary}\n\n{}", table(&kinds(model)));
    }
    print!("{report}");
    let directory = Path::new("target/bench");
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("estimates.md"), report)
}

fn table(kinds: &[Kind]) -> String {
    let mut rows = String::from(
        "| | requests | bytes a token | prior | each | learned | each | mixed | each |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let all = || kinds.iter().flat_map(|kind| &kind.requests);
    for Kind { name, requests } in kinds {
        let prior = off(requests, |_| BytesPerToken::PRIOR);
        let alone = off(requests, |left_out| taught(requests.iter(), left_out));
        let mixed = off(requests, |left_out| taught(all(), left_out));
        let bytes: u64 = requests.iter().map(|request| request.body_bytes).sum();
        let tokens: u64 = requests.iter().map(|request| request.tokens).sum();
        let per_token = bytes as f64 / tokens as f64;
        rows += &format!("| {name} | {} | {per_token:.2} |", requests.len());
        for Off { sum, each } in [prior, alone, mixed] {
            rows += &format!(" {sum:+.0} | {each:.0} |");
        }
        rows.push('\n');
    }
    rows
}

fn kinds(model: &str) -> Vec<Kind> {
    let plain = TEXTS
        .iter()
        .map(|&(name, text)| kind(name.to_owned(), model, text, false));
    let escaped = TEXTS.iter().filter(|(name, _)| ESCAPED.contains(name));
    let escaped = escaped.map(|(name, text)| kind(format!("{name}, escaped"), model, text, true));
    plain.chain(escaped).collect()
}

fn kind(name: String, model: &str, text: &str, escaped: bool) -> Kind {
    let texts = text.split("\n----\n").map(str::trim_end);
    Kind {
        name,
        requests: texts.map(|text| request(model, text, escaped)).collect(),
    }
}

fn request(model: &str, text: &str, escaped: bool) -> Request {
    let messages = [("system", "You are a helpful assistant."), ("user", text)];
    let counted = messages.map(|(role, content)| ChatCompletionRequestMessage {
        role: role.to_owned(),
        content: Some(content.to_owned()),
        ..Default::default()
    });
    let tokens = num_tokens_from_messages(model, &counted).expect("tiktoken-rs knows the model");
    let messages =
        messages.map(|(role, content)| serde_json::json!({"role": role, "content": content}));
    let body = serde_json::json!({"model": model, "messages": messages}).to_string();
    let length = |c: char| match escaped && !c.is_ascii() {
        true => 6 * c.len_utf16(),
        false => c.len_utf8(),
    };
    Request {
        body_bytes: body.chars().map(length).sum::<usize>() as u64,
        tokens: tokens as u64,
    }
}

/// What is learned from all requests but one.
fn taught<'a>(
    requests: impl Iterator<Item = &'a Request> + Clone,
    left_out: &Request,
) -> BytesPerToken {
    let others = requests.filter(|request| !std::ptr::eq(*request, left_out));
    std::iter::repeat_n(others, ROUNDS)
        .flatten()
        .fold(BytesPerToken::PRIOR, |figure, request| {
            figure.after(request.body_bytes, Tokens(request.tokens))
        })
}

fn off(requests: &[Request], learned: impl Fn(&Request) -> BytesPerToken) -> Off {
    let estimated = |request: &Request| {
        let estimate = Estimate {
            body_bytes: request.body_bytes,
            bytes_per_token: learned(request),
            output_limit: Some(Tokens(0)),
            answer: Tokens(0),
            choices: 1,
            weights: None,
        };
        estimate.input().0 as f64
    };
    let pairs: Vec<(f64, f64)> = requests
        .iter()
        .map(|request| (estimated(request), request.tokens as f64))
        .collect();
    let (estimated, counted) = pairs
        .iter()
        .fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let each: f64 = pairs
        .iter()
        .map(|(estimated, counted)| (estimated / counted - 1.0).abs())
        .sum();
    Off {
        sum: 100.0 * (estimated / counted - 1.0),
        each: 100.0 * each / pairs.len() as f64,
    }
}
