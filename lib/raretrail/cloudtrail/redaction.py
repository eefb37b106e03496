"""Secrets are taken out of what is read, by the rules of `conf/redaction.yml`.

What a secret is called and what it looks like are looked for in a way that costs little where there
is none: Arrow's matcher goes over a column once; elsewhere a few short texts (`needles`), of which
one is in every secret's name or look, are searched. Only documents that hold one are read closely.
All else in a document stays byte for byte as delivered. Hashes of content are taken before, by
whoever calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from json.decoder import scanstring  # type: ignore[attr-defined]  # not in typeshed
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from raretrail.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

MARKER = "[redacted]"
_MARKER_JSON = b'"[redacted]"'

# Shorter texts than this are neither a secret's look nor hold a name with a value.
_SHORTEST = 12
_DEEPEST = 12
_SMALL = bytes(range(256)).lower()
_BETWEEN = b"_-. "
_JOINTS = b"_-."
_STRUCTURE = re.compile(rb'"((?:[^"\\]++|\\.)*+)(?:"(\s*+:\s*+)?|\\?\Z)|[{}\[\]]', re.DOTALL)
# With no backslash in a text, these are its names with strings as values.
_PAIR = re.compile(rb'"([^"\\:,{}\[\]]{1,100})":("[^"\\]*")')
_SCALAR = re.compile(rb"[^,}\]\s]*")
_PLAIN_SCALARS = frozenset((b"true", b"false", b"null", b'""', b""))
_PLAIN_WORDS = frozenset(("true", "false", "null", "None"))
# In text: name=value, "name": "value", \"name\":\"value\", <name>value, and --name value. A quoted
# value ends at the quote of its kind, another at the next space or separator.
_QUOTES = r"[\"'\\]{0,16}"
_VALUE = r"(?P<value>(?<=[\"'])[^\"'\\]+|[^\s\"'\\,;&)}\]<]+)"
_ASSIGNED = re.compile(
    rf"(?<![\w.:-])(?:(?P<name>[\w.-]{{4,100}}){_QUOTES}\s{{0,8}}(?:=>|[:=>])\s{{0,8}}{_QUOTES}"
    rf"|--?(?P<option>[\w.-]{{4,100}})\s{{1,8}}{_QUOTES}){_VALUE}"
)
# The tail of a string whose start, and maybe name, was cut off.
_TAIL = re.compile(r'\s*((?:"|(?![\s{}\[\]]))(?:[^"\\]++|\\.)*+)(?:"\s*(?:[,}\]]|\Z)|\Z)', re.DOTALL)
_CUT_NAME = re.compile(r'\s*([\w. -]{0,60})"\s*:\s*(?="|\S)')
_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")


class Shape(NamedTuple):
    """Secrets known by their look; one of `contains` is in every match."""

    name: str
    contains: tuple[str, ...]
    pattern: re.Pattern[str]


class Redaction:
    """The rules, ready for use. Can be pickled."""

    def __init__(self, rules: str) -> None:
        """rules: JSON text of a tree as `conf/redaction.yml` holds it."""
        self._rules = rules
        tree = json.loads(rules)
        names = [_normal(key.encode()) for key in tree["keys"]]
        self._exact = frozenset(name for name in names if b"*" not in name)
        self._starred = re.compile(
            b"|".join(re.escape(name).replace(rb"\*", b".*") for name in names if b"*" in name) or rb"(?!)",
            re.DOTALL,
        )
        self._literals = tuple(name.strip(b"*").decode() for name in names)
        self._names = frozenset(_normal(key.encode()) for key in tree["name_keys"])
        self._values = frozenset(_normal(key.encode()) for key in tree["value_keys"])
        self._mask = re.compile(f"(?i:{tree['masks']}|" + re.escape(MARKER) + ")")
        self._shapes = tuple(
            Shape(shape["name"], tuple(shape["contains"]), re.compile(shape["pattern"]))
            for shape in tree["shapes"]
        )
        self._damaged = tuple(re.compile(pattern) for pattern in tree["damaged"])
        self._needles, self._ends = _name_needles(tree["keys"])
        self._scan = _scan(tree["keys"], [part for shape in self._shapes for part in shape.contains])
        self._looks = tuple(
            (part.encode(), re.compile(shape.pattern.pattern.encode()))
            for shape in self._shapes
            for part in shape.contains
            if not any(end.search(part.lower().encode()) for end in self._ends.values())
        )
        self._ids = (b"AKIA", b"ASIA")
        parts = {part.encode() for shape in self._shapes for part in shape.contains}
        self._rare = tuple(sorted(parts.difference(self._ids)))
        self._is_secret = lru_cache(maxsize=8192)(self._judge_name)
        self._known_name = lru_cache(maxsize=8192)(self._name_facts)
        self._kept_text = lru_cache(maxsize=16384)(self._text)

    def __reduce__(self) -> tuple[type[Redaction], tuple[str]]:
        return Redaction, (self._rules,)

    def column(self, texts: Sequence[bytes | None], array: pa.StringArray) -> list[bytes | None] | None:
        """A column of JSON texts, which is also there as `array`, without secrets; None where it has
        none. One pass of Arrow's matcher finds the few that are worth reading here."""
        import pyarrow.compute as pc

        suspects = pc.indices_nonzero(pc.match_substring_regex(array, self._scan)).to_pylist()
        changed: list[bytes | None] | None = None
        for at in suspects:
            text = texts[at]
            assert text is not None
            new = self._simple(text)
            if new is None and self._is_suspect(text):
                new = self._document(text, 0)
            if new is not None and new != text:
                changed = changed or list(texts)
                changed[at] = new
        return changed

    def texts(self, column: Sequence[str | None]) -> list[str | None]:
        """A column of texts, most of which come again and again, without secrets."""
        kept = self._kept_text
        return [None if text is None else kept(text) for text in column]

    def text(self, text: str) -> str:
        """A text without secrets: what looks like one, and what follows a secret's name."""
        return self._kept_text(text)

    def document(self, text: bytes) -> bytes:
        """A JSON document without secrets, otherwise byte for byte as it was."""
        return self._document(text, 0) if self._is_suspect(text) else text

    def looks_secret(self, text: bytes, ids: int) -> bool:
        """May a text that holds no secret's name hold one known by its look? `ids`: how many access
        key ids it may hold, that stand alone."""
        return any(part in text for part in self._rare) or sum(map(text.count, self._ids)) > ids

    def fragment(self, text: str, *, cut: bool = True) -> str:
        """Any text of a file: of damaged JSON, of another format. Takes out more than `document`:
        where the text may have been cut from a longer one, what could be the value of a name that
        is cut off goes as well."""
        opening, rest = "", text
        name = _CUT_NAME.match(text) if cut else None
        tail = _TAIL.match(text) if cut and '"' in text else None
        if name and any(literal.endswith(_normal(name[1].encode()).decode()) for literal in self._literals):
            end = _value_end(text.encode(), len(text[: name.end()].encode()))
            opening, rest = name[0] + f'"{MARKER}"', text.encode()[end:].decode("utf-8", "ignore")
        elif tail and len(tail[1]) >= 8:
            opening, rest = MARKER, text[tail.end(1) :]
        if self._is_suspect(rest.encode()):
            rest = self._document(rest.encode(), 0).decode("utf-8", "replace")
            rest = self._text(rest, _DEEPEST)
        for pattern in self._damaged:
            rest = pattern.sub(MARKER, rest)
        return opening + rest

    # ------------------------------------------------------------------------------------ closely

    def _hits(self, text: bytes) -> list[bytes]:
        """The needles that a text holds: without one it holds no secret."""
        small = text.lower()
        hits = [needle for needle in self._needles if needle in small]
        return hits + [part for part, _ in self._looks if part in text]

    def _is_suspect(self, text: bytes) -> bool:
        """Does a text hold the end of a secret's name, or what looks like a secret, or a letter
        spelt as an escape?"""
        for needle in self._hits(text):
            if needle in self._ends:
                if self._ends[needle].search(text.translate(_SMALL, _JOINTS)):
                    return True
            else:
                plain = text.replace(b"\\", b"")
                if any(look.search(plain) for part, look in self._looks if part == needle):
                    return True
        return False

    def _simple(self, text: bytes) -> bytes | None:
        """A document in which all that is suspect are names of plain strings, without what is
        secret; None for any other. Several times as fast as `_document`."""
        if b"\\" in text:
            return None
        # As many ends of secret names as there are must stand in names of strings.
        low = text.lower()
        patterns = {self._ends[needle] for needle in self._needles if needle in low}
        small = text.translate(_SMALL, _JOINTS)
        ends = sum(len(pattern.findall(small)) for pattern in patterns)
        found: list[_Piece] = []
        if ends:
            for pair in _PAIR.finditer(text):
                in_name, is_secret = self._known_name(pair[1])
                ends -= in_name
                if is_secret and self._is_to_go(pair[2]):
                    found.append((*pair.span(2), _MARKER_JSON))
            if ends:
                return None
            text = _replaced(text, found)
        if any(part in text and look.search(text) for part, look in self._looks):
            return None
        return text

    def _name_facts(self, name: bytes) -> tuple[int, bool]:
        """How many ends of secret names a name with its closing quote holds; is it one?"""
        small = (name + b'"').translate(_SMALL, _JOINTS)
        ends = sum(len(end.findall(small)) for end in set(self._ends.values()))
        return ends, self._is_secret(name)

    def _judge_name(self, key: bytes) -> bool:
        if b"\\" in key:
            key = _unescaped(key).encode("utf-8", "replace")
        name = _normal(key)
        return name in self._exact or self._starred.fullmatch(name) is not None

    def _document(self, text: bytes, depth: int) -> bytes:
        found: list[_Piece] = []
        # Of each open object or list: whether its name is that of a secret, and its values.
        frames = [_Frame(0, False)]
        done = 0
        key: bytes | None = None
        for token in _STRUCTURE.finditer(text):
            start, end = token.span()
            if start < done:
                continue
            inside, is_value = token[1], key is not None and key in self._values
            if inside is None:
                if text[start] in b"{[":
                    frames.append(_Frame(start, is_value))
                elif len(frames) > 1:
                    self._close(frames, end, found)
                key = None
            elif token[2] is not None:
                if len(inside) >= 20 and (new := self._string(inside, depth)) is not None:
                    found.append((start + 1, start + 1 + len(inside), new))
                if self._is_secret(inside):
                    done = _value_end(text, end)
                    if self._is_to_go(text[end:done]):
                        found.append((end, done, _MARKER_JSON))
                    key = None
                    continue
                key = _normal(inside)
                if key in self._values and text[end : end + 1] not in (b'"', b"{", b"["):
                    frames[-1].values.append((end, _value_end(text, end), _MARKER_JSON))
            else:
                if is_value:
                    frames[-1].values.append((start, end, _MARKER_JSON))
                elif key is not None and key in self._names and self._is_secret(inside):
                    frames[-1].secret = True
                if len(inside) >= _SHORTEST and (new := self._string(inside, depth)) is not None:
                    found.append((start + 1, start + 1 + len(inside), new))
                key = None
        while frames:
            self._close(frames, len(text), found)
        return _replaced(text, found) if found else text

    def _close(self, frames: list[_Frame], end: int, found: list[_Piece]) -> None:
        frame = frames.pop()
        if frame.secret:
            found += frame.values
        elif frame.is_value and frames:
            frames[-1].values.append((frame.start, end, _MARKER_JSON))

    def _is_to_go(self, value: bytes) -> bool:
        if value in _PLAIN_SCALARS:
            return False
        return value[:1] != b'"' or not self._mask.fullmatch(_unescaped(value.strip(b'"')))

    def _string(self, inside: bytes, depth: int) -> bytes | None:
        """What stands between the quotes of a string without secrets, or None if it has none."""
        if not self._is_suspect(inside):
            return None
        if depth > _DEEPEST:
            return MARKER.encode()
        text = _unescaped(inside)
        new = self._text(text, depth + 1)
        return None if new == text else json.dumps(new, ensure_ascii=False)[1:-1].encode("utf-8", "replace")

    def _text(self, text: str, depth: int = 0) -> str:
        data = text.encode("utf-8", "replace")
        if len(text) < _SHORTEST or not self._is_suspect(data):
            return text
        if '"' in text:
            changed = self._document(data, depth)
            text = text if changed == data else changed.decode("utf-8", "replace")
        for shape in self._shapes:
            if any(part in text for part in shape.contains):
                text = shape.pattern.sub(_without_secret, text)
        out: list[str] = []
        at = looked = 0
        while match := _ASSIGNED.search(text, looked):
            name = match["name"] or match["option"]
            start, end = match.span("value")
            if not self._is_secret(name.encode("utf-8", "replace")):
                looked = match.end("name") if match["name"] else match.end("option")
                continue
            looked = end
            if not self._mask.fullmatch(match["value"]) and match["value"] not in _PLAIN_WORDS:
                out += (text[at:start], MARKER)
                at = end
        return "".join([*out, text[at:]]) if out else text


_Piece = tuple[int, int, bytes]  # from where to where what takes its place


class _Frame:
    """An open object or list, and whether it is the value of a name that means "value"."""

    __slots__ = ("is_value", "secret", "start", "values")

    def __init__(self, start: int, is_value: bool) -> None:
        self.start = start
        self.is_value = is_value
        self.secret = False
        self.values: list[_Piece] = []


def _normal(name: bytes) -> bytes:
    return name.translate(_SMALL, _BETWEEN)


# What follows a name that says something of a value. Before it no colon may stand: `:secret:` is
# part of an ARN.
_NAME_ENDS = r"(?=[\"'\\=:>\s]|\Z)"


def _name_needles(keys: Sequence[str]) -> tuple[tuple[bytes, ...], dict[bytes, re.Pattern[bytes]]]:
    """Short texts of which one is in every spelling of a secret's name, and for each what must
    follow it in a text (in small letters, without _ - and .) where it is part of such a name.

    A needle lies within one word of a name, if it has a long one, since words may be separated.
    """
    left = {key: [word.lower() for word in _WORDS.findall(key)] for key in keys}
    ends: dict[bytes, set[bytes]] = {}
    while left:
        held: dict[str, int] = {}
        for words in left.values():
            for part in _parts(words):
                held[part] = held.get(part, 0) + 1
        best = max(held, key=lambda part: (held[part], len(part), part))
        for key, words in list(left.items()):
            if best in _parts(words):
                del left[key]
                whole = " ?".join(map(re.escape, words))
                start = re.search(best.replace(" ", r" \?"), whole)
                after = whole[start.end() :] if start else ""
                end = "" if key.endswith("*") else _NAME_ENDS
                for sign in ("", "_", "-") if " " in best else ("",):
                    spelt = best.replace(" ", sign).encode()
                    ends.setdefault(spelt, set()).add((after + end).encode())
    patterns = {
        needle: re.compile(b"%s(?<!:%s)(?:%s)" % (joined, joined, b"|".join(sorted(after))))
        for needle, after in ends.items()
        for joined in [re.escape(needle.translate(None, _JOINTS))]
    }
    patterns[rb"\u00"] = re.compile(rb"\\u00[4-7]")
    return tuple(patterns), patterns


def _scan(keys: Sequence[str], looks: Sequence[str]) -> str:
    """A pattern in the language of RE2 that is found in every JSON text with a secret."""
    names = []
    for key in keys:
        name = "[-_. ]?".join(_WORDS.findall(key))
        if not key.startswith("*"):
            # The name may follow on an escape: of a line's end, say, whose letter is no part of it.
            name = rf"(?:^|[^a-z0-9]|\\[bfnrt]|\\u[0-9a-f]{{4}})[-_. ]*{name}"
        names.append(name if key.endswith("*") else name + r"""(?:["'\\=:>\s]|$)""")
    parts = [re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", look) for look in looks]
    return "(?i:" + "|".join(names) + ")|" + "|".join([*parts, r"\\u00[4-7]"])


def _parts(words: Sequence[str]) -> set[str]:
    """The texts that a name may be found by: four letters or more of a long word, else all words
    with a space between."""
    longer = [word for word in words if len(word) > 4]
    if not longer:
        return {" ".join(words)}
    return {word[i : i + n] for word in longer for n in range(4, 9) for i in range(len(word) - n + 1)}


def _without_secret(match: re.Match[str]) -> str:
    if "secret" not in match.re.groupindex:
        return MARKER
    start, end = match.span("secret")
    whole = match.string
    return whole[match.start() : start] + MARKER + whole[end : match.end()]


def _value_end(text: bytes, at: int) -> int:
    """Where the JSON value ends that starts there; the end of the text where it is cut."""
    if text[at : at + 1] not in (b'"', b"{", b"["):
        scalar = _SCALAR.match(text, at)
        return scalar.end() if scalar else at
    depth = 0
    for token in _STRUCTURE.finditer(text, at):
        if token[1] is not None:
            if not depth:
                return token.end() - len(token[2] or b"")
        else:
            depth += 1 if text[token.start()] in b"{[" else -1
            if not depth:
                return token.end()
    return len(text)


def _unescaped(inside: bytes) -> str:
    """The text that stands between the quotes of a JSON string; a cut escape is left out."""
    text = inside.decode("utf-8", "replace")
    if "\\" not in text:
        return text
    for cut in range(0, min(7, len(text))):
        try:
            value, _ = scanstring(text[: len(text) - cut] + '"', 0, False)
        except ValueError:
            continue
        return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _replaced(text: bytes, found: list[_Piece]) -> bytes:
    out: list[bytes] = []
    at = 0
    for start, end, new in sorted(found, key=lambda one: (one[0], -one[1])):
        if start >= at:
            out += (text[at:start], new)
            at = end
    return b"".join([*out, text[at:]])


def load_redaction(path: Path) -> Redaction:
    """The rules of a YAML file.

    Raises:
        UsageError: the file cannot be read or a rule in it cannot be used.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        _check(tree)
        return Redaction(json.dumps(tree))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {error}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    except re.error as error:
        raise UsageError(f"{path}: {error.pattern!r} is no pattern: {error.msg}") from None


def _check(tree: object) -> None:
    if not isinstance(tree, Mapping):
        raise ValueError("must be a mapping")
    wanted = {"keys", "name_keys", "value_keys", "masks", "shapes", "damaged"}
    if set(tree) != wanted:
        raise ValueError(f"must hold {', '.join(sorted(wanted))}; it holds {', '.join(map(str, tree))}")
    for name in ("keys", "name_keys", "value_keys", "damaged"):
        if not isinstance(tree[name], list) or not all(isinstance(x, str) and x for x in tree[name]):
            raise ValueError(f"{name} must be a list of texts")
    for key in tree["keys"]:
        literal = _normal(key.encode()).strip(b"*")
        if len(literal) < 4 or b"*" in literal:
            raise ValueError(f"key {key!r}: four letters or more, with * only before or after them")
    if not isinstance(tree["masks"], str):
        raise ValueError("masks must be a pattern")
    if not isinstance(tree["shapes"], list):
        raise ValueError("shapes must be a list")
    for shape in tree["shapes"]:
        if not isinstance(shape, Mapping) or set(shape) != {"name", "contains", "pattern"}:
            raise ValueError(f"shape {shape!r}: must hold name, contains and pattern")
        parts = shape["contains"]
        if (
            not isinstance(parts, list)
            or not parts
            or not all(isinstance(x, str) and len(x) > 2 for x in parts)
        ):
            raise ValueError(f"shape {shape['name']!r}: contains must list texts of three letters or more")


@lru_cache(maxsize=1)
def default_redaction() -> Redaction:
    """The rules raretrail comes with."""
    from raretrail.settings import default_conf_dir

    return load_redaction(default_conf_dir() / "redaction.yml")
