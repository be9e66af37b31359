"""A stand-in LLM that speaks the APIs that bursar meters, whole and streamed.

`server` speaks HTTP, `routes` finds the API that a path belongs to, `answer` makes up the text and counts it, and one
file for each provider gives it that provider's shape. The shapes are those of the providers' references, read
2026-11-29.

Its usage is honest and the same every time. A prompt's text costs a quarter of its bytes, rounded up, and 4 for each
message; an answer is one word a token, as long as the request allows and never longer than 200. Images, tools and
thinking cost nothing, since it does not read them.
"""
