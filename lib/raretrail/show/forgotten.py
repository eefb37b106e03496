"""What a forgetting covers, before it is done, and its receipt, which names nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from raretrail.show.rows import rows_table
from raretrail.show.text import Screen, count, in_utc, inert

if TYPE_CHECKING:
    from raretrail.stages.forget import Covered, Receipt

_COLUMNS = ("table_name", "rows_removed", "rows_rewritten", "rebuilt", "files_removed")


def covered_lines(covered: Covered) -> Iterator[str]:
    """Whom and what it covers, in words: for who asks, not for a log that is kept."""
    where = f" in account {covered.request.account}" if covered.request.account else ""
    if covered.request.kind == "address":
        yield f"covers the address {covered.subject}{where}, as {_listed(covered.names)}"
    else:
        yield f"covers {covered.subject}{where}: {_listed(covered.identities)}"
        yield f"takes these names out of the words of others: {_listed(covered.names) or 'none'}"
    if covered.addresses:
        yield f"takes the places of addresses that nobody else used: {len(covered.addresses):,}"
    if covered.others:
        yield f"leaves, as somebody else's: {_listed(covered.others)}"
    findings, incidents = len(covered.findings), len(covered.incidents)
    yield f"with it go {count(findings, 'finding')} in {count(incidents, 'incident')}"


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(map(inert, texts))


def receipt_text(receipt: Receipt, screen: Screen) -> str:
    """The receipt: a table, and by what it can be found again."""
    shown = rows_table(_COLUMNS, receipt.rows, screen)
    if receipt.dry:
        return shown + "nothing was done\n"
    return (
        f"{shown}forgotten {in_utc(receipt.forgotten_at):%Y-%m-%d %H:%M:%S} UTC by {inert(receipt.author)}: "
        f"{receipt.kind} {receipt.hash}\nreceipt {receipt.receipt_id}\n"
    )


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """The receipt as JSON has it."""
    told = ("receipt_id", "kind", "hash", "account", "forgotten_at", "author", "dry")
    return {name: getattr(receipt, name) for name in told} | {"tables": list(receipt.rows)}
