//! What a request needs of a model, under every name that the need has.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn needs(path: &str, body: &str) -> Needs {
    let wire = endpoint("POST", path).unwrap().wire;
    let mut scanner = Scanner::new(wire.request(), Repeats::Refuse);
    scanner.feed(body.as_bytes()).unwrap();
    wire.facts(&scanner).unwrap().needs
}

// Clients and servers have several names for the same need.
#[test]
fn a_need_is_seen_under_every_name_that_it_has() {
    const CHAT: &str = "/v1/chat/completions";
    const RESPONSES: &str = "/v1/responses";
    const ANTHROPIC: &str = "/v1/messages";
    const GEMINI: &str = "/v1beta/models/m:generateContent";
    const CONVERSE: &str = "/model/m/converse";
    const INVOKE: &str = "/model/m/invoke";
    for (need, path, body) in [
        (Needs::THINKING, CHAT, r#"{"reasoning":{"effort":"low"}}"#),
        (Needs::THINKING, CHAT, r#"{"reasoning":{"max_tokens":900}}"#),
        (Needs::THINKING, CHAT, r#"{"include_reasoning":true}"#),
        (Needs::THINKING, CHAT, r#"{"enable_thinking":true}"#),
        (Needs::THINKING, CHAT, r#"{"thinking_budget":900}"#),
        (Needs::THINKING, CHAT, r#"{"thinking":{"type":"enabled"}}"#),
        (Needs::THINKING, CHAT, r#"{"reasoning_effort":"low"}"#),
        (
            Needs::ADAPTIVE_THINKING,
            CHAT,
            r#"{"thinking":{"type":"adaptive"}}"#,
        ),
        (
            Needs::EFFORT,
            CHAT,
            r#"{"output_config":{"effort":"high"}}"#,
        ),
        (Needs::EFFORT, CHAT, r#"{"verbosity":"low"}"#),
        (
            Needs::THINKING,
            CHAT,
            r#"{"chat_template_kwargs":{"enable_thinking":true}}"#,
        ),
        (
            Needs::THINKING,
            CHAT,
            r#"{"extra_body":{"google":{"thinking_config":{"thinking_budget":9}}}}"#,
        ),
        (
            Needs::STRUCTURED_OUTPUT,
            CHAT,
            r#"{"structured_outputs":{"json":{}}}"#,
        ),
        (
            Needs::STRUCTURED_OUTPUT,
            CHAT,
            r#"{"guided_json":{"type":"object"}}"#,
        ),
        (Needs::STRUCTURED_OUTPUT, CHAT, r#"{"guided_regex":"a+"}"#),
        (Needs::STRUCTURED_OUTPUT, CHAT, r#"{"guided_choice":["a"]}"#),
        (
            Needs::STRUCTURED_OUTPUT,
            CHAT,
            r#"{"guided_grammar":"root ::= x"}"#,
        ),
        (
            Needs::STRUCTURED_OUTPUT,
            CHAT,
            r#"{"grammar":"root ::= x"}"#,
        ),
        (
            Needs::STRUCTURED_OUTPUT,
            CHAT,
            r#"{"json_schema":{"type":"object"}}"#,
        ),
        (Needs::STRUCTURED_OUTPUT, CHAT, r#"{"regex":"a+"}"#),
        (
            Needs::STRUCTURED_OUTPUT,
            "/v1/completions",
            r#"{"guided_json":{"a":1}}"#,
        ),
        (
            Needs::STRUCTURED_OUTPUT,
            "/v1/completions",
            r#"{"response_format":{"type":"json_object"}}"#,
        ),
        (Needs::IMAGES, CHAT, r#"{"modalities":["text","audio"]}"#),
        (Needs::IMAGES, CHAT, r#"{"audio":{"voice":"alloy"}}"#),
        (
            Needs::IMAGES,
            CHAT,
            r#"{"messages":[{"content":[{"type":"audio_url"}]}]}"#,
        ),
        (
            Needs::IMAGES,
            CHAT,
            r#"{"messages":[{"content":[{"type":"video_url"}]}]}"#,
        ),
        (
            Needs::IMAGES,
            CHAT,
            r#"{"messages":[{"content":[{"type":"document_url"}]}]}"#,
        ),
        (
            Needs::IMAGES,
            CHAT,
            r#"{"messages":[{"content":[{"type":"input_video"}]}]}"#,
        ),
        (Needs::TOOLS, CHAT, r#"{"web_search_options":{"x":1}}"#),
        (Needs::TOOLS, CHAT, r#"{"search_parameters":{"mode":"on"}}"#),
        (Needs::TOOLS, CHAT, r#"{"plugins":[{"id":"web"}]}"#),
        (Needs::TOOLS, CHAT, r#"{"mcp_servers":[{"url":"x"}]}"#),
        (
            Needs::TOOLS,
            CHAT,
            r#"{"messages":[{"role":"tool","tool_call_id":"x"}]}"#,
        ),
        (
            Needs::THINKING,
            "/v1/responses",
            r#"{"include":["reasoning.encrypted_content"]}"#,
        ),
        (
            Needs::EFFORT,
            "/v1/responses",
            r#"{"text":{"verbosity":"low"}}"#,
        ),
        (
            Needs::TOOLS,
            "/v1/responses",
            r#"{"input":[{"type":"additional_tools","role":"developer","tools":[]}]}"#,
        ),
        (
            Needs::TOOLS,
            "/v1/responses",
            r#"{"input":[{"type":"apply_patch_call"}]}"#,
        ),
        (
            Needs::IMAGES,
            "/v1/responses",
            r#"{"input":[{"type":"input_audio"}]}"#,
        ),
        (
            Needs::THINKING,
            ANTHROPIC,
            r#"{"thinking":{"type":"enabled","budget_tokens":9}}"#,
        ),
        (
            Needs::ADAPTIVE_THINKING,
            ANTHROPIC,
            r#"{"thinking":{"type":"adaptive"}}"#,
        ),
        (
            Needs::EFFORT,
            ANTHROPIC,
            r#"{"output_config":{"effort":"high"}}"#,
        ),
        (Needs::EFFORT, ANTHROPIC, r#"{"speed":"fast"}"#),
        (
            Needs::RECENT_FEATURES,
            ANTHROPIC,
            r#"{"inference_geo":"us"}"#,
        ),
        (
            Needs::EFFORT | Needs::RECENT_FEATURES,
            ANTHROPIC,
            r#"{"output_config":{"effort":"xhigh"}}"#,
        ),
        (
            Needs::RECENT_FEATURES,
            ANTHROPIC,
            r#"{"messages":[{"role":"user","content":"a"},{"role":"system","content":"b"}]}"#,
        ),
        (
            Needs::RECENT_FEATURES,
            ANTHROPIC,
            r#"{"context_management":{"edits":[{"type":"compact_20260112"}]}}"#,
        ),
        (
            Needs::RECENT_FEATURES,
            ANTHROPIC,
            r#"{"messages":[{"role":"assistant","content":[{"type":"compaction","content":"a"}]}]}"#,
        ),
        (
            Needs::SIGNED_THINKING,
            ANTHROPIC,
            r#"{"fallback_credit_token":"t"}"#,
        ),
        (
            Needs::THINKING,
            RESPONSES,
            r#"{"input":[{"type":"reasoning","id":"rs_1","summary":[]}]}"#,
        ),
        (
            Needs::THINKING | Needs::RECENT_FEATURES,
            RESPONSES,
            r#"{"reasoning":{"effort":"xhigh"}}"#,
        ),
        (
            Needs::RECENT_FEATURES,
            RESPONSES,
            r#"{"service_tier":"flex"}"#,
        ),
        (Needs::RECENT_FEATURES, CHAT, r#"{"service_tier":"flex"}"#),
        (
            Needs::THINKING | Needs::RECENT_FEATURES,
            CHAT,
            r#"{"reasoning_effort":"xhigh"}"#,
        ),
        (Needs::THINKING, CHAT, r#"{"reasoning_effort":"none"}"#),
        (Needs::THINKING, CHAT, r#"{"reasoning_format":"hidden"}"#),
        (
            Needs::EFFORT | Needs::RECENT_FEATURES,
            CONVERSE,
            r#"{"additionalModelRequestFields":{"output_config":{"effort":"max"}}}"#,
        ),
        (
            Needs::EFFORT | Needs::RECENT_FEATURES,
            INVOKE,
            r#"{"output_config":{"effort":"max"}}"#,
        ),
        (
            Needs::THINKING,
            GEMINI,
            r#"{"generationConfig":{"thinkingConfig":{"thinkingBudget":0}}}"#,
        ),
        (
            Needs::THINKING | Needs::EFFORT,
            GEMINI,
            r#"{"generation_config":{"thinking_config":{"thinking_level":"LOW"}}}"#,
        ),
        (
            Needs::IMAGES,
            GEMINI,
            r#"{"generationConfig":{"responseModalities":["TEXT","IMAGE"]}}"#,
        ),
        (
            Needs::IMAGES,
            GEMINI,
            r#"{"generationConfig":{"speechConfig":{"x":1}}}"#,
        ),
        (
            Needs::ADAPTIVE_THINKING,
            CONVERSE,
            r#"{"additionalModelRequestFields":{"thinking":{"type":"adaptive"}}}"#,
        ),
        (
            Needs::EFFORT,
            CONVERSE,
            r#"{"additionalModelRequestFields":{"output_config":{"effort":"low"}}}"#,
        ),
        (
            Needs::THINKING,
            CONVERSE,
            r#"{"additionalModelRequestFields":{"reasoning_config":{"budget_tokens":9}}}"#,
        ),
        (
            Needs::THINKING,
            CONVERSE,
            r#"{"additionalModelRequestFields":{"reasoningConfig":{"type":"enabled"}}}"#,
        ),
        (
            Needs::ADAPTIVE_THINKING,
            INVOKE,
            r#"{"thinking":{"type":"adaptive"}}"#,
        ),
        (
            Needs::EFFORT,
            INVOKE,
            r#"{"output_config":{"effort":"low"}}"#,
        ),
        (
            Needs::STRUCTURED_OUTPUT,
            INVOKE,
            r#"{"output_config":{"format":{"type":"x"}}}"#,
        ),
        (Needs::THINKING, INVOKE, r#"{"reasoning_effort":"low"}"#),
        (
            Needs::CACHE_SETTINGS,
            CONVERSE,
            r#"{"messages":[{"content":[{"text":"a"},{"cachePoint":{"type":"default"}}]}]}"#,
        ),
        (
            Needs::CACHE_SETTINGS,
            CONVERSE,
            r#"{"system":[{"text":"a"},{"cachePoint":{"type":"default","ttl":"1h"}}],"messages":[]}"#,
        ),
        (
            Needs::TOOLS | Needs::CACHE_SETTINGS,
            CONVERSE,
            r#"{"toolConfig":{"tools":[{"cachePoint":{"type":"default"}}]}}"#,
        ),
        (
            Needs::CACHE_SETTINGS,
            CHAT,
            r#"{"prompt_cache_retention":"24h"}"#,
        ),
        (
            Needs::CACHE_SETTINGS,
            RESPONSES,
            r#"{"prompt_cache_retention":"in_memory"}"#,
        ),
        (
            Needs::CACHE_SETTINGS,
            RESPONSES,
            r#"{"prompt_cache_options":{"ttl":"30m"}}"#,
        ),
    ] {
        assert_eq!(needs(path, body), need, "{body}");
        let wire = endpoint("POST", path).unwrap().wire;
        let possible = ["claude", "gpt-5.1"].map(|model| wire.possible_needs(model));
        let [one, other] = possible.map(|possible| need.are_in(possible));
        assert!(one || other, "{body}");
    }
}

#[test]
fn what_is_off_or_as_always_is_no_need() {
    for (path, body) in [
        (
            "/v1/chat/completions",
            r#"{"reasoning":{"enabled": false},"include_reasoning":false,"enable_thinking":false,"thinking_budget":0}"#,
        ),
        (
            "/v1/chat/completions",
            r#"{"reasoning":{"effort":"none"},"thinking":{"type":"disabled"},"chat_template_kwargs":{"enable_thinking":false}}"#,
        ),
        (
            "/v1/chat/completions",
            r#"{"modalities":["text"],"audio":null,"guided_json":null,"plugins":[],"enable_search":false}"#,
        ),
        (
            "/v1/responses",
            r#"{"text":{"verbosity":"medium"},"include":["x"]}"#,
        ),
        (
            "/v1/messages",
            r#"{"thinking":{"type":"disabled"},"output_config":{"effort":null},"speed":"standard"}"#,
        ),
        (
            "/v1beta/models/m:generateContent",
            r#"{"generationConfig":{"responseModalities":["TEXT"]}}"#,
        ),
        (
            "/model/m/converse",
            r#"{"performanceConfig":{"latency":"standard"}}"#,
        ),
    ] {
        assert_eq!(needs(path, body), Needs::NONE, "{body}");
    }
}
