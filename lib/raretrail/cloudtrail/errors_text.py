"""The pattern behind an error message: what stays when names, ids and numbers are taken out.

The action of an authorization failure stays (`not authorized to perform: s3:GetObject`): it is
what tells two refusals apart. Messages that differ only in who asked, for which object, when, or
in an encoded blob have one template.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_LENGTH = 384

# One pass, first alternative wins; the group's name is what is put in its place.
_VARIABLE = re.compile(
    r"""
      (?P<encoded>(?<=failure\ message:\ )\S+)
    | (?P<arn>\barn:[a-z-]+:[^\s"'`,;)\]}]*[^\s"'`,;)\]}.:])
    | (?P<url>\bhttps?://[^\s"'`,;)\]}]*[^\s"'`,;)\]}.])
    | (?P<quoted>"[^"]*"|(?<!\w)'[^']*'(?!\w)|`[^`]*`|\u2018[^\u2019]*\u2019
        |\u201c[^\u201d]*\u201d|(?<=\bValue\ )\([^)]*\))
    | (?P<time>\b\d{4}-\d\d-\d\dT\d\d:\d\d[\w:.+-]*|\b\d{8}T\d{6}Z?)
    | (?P<email>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)
    | (?P<id>
          \b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b
        | \b[a-z]{1,16}-(?=[a-f]*\d)[0-9a-f]{8,17}\b
        | \b(?:A3T|ABIA|ACCA|AGPA|AIDA|AIPA|AKIA|ANPA|ANVA|APKA|AROA|ASCA|ASIA)[A-Z0-9]{8,}
        | (?<![\w+/=-])(?=[A-Za-z+/_=-]*\d)[A-Za-z0-9+/_=-]{32,}
        | (?<![\w:-])(?=[\w-]{8})(?=[A-Za-z_-]*\d)(?:[A-Za-z_-]*\d){3,}[\w-]*(?![\w:])
        | \b(?=[a-f]*\d)[0-9a-f]{8,}\b
      )
    | (?P<ip>(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?:/\d+)?(?![\w.]*\w))
    | (?P<name>
          (?:(?<=\bwith\ name\ )|(?<=\bwith\ id\ )|(?<=\bnamed\ )|(?<=\bfor\ User\ )
            |(?<=\bresource:\ user\ )|(?<=\bresource:\ role\ )|(?<=\bresource:\ group\ )
            |(?<=\bresource:\ policy\ )|(?<=\bresource:\ instance\ profile\ ))
          (?!because\b)\S*[^\s.,:;]
        | (?<=\buser:\ )[\w.@+=,-]*[\w@+=-]
      )
    | (?P<n>(?<![\w:-])\d+(?:[.,]\d+)*(?![\w-]))
    """,
    re.VERBOSE,
)
_SPACE = re.compile(r"\s+")


@lru_cache(maxsize=16384)
def error_template(message: str) -> str:
    """`message` with ARNs, ids, names, addresses, times, blobs and numbers replaced by `<what>`.

    At most `MAX_LENGTH` characters; only the first 1,024 of the message are looked at. The action
    after `perform:` is kept.
    """
    text = _VARIABLE.sub(_placeholder, message[:1024])
    text = _SPACE.sub(" ", text).strip()
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"


def _placeholder(found: re.Match[str]) -> str:
    return f"<{found.lastgroup}>"
