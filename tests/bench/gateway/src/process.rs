//! The external processor: Envoy sends it headers and bodies, and it says what is to be changed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode;
use envoy_types::pb::envoy::service::ext_proc::v3::body_mutation::Mutation;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::ExternalProcessor;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Part;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Answer;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody,
    ProcessingRequest, ProcessingResponse, TrailersResponse,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use serde::Deserialize;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::Counts;

const MODEL: &str = "gpt-4o-mini";
/// Namespace of the dynamic metadata that tells the tokens.
const NAMESPACE: &str = "bench";

pub struct Processor {
    pub counts: Arc<Counts>,
}

#[tonic::async_trait]
impl ExternalProcessor for Processor {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let mut exchange = Exchange {
            counts: Arc::clone(&self.counts),
            is_stream: false,
            line: Vec::new(),
            tokens: None,
        };
        let answers = request
            .into_inner()
            .map(move |part| Ok(exchange.answer(part?)));
        Ok(Response::new(Box::pin(answers)))
    }
}

/// One request and its answer.
struct Exchange {
    counts: Arc<Counts>,
    is_stream: bool,
    /// Of a stream: a line's beginning.
    line: Vec<u8>,
    tokens: Option<u64>,
}

impl Exchange {
    fn answer(&mut self, part: ProcessingRequest) -> ProcessingResponse {
        let mut response = ProcessingResponse::default();
        response.response = part.request.map(|part| match part {
            Part::RequestHeaders(_) => Answer::RequestHeaders(HeadersResponse::default()),
            Part::RequestBody(body) => Answer::RequestBody(self.exchange_model(&body)),
            Part::ResponseHeaders(headers) => {
                self.is_stream = headers.headers.as_ref().is_some_and(is_stream);
                if self.is_stream {
                    // Events have to pass as they come.
                    let mode = BodySendMode::Streamed.into();
                    response.mode_override = Some(ProcessingMode {
                        response_body_mode: mode,
                        ..ProcessingMode::default()
                    });
                }
                Answer::ResponseHeaders(HeadersResponse {
                    response: Some(changed(&[("x-model", MODEL)])),
                })
            }
            Part::ResponseBody(body) => {
                self.read(&body);
                if body.end_of_stream {
                    response.dynamic_metadata = self.tokens.map(metadata);
                }
                Answer::ResponseBody(BodyResponse::default())
            }
            Part::RequestTrailers(_) => Answer::RequestTrailers(TrailersResponse::default()),
            Part::ResponseTrailers(_) => Answer::ResponseTrailers(TrailersResponse::default()),
        });
        response
    }

    fn exchange_model(&self, body: &HttpBody) -> BodyResponse {
        let Some((before, after)) = around_model(&body.body) else {
            return BodyResponse::default();
        };
        self.counts.rewritten.fetch_add(1, Ordering::Relaxed);
        let body = [before, MODEL.as_bytes(), after].concat();
        // Envoy refuses a body of another length than the header says.
        let mut response = changed(&[
            ("x-model", MODEL),
            ("content-length", &body.len().to_string()),
        ]);
        response.body_mutation = Some(BodyMutation {
            mutation: Some(Mutation::Body(body)),
        });
        BodyResponse {
            response: Some(response),
        }
    }

    fn read(&mut self, body: &HttpBody) {
        if !self.is_stream {
            self.tokens = usage(&body.body);
            return;
        }
        self.line.extend(&body.body);
        let mut read = 0;
        while let Some(end) = self.line[read..].iter().position(|&byte| byte == b'\n') {
            let event = self.line[read..read + end].strip_prefix(b"data: ");
            self.tokens = event.and_then(usage).or(self.tokens);
            read += end + 1;
        }
        self.line.drain(..read);
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    let mut kinds = headers
        .headers
        .iter()
        .filter(|header| header.key == "content-type");
    kinds.any(|header| header.raw_value.starts_with(b"text/event-stream"))
}

/// What is before the model's name, and what is behind it.
fn around_model(body: &[u8]) -> Option<(&[u8], &[u8])> {
    #[derive(Deserialize)]
    struct Ask<'a> {
        model: &'a str,
    }
    let Ask { model } = serde_json::from_slice(body).ok()?;
    let start = model.as_ptr() as usize - body.as_ptr() as usize;
    Some((&body[..start], &body[start + model.len()..]))
}

fn usage(json: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Told {
        usage: Option<Usage>,
    }
    #[derive(Deserialize)]
    struct Usage {
        total_tokens: u64,
    }
    serde_json::from_slice::<Told>(json)
        .ok()?
        .usage
        .map(|usage| usage.total_tokens)
}

fn changed(headers: &[(&str, &str)]) -> CommonResponse {
    let set = |&(name, value): &(&str, &str)| HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            raw_value: value.into(),
            ..HeaderValue::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    };
    let mutation = HeaderMutation {
        set_headers: headers.iter().map(set).collect(),
        ..HeaderMutation::default()
    };
    CommonResponse {
        header_mutation: Some(mutation),
        ..CommonResponse::default()
    }
}

fn metadata(tokens: u64) -> Struct {
    let value = |kind| Value { kind: Some(kind) };
    #[expect(
        clippy::cast_precision_loss,
        reason = "a protobuf's number is a double"
    )]
    let tokens = value(Kind::NumberValue(tokens as f64));
    let inner = Struct {
        fields: [("tokens".to_owned(), tokens)].into(),
    };
    Struct {
        fields: [(NAMESPACE.to_owned(), value(Kind::StructValue(inner)))].into(),
    }
}
