//! What would keep a request, or the usage of its answer, from being seen.

use super::*;
use crate::opening::MESSAGES;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

// What could not be read is refused by its headers, the tenant's rules first, in the words of each API. (issue 13)
#[test]
fn an_upgrade_an_encoded_body_and_a_mask_are_refused_once_the_tenant_is_known() {
    let upgrade: &[(&str, &str)] = &[
        (":method", "GET"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
    ];
    let connect: &[(&str, &str)] = &[(":method", "CONNECT"), (":protocol", "websocket")];
    let encoded: &[(&str, &str)] = &[(":method", "POST"), ("content-encoding", "zstd")];
    let mask: &[(&str, &str)] = &[(":method", "POST"), ("x-goog-fieldmask", "candidates")];
    let google = "/v1/models/best:generateContent";
    for hold in [true, false] {
        for path in [
            CHAT,
            "/v1/responses",
            "/v1/messages",
            google,
            "/model/best/converse",
        ] {
            for (headers, status, reason) in [
                (upgrade, 426, "upgrade_not_supported"),
                (connect, 426, "upgrade_not_supported"),
                (encoded, 415, "unsupported_content_encoding"),
                (mask, 400, "invalid_request_body"),
            ] {
                let refused = |tenant: &[(&str, &str)], shadow: bool| {
                    let proxy = with(|config| {
                        config["hold_headers"] = hold.into();
                        config["tenants"]["acme"]["shadow"] = shadow.into();
                    });
                    let all = [headers, tenant, &[(":path", path)]].concat();
                    let call = proxy.request(&all, false);
                    (
                        call.refused()
                            .map(|(status, reason)| (status, reason.to_owned())),
                        call.headers_gone,
                    )
                };
                let known = refused(&[("x-tenant-id", "acme")], false);
                assert_eq!(known, (Some((status, reason.to_owned())), false), "{path}");
                let unknown = refused(&[("x-tenant-id", "nobody")], false);
                assert_eq!(unknown.0, Some((403, "tenant_unknown".to_owned())));
                let none = refused(&[], false);
                assert_eq!(none.0, Some((401, "tenant_required".to_owned())));
                // In shadow mode it is forwarded as it came.
                assert_eq!(refused(&[("x-tenant-id", "acme")], true), (None, true));
            }
        }
    }
}

// contract §6
#[test]
fn what_is_not_metered_is_refused_where_the_operator_says_so() {
    for (method, path, passes) in [
        ("GET", "/v1/models", true),
        ("HEAD", "/v1/models/m?x=1", true),
        ("GET", "/healthz", true),
        ("OPTIONS", "/v1/audio/speech", true),
        ("POST", "/v1/messages/count_tokens?beta=true", true),
        ("POST", "/mine/a/b", true),
        ("POST", "/v1/audio/speech", false),
        ("POST", "/v1/models", false),
        ("POST", "/v1/files", false),
        ("GET", "/v1/models/../realtime", false),
        ("GET", "/v1/models/%2e%2e/realtime", false),
        ("POST", "/mine/../v1/files", false),
        ("GET", "/v1/realtime", false),
        ("POST", "/v1/agents/completions", false),
        ("CONNECT", "", false),
        ("GET", "/", false),
    ] {
        let reject = |config: &mut Value| {
            config["unmetered"] = "reject".into();
            config["unmetered_allow"] = json!(["/mine/*"]);
        };
        for tenant in [&[("x-tenant-id", "acme")][..], &[]] {
            let refused = |change: &dyn Fn(&mut Value)| {
                let proxy = with(|config| change(config));
                let all = [&[(":method", method), (":path", path)], tenant].concat();
                let call = proxy.request(&all, true);
                let refused = call.refused();
                assert_eq!(call.headers_gone, refused.is_none());
                refused.map(|(status, reason)| (status, reason.to_owned()))
            };
            let expected = (!passes).then(|| (403, "endpoint_not_metered".to_owned()));
            assert_eq!(refused(&reject), expected, "{method} {path}");
            assert_eq!(refused(&|_| {}), None);
        }
    }
    let reject = |config: &mut Value| config["unmetered"] = "reject".into();
    // In the words of who is meant to read them.
    let proxy = with(reject);
    let headers = [
        (":method", "POST"),
        (":path", "/v1/messages/batches"),
        ("anthropic-version", "2023-06-01"),
    ];
    let call = proxy.request(&headers, false);
    let body = call.reply.unwrap().body;
    assert!(
        body.contains("permission_error") && body.contains(r#""type":"error""#),
        "{body}"
    );
}

#[test]
fn only_the_hosts_that_are_named_are_looked_at() {
    for (host, is_ours) in [
        ("api.openai.com", true),
        ("API.OpenAI.com:443", true),
        ("api.openai.com.", true),
        ("api.openai.com.:443", true),
        ("eu.llm.local.", true),
        ("eu.llm.local", true),
        ("[::1]:80", true),
        ("[::1]", true),
        ("example.com", false),
        ("api.openai.com.example.com", false),
        ("", false),
    ] {
        let proxy = with(|config| {
            config["hosts"] = json!(["api.openai.com", "*.llm.local", "[::1]"]);
            config["unmetered"] = "reject".into();
        });
        for path in [CHAT, "/v1/files"] {
            let headers = [
                (":method", "POST"),
                (":path", path),
                (":authority", host),
                ("x-bursar-tier", "mine"),
            ];
            let call = proxy.request(&headers, false);
            assert_eq!(call.refused().is_some(), is_ours, "{host} {path}");
            assert!(is_ours || call.upstream_header("x-bursar-tier").is_none());
        }
    }
}

// A server that heeds another method than the proxies on the way answers a request that looks like none of ours.
#[test]
fn a_post_in_the_disguise_of_another_method_is_metered() {
    let google = "/v1beta/models/best:generateContent";
    let body = r#"{"model":"best","max_tokens":10}"#;
    for (method, path, header, is_metered) in [
        ("PUT", google, ("x-http-method-override", "POST"), true),
        ("PATCH", CHAT, ("x-http-method-override", "post"), true),
        ("PUT", CHAT, ("x-http-method-override", " POST "), true),
        (
            "PUT",
            &format!("{google}?$httpMethod=POST"),
            ("x-y", ""),
            true,
        ),
        (
            "PUT",
            &format!("{google}?a=b&%24httpMetho%64=%50OST"),
            ("x-y", ""),
            true,
        ),
        ("PUT", google, ("x-http-method-override", "GET"), false),
        (
            "GET",
            "/v1/models",
            ("x-http-method-override", "POST"),
            false,
        ),
        (
            "PUT",
            &format!("{google}?$httpMethod=PUT"),
            ("x-y", ""),
            false,
        ),
    ] {
        for hold in [true, false] {
            let proxy = with(|config| config["hold_headers"] = hold.into());
            let headers = [
                (":method", method),
                (":path", path),
                ("x-tenant-id", "acme"),
                header,
            ];
            let mut call = proxy.request(&headers, false);
            call.send(&[body.as_bytes()]);
            assert_eq!(held(&proxy, "acme") > 0, is_metered, "{method} {path}");
        }
    }
    // Said twice, the first one counts with some, and the last with others.
    for [one, other] in [
        ["POST", "POST"],
        ["GET", "POST"],
        ["POST", "GET"],
        ["", "x, post"],
    ] {
        let proxy = with(|_| {});
        let twice = [one, other].map(|method| ("x-http-method-override", method));
        let whose = [(":method", "PUT"), (":path", CHAT), ("x-tenant-id", "acme")];
        let mut call = proxy.request(&[&whose[..], &twice].concat(), false);
        call.send(&[body.as_bytes()]);
        assert!(held(&proxy, "acme") > 0, "{one} {other}");
    }
}

// `$httpHeaders` carries headers in the query, a mask of the answer's fields among them.
#[test]
fn headers_in_the_query_are_refused_where_they_could_mask_the_answer() {
    let google = "/v1beta/models/best:streamGenerateContent?alt=sse&";
    for parameter in ["$httpHeaders=x-goog-fieldmask:a%0d%0a", "%24httpHeader%73="] {
        let proxy = with(|_| {});
        let call = post(&proxy, &format!("{google}{parameter}"), &[], &["{}"]);
        assert_eq!(call.refused(), Some((400, "invalid_request_body")));
    }
}

// Google has OpenAI's API, too, and it stands behind gateways under any path: a mask hides the usage of that as well.
#[test]
fn nothing_hides_the_usage_of_an_answer_on_any_path() {
    let body = r#"{"model":"best","max_tokens":10}"#;
    for path in [
        CHAT,
        "/v1beta/openai/chat/completions",
        "/v1beta1/projects/p/locations/l/endpoints/openapi/chat/completions",
        "/v1beta/openai/embeddings",
        "/v1/models/best:generateContent",
    ] {
        for (query, is_refused) in [
            ("fields=choices", true),
            ("$fields=choices", true),
            ("%24field%73=choices", true),
            ("$alt=proto", true),
            ("callback=f", true),
            ("$alt=json;mask", true),
            ("alt=json", false),
            // What Google's generated clients send with each request.
            ("$alt=json;enum-encoding=int", false),
            ("%24alt=json%3Benum-encoding%3Dint", false),
            ("key=fields", false),
        ] {
            for hold in [true, false] {
                let proxy = with(|config| config["hold_headers"] = hold.into());
                let call = post(&proxy, &format!("{path}?{query}"), &[], &[body]);
                assert_eq!(call.refused().is_some(), is_refused, "{path} {query}");
            }
        }
    }
}

// LiteLLM's proxy sends what is in these keys to the provider in the place of what the body says itself, or leaves that out.
#[test]
fn nothing_in_the_body_may_change_behind_bursar_what_the_body_says() {
    let wires = [
        CHAT,
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/models/best:generateContent",
    ];
    let long = format!(r#""additional_drop_params":["{}"]"#, "x".repeat(2_000));
    for (more, is_refused) in [
        (r#""extra_body":{"model":"best-2"}"#, true),
        (
            r#""extra_body":{"a":[{"b":1}],"\u006dodel":"best-2"}"#,
            true,
        ),
        (r#""extra_body":{"max_tokens":100000}"#, true),
        (r#""extra_body":{"max_completion_tokens":9}"#, true),
        (r#""extra_body":{"n":100}"#, true),
        (
            r#""extra_body":{"stream_options":{"include_usage":false}}"#,
            true,
        ),
        (r#""extra_body":{"stream":true}"#, true),
        (r#""extra_body":{"models":["best-2"]}"#, true),
        (r#""additional_drop_params":["max_tokens"]"#, true),
        (
            r#""additional_drop_params":["user", "m\u0061x_tokens"]"#,
            true,
        ),
        (r#""additional_drop_params":["stream_options"]"#, true),
        (r#""additional_drop_params":"max_tokens""#, true),
        (&long, true),
        (r#""model_list":[{"model_name":"best"}]"#, true),
        (r#""extra_body":{"google":{"thinking_config":{}}}"#, false),
        (r#""extra_body":{"guided_json":{"model":1,"n":2}}"#, false),
        (r#""extra_body":{"model":null}"#, false),
        (
            r#""additional_drop_params":["temperature","tools[*].x"]"#,
            false,
        ),
        (r#""additional_drop_params":[],"extra_body":null"#, false),
        (r#""model_list":null"#, false),
    ] {
        for (path, hold) in wires
            .into_iter()
            .flat_map(|path| [(path, true), (path, false)])
        {
            let proxy = with(|config| config["hold_headers"] = hold.into());
            let body = format!(r#"{{"model":"best",{more}}}"#);
            let length = body.len().to_string();
            let call = post(&proxy, path, &[("content-length", &length)], &[&body]);
            let expected = is_refused.then_some((400, "invalid_request_body"));
            assert_eq!(call.refused(), expected, "{path} {body}");
            assert!(!is_refused || call.upstream_body.is_empty() && held(&proxy, "acme") == 0);
        }
    }
}

// Portkey's gateway replaces what the body says by what a header says, if that is a configuration and not the name of one.
#[test]
fn no_header_may_change_behind_bursar_what_the_body_says() {
    for (config, is_refused) in [
        (
            r#"{"override_params":{"model":"dear","max_tokens":100000}}"#,
            true,
        ),
        (
            r#" {"targets":[{"override_params":{"model":"dear"}}]}"#,
            true,
        ),
        ("pc-acme-1a2b3c", false),
    ] {
        for hold in [true, false] {
            let proxy = with(|config| config["hold_headers"] = hold.into());
            let header = ("x-portkey-config", config);
            let call = post(
                &proxy,
                CHAT,
                &[header],
                &[r#"{"model":"best","max_tokens":9}"#],
            );
            let expected = is_refused.then_some((400, "invalid_request_body"));
            assert_eq!(call.refused(), expected, "{config} {hold}");
        }
    }
}

// An answer that is only promised is fetched later, with a request that bursar does not read. (RFC 9110, 15.3.3)
#[test]
fn an_answer_that_is_promised_costs_what_was_reserved() {
    let body = r#"{"model":"best","max_tokens":70}"#;
    for hold in [true, false] {
        for (status, answer, output) in [
            ("202", "", "70"),
            ("202", r#"{"requestId":"x","status":"pending"}"#, "70"),
            (
                "202",
                r#"{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
                "4",
            ),
            ("200", r#"{"choices":[]}"#, "4"),
        ] {
            let proxy = with(|config| config["hold_headers"] = hold.into());
            let mut call = post(&proxy, CHAT, &[], &[body]);
            call.answer_headers(status, &[("content-type", "application/json")]);
            call.answer_chunk(answer.as_bytes(), true);
            call.end();
            assert_eq!(
                call.fields["bursar_output_tokens"], output,
                "{status} {answer} {hold}"
            );
        }
    }
}

// An entry of such a list may have a limit of its own, which the provider takes.
#[test]
fn limits_in_lists_of_other_models_count() {
    let entry = |limit: &str| {
        format!(r#"{{"model":"best","max_tokens":10,"fallbacks":[{{"model":"best-2"{limit}}}]}}"#)
    };
    for (path, hold) in [
        (MESSAGES, true),
        (MESSAGES, false),
        (CHAT, true),
        (CHAT, false),
    ] {
        let reserved = |body: &str| {
            let proxy = with(|config| config["hold_headers"] = hold.into());
            let length = body.len().to_string();
            let call = post(&proxy, path, &[("content-length", &length)], &[body]);
            assert_eq!(call.refused(), None, "{body}");
            held(&proxy, "acme") - body.len() as u64
        };
        assert_eq!(reserved(&entry("")), 10);
        assert_eq!(reserved(&entry(r#","max_tokens":4000"#)), 4_000);
        assert_eq!(reserved(&entry(r#","max_tokens":4"#)), 10);
        let among_names = entry(r#","max_tokens":4000"#).replace("[{", r#"["best-3",{"#);
        assert_eq!(reserved(&among_names), 4_000);
        // A list with more than bursar allows is left out.
        let sent = |limit: &str| {
            let proxy = with(|config| {
                config["hold_headers"] = hold.into();
                config["ladders"][0]["tiers"][0]["max_output_tokens"] = 50.into();
            });
            let body = entry(limit);
            let length = body.len().to_string();
            let call = post(&proxy, path, &[("content-length", &length)], &[&body]);
            assert_eq!(call.refused(), None, "{body}");
            call.upstream_text().to_owned()
        };
        assert!(
            sent(r#","max_tokens":4000"#).contains(r#""fallbacks":null"#),
            "{path} {hold}"
        );
        assert!(
            sent(r#","max_tokens":40"#).contains("best-2"),
            "{path} {hold}"
        );
    }
}

// A part of an answer need not show its usage, nor does one that is compressed. (RFC 9110, 15.3.7)
#[test]
fn a_part_of_an_answer_is_not_asked_for_and_where_it_could_be_costs_what_was_reserved() {
    let body = r#"{"model":"best","max_tokens":70}"#;
    let part = [("range", "bytes=0-9"), ("if-range", "x")];
    for hold in [true, false] {
        let proxy = with(|config| config["hold_headers"] = hold.into());
        let mut call = post(&proxy, CHAT, &part, &[body]);
        assert_eq!(call.upstream_header("range"), None);
        assert_eq!(call.upstream_header("if-range"), None);
        call.answer_json(r#"{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#);
        assert_eq!(call.fields["bursar_output_tokens"], "4");

        let signature = ("authorization", "AWS4-HMAC-SHA256 Credential=x");
        let gzip = ("content-encoding", "gzip");
        for (asked, status, more, output) in [
            (("range", "bytes=0-9"), "206", ("x-y", ""), "70"),
            (("accept-encoding", "gzip"), "200", gzip, "70"),
            (("accept-encoding", "gzip"), "200", ("x-y", ""), "3"),
        ] {
            let proxy = with(|config| config["hold_headers"] = hold.into());
            let mut call = post(&proxy, CHAT, &[signature, asked], &[body]);
            assert_eq!(call.upstream_header(asked.0), Some(asked.1));
            call.answer_headers(status, &[("content-type", "application/json"), more]);
            call.answer_chunk(br#"{"choices":"#, true);
            assert_eq!(call.fields["bursar_output_tokens"], output, "{status}");
        }
    }
}

// The upstream has all that it needs; whether it was told so, only the client decides. (HTTP/2 without END_STREAM, then a reset)
#[test]
fn a_whole_request_that_is_never_ended_costs_what_was_reserved_when_its_client_leaves() {
    let body = r#"{"model":"best","max_tokens":70,"stream":false}"#;
    let input = body.len().div_ceil(4);
    for hold in [true, false] {
        for length in [Some(body.len()), None] {
            for (sent, expected, cause) in [
                (body, 70 + input, "unended"),
                (body.strip_suffix('}').unwrap(), 0, "unsent"),
            ] {
                let proxy = with(|config| config["hold_headers"] = hold.into());
                let mut headers = vec![
                    (":method", "POST"),
                    (":path", CHAT),
                    ("x-tenant-id", "acme"),
                ];
                let length = length.map(|length| length.to_string());
                headers.extend(length.as_deref().map(|length| ("content-length", length)));
                let mut call = proxy.request(&headers, false);
                call.send_chunk(sent.as_bytes(), false);
                call.end();
                let charged = call.fields.get("bursar_charged");
                assert_eq!(
                    charged.map_or("0", String::as_str),
                    expected.to_string(),
                    "{hold} {length:?} {sent}"
                );
                let ended = proxy.metric(&format!("bursar_exits_total.cause=.={cause};.;"));
                // What was held and never admitted has no end.
                assert_eq!(ended, u64::from(call.headers_gone), "{hold} {cause}");
                assert_eq!(held(&proxy, "acme"), 0);
            }
        }
    }
}
