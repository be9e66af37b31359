"""The content of answers, for every API: made-up words, and the tokens of prompt and answer."""

import itertools

LONGEST_ANSWER = 200
WORDS_PER_DELTA = 16
TOKENS_PER_MESSAGE = 4
BYTES_PER_TOKEN = 4
WORDS = "a budget is a promise that somebody made and a bursar is the one who keeps it".split()
NUMBERS = itertools.count(1)   # of answers


class Refused(Exception):
    """An error answer, to which each API gives its own format. `close`: whether the connection has to be closed, since what
    follows on it cannot be read."""

    def __init__(self, status, message, code=None, close=False):
        super().__init__(message)
        self.status, self.code, self.close = status, code, close


class Answer:
    """The words of an answer. `limit`: the most tokens that the request allows, or None. `choices`: how many such answers are wanted."""

    def __init__(self, input_tokens, limit=None, choices=1):
        self.number = next(NUMBERS)
        length = min(limit or LONGEST_ANSWER, LONGEST_ANSWER)
        self.words = [WORDS[i % len(WORDS)] for i in range(length)]
        self.is_cut = limit == length
        self.choices = choices
        self.input_tokens, self.output_tokens = input_tokens, length * choices

    @property
    def total_tokens(self):
        return self.input_tokens + self.output_tokens

    @property
    def text(self):
        return " ".join(self.words)

    def deltas(self):
        """[(text, tokens so far)]: the text in parts."""
        for at in range(0, len(self.words), WORDS_PER_DELTA):
            words = self.words[at:at + WORDS_PER_DELTA]
            yield ("" if at == 0 else " ") + " ".join(words), at + len(words)


# --- tokens of a prompt ---


def tokens(text):
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def message_tokens(*contents):
    """Tokens of messages with these contents, each of which is a text or a list of parts with texts."""
    return sum(tokens(text_of(content)) + TOKENS_PER_MESSAGE for content in contents)


def text_of(content):
    """The text of a message's content: the content itself, or the texts of its parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(text_of, content))
    if isinstance(content, dict):
        return text_of(content.get("text") or content.get("parts") or content.get("content"))
    return ""


def prompt_tokens(prompt):
    """Tokens of the input of completions and embeddings: a text, token ids, or a list of either."""
    if isinstance(prompt, str):
        return tokens(prompt)
    if isinstance(prompt, list) and prompt:
        return sum(1 if type(each) is int else prompt_tokens(each) for each in prompt)
    raise Refused(400, "The prompt is neither a text nor a list of texts or tokens.", "invalid_type")


# --- reading a request ---


def positive(value, name):
    """A count that may be missing."""
    if value is not None and (type(value) is not int or value < 1):
        raise Refused(400, f"Invalid '{name}': expected an integer of at least 1.", "invalid_type")
    return value


def within(body, name):
    """An object in the body that may be missing."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(400, f"Invalid '{name}': expected an object.", "invalid_type")
    return value


def conversation(body, name="messages"):
    """The list of messages, which must be there."""
    messages = body.get(name)
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise Refused(400, f"Missing required parameter: '{name}'.", "missing_required_parameter")
    return messages
