"""A Hugging Face tokenizer.json -> the parts of a byte-level BPE. Whatever it is else is refused with the reason."""

from collections.abc import Mapping, Sequence
from typing import Any

from mypt.core.tokens.formats import Merges, MergeTable, bytes_of
from mypt.core.tokens.patterns import GPT2_PATTERN, GPT2_RELEASED_PATTERN

_MERGE_OPTIONS = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")


def parse_hugging_face(content: Mapping[str, Any]) -> tuple[str, dict[str, int], MergeTable]:
    """Read the decoded JSON.

    Returns:
        The pattern that cuts words, the special tokens by name, and the table.

    Raises:
        ValueError: with the reason, when it is no byte-level BPE that ranks alone describe.
        KeyError: when a part of the format is missing.
        TypeError: when a part has another type.
    """
    model = content["model"]
    kind = model.get("type", "BPE" if "merges" in model else "unknown")
    if kind != "BPE":
        raise ValueError(f"it is a {kind} tokenizer, not a byte-level BPE")
    if content.get("normalizer"):
        raise ValueError(f"it changes the text before encoding ({content['normalizer'].get('type')} normalizer)")
    for option in _MERGE_OPTIONS:
        if model.get(option):
            raise ValueError(f"its option {option} = {model[option]!r} has no meaning for a byte-level table")
    pattern = _pattern(content.get("pre_tokenizer"))
    special_tokens = _special_tokens(content.get("added_tokens") or [])
    ids = {piece: token_id for piece, token_id in model["vocab"].items() if piece not in special_tokens}
    pieces = {bytes_of(piece): token_id for piece, token_id in sorted(ids.items(), key=lambda entry: entry[1])}
    _require_free_ids(list(pieces.values()), set(special_tokens.values()))
    return pattern, special_tokens, MergeTable(tuple(pieces), _merges(model["merges"], pieces))


def characters_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The characters of a vocabulary that has one id for each, in the order of the ids; none of another one.

    Raises:
        KeyError: when a part of the format is missing.
        TypeError: when a part has another type.
    """
    vocab = content["model"]["vocab"]
    if not vocab or any(len(name) != 1 for name in vocab) or sorted(vocab.values()) != list(range(len(vocab))):
        return ()
    return tuple(sorted(vocab, key=vocab.__getitem__))


def _pattern(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """The one regular expression that the steps amount to."""
    if not pre_tokenizer:
        raise ValueError("it has no pre-tokenizer, so it is not byte-level")
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    kinds = [step["type"] for step in steps]
    if kinds not in (["ByteLevel"], ["Split", "ByteLevel"]):
        raise ValueError(f"its pre-tokenizer is {' + '.join(kinds)}, not one split into words and then bytes")
    byte_level = steps[-1]
    if byte_level.get("add_prefix_space"):
        raise ValueError("it puts a space before each text (add_prefix_space)")
    if byte_level.get("use_regex", True):
        if len(steps) > 1:
            raise ValueError("it splits text twice, by its own pattern and by GPT-2's")
        return GPT2_PATTERN
    split = steps[0]
    if len(steps) == 1 or split.get("behavior") != "Isolated" or split.get("invert") or "Regex" not in split["pattern"]:
        raise ValueError("its split is not by a regular expression that names the words")
    pattern = split["pattern"]["Regex"]
    return GPT2_PATTERN if pattern == GPT2_RELEASED_PATTERN else pattern


def _special_tokens(added: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    plain = [token["content"] for token in added if not token.get("special")]
    if plain:
        raise ValueError(f"it takes the added token {plain[0]!r} from text as a whole, which is no merge")
    return {token["content"]: token["id"] for token in added}


def _require_free_ids(ids: Sequence[int], taken: set[int]) -> None:
    expected = 0
    for token_id in ids:
        while expected in taken:
            expected += 1
        if token_id != expected:
            raise ValueError(f"its ids have a hole or a double: {token_id} stands where {expected} should")
        expected += 1


def _merges(listed: Sequence[Any], ids: Mapping[bytes, int]) -> Merges:
    """All pairs by the piece they make; their order must be the order of the ids."""
    merges: Merges = {}
    last = -1
    for entry in listed:
        first, second = map(bytes_of, entry.split(" ") if isinstance(entry, str) else entry)
        made = ids.get(first + second)
        if made is None:
            raise ValueError(f"the merge {entry!r} makes a piece without an id")
        if made < last:
            raise ValueError(f"the order of its ids is not the order of its merges (at {entry!r})")
        last = made
        merges.setdefault(first + second, []).append((first, second))
    return merges
