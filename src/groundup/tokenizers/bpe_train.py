"""Learn byte-pair merges: join the most frequent pair of neighbours, again and again.

    merges = learn_merges({"low": 5, "lower": 2, "newest": 6}, n_tokens=256 + 3)

The corpus is first reduced to its distinct words with their counts, since a merge never crosses a
word. Take `low` 5 times, `lower` twice, `newest` 6 times:

    l o w (5)    l o w e r (2)    n e w e s t (6)

    pair counts:  w e 8,  l o 7,  o w 7,  n e 6,  e w 6,  e s 6,  s t 6,  e r 2

The first merge is `w e`. It changes two words, so only the pairs that touched it change:

    l o w (5)    l o we r (2)    n e we s t (6)

    gone: o w -2, e r -2, e w -6, e s -6     new: o we 2, we r 2, e we 6, we s 6

The next merge is `l o` (7 times), and so on. Recounting everything for each merge would cost
merges x corpus. Three structures make a merge cost only what it changes:

- `counts`: pair -> how often it occurs, kept up to date by the -2s and +6s above;
- `positions`: pair -> the words that have it, so no other word is looked at;
- a heap of pairs, best first. When a count falls, the pair's heap entry is left as it is; an entry
  that reaches the top with an outdated count goes back with the right one ("lazy" updating).

The result is that of Hugging Face's `BpeTrainer`, merge for merge, which settles what the idea
leaves open: of equally frequent pairs the one with the smaller ids comes first, and `a a a` counts
as two pairs `a a` although only one of them can merge.

Can two merges spell the same token, say `a`+`ab` and `aa`+`b`? No. Wherever a token comes about, no
merge has ever crossed its two ends, so its inside was merged as if it stood alone: always the same
way. Hence every merge brings a new token, and no pair comes up again once it has been merged.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from groundup.errors import UserError
from groundup.tokenizers.byte_level import BYTE_TOKENS, check_text, splitter
from groundup.tokenizers.parts import parts
from groundup.tokenizers.vocabulary import Merge

Pair = tuple[int, int]
Progress = Callable[[int, int], None]


def learn_merges(
    word_counts: Mapping[str, int], n_tokens: int, progress: Progress | None = None
) -> list[Merge]:
    """Learn merges until there are `n_tokens` tokens (256 of them bytes) or nothing to merge.

    Args:
        word_counts: each distinct piece of the text and how often it occurs.
        n_tokens: bytes and merged tokens; special tokens do not count here.
        progress: called as `progress(merges done, merges wanted)` about a hundred times, and
            at the end.
    """
    tokens = list(BYTE_TOKENS)
    byte_ids = {token[0]: index for index, token in enumerate(tokens)}
    words = [[byte_ids[byte] for byte in word.encode()] for word in word_counts]
    frequency = list(word_counts.values())

    counts, positions = count_pairs(words, frequency)
    heap = [(-counts[pair], pair, where) for pair, where in positions.items()]
    heapq.heapify(heap)

    merges: list[Merge] = []
    n_wanted = n_tokens - len(tokens)
    report_every = max(n_wanted // 100, 1)
    while heap and len(merges) < n_wanted:
        negative_count, pair, where = heapq.heappop(heap)
        if -negative_count != counts[pair]:  # outdated: back with today's count
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair, where))
            continue
        left, right = tokens[pair[0]], tokens[pair[1]]
        merges.append((left, right))
        tokens.append(left + right)
        created = merge_pair(pair, len(tokens) - 1, where, words, frequency, counts)
        for new_pair, new_where in created.items():
            if counts[new_pair] > 0:
                heapq.heappush(heap, (-counts[new_pair], new_pair, new_where))
        if progress and len(merges) % report_every == 0:
            progress(len(merges), n_wanted)
    if progress:
        progress(len(merges), n_wanted)
    return merges


def count_pairs(
    words: list[list[int]], frequency: list[int]
) -> tuple[defaultdict[Pair, int], defaultdict[Pair, set[int]]]:
    """Return how often each pair of neighbours occurs, and in which words."""
    counts: defaultdict[Pair, int] = defaultdict(int)
    positions: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in zip(word, word[1:], strict=False):
            counts[pair] += frequency[index]
            positions[pair].add(index)
    return counts, positions


def merge_pair(
    pair: Pair,
    new_id: int,
    where: set[int],
    words: list[list[int]],
    frequency: list[int],
    counts: defaultdict[Pair, int],
) -> defaultdict[Pair, set[int]]:
    """Join `pair` in the words `where`, keep `counts` right, and return the pairs that arose.

    In `x left right y` the pairs `x left` and `right y` disappear; `x new` and `new y` arise.
    """
    left, right = pair
    created: defaultdict[Pair, set[int]] = defaultdict(set)
    for index in where:
        word, n = words[index], frequency[index]
        merged: list[int] = []
        i, last = 0, len(word) - 1
        while i <= last:
            if i == last or word[i] != left or word[i + 1] != right:
                merged.append(word[i])
                i += 1
                continue
            if merged:
                before = merged[-1]
                counts[before, left] -= n
                counts[before, new_id] += n
                created[before, new_id].add(index)
            if i + 2 <= last:
                after = word[i + 2]
                counts[right, after] -= n
                counts[new_id, after] += n
                created[new_id, after].add(index)
            merged.append(new_id)
            i += 2
        words[index] = merged
    return created


def count_words(documents: Iterable[str]) -> Counter[str]:
    """Return each distinct piece of the documents and how often it occurs."""
    split = splitter()
    word_counts: Counter[str] = Counter()
    for document in documents:
        word_counts.update(split(document))
    return word_counts


def check_documents(text: str | Iterable[str]) -> Iterator[str]:
    """Yield the documents of a training text in parts, which have the same words.

    Raises:
        UserError: one of them is not text that UTF-8 can express, or all of them are empty.
    """
    n_characters = 0
    for document in [text] if isinstance(text, str) else text:
        check_text(document)
        n_characters += len(document)
        yield from parts(document)
    if not n_characters:
        raise UserError("the text to train a tokenizer on is empty; give it at least some words")


def check_request(vocab_size: int, special_tokens: Iterable[str]) -> list[str]:
    """Return the special tokens as a list.

    Raises:
        UserError: the vocabulary is too small for them, or one of them could not work.
    """
    if isinstance(special_tokens, str):
        raise UserError(
            f"special_tokens must be a list of tokens, not a str; give [{special_tokens!r}]"
        )
    specials = list(special_tokens)
    for token in specials:
        if len(splitter()(token)) < 2:  # a merge might spell it too
            raise UserError(
                f"the special token {token!r} can also come about as an ordinary token; give it "
                f"marks that no word has, such as '<|{token}|>'"
            )
    if len(set(specials)) < len(specials):
        raise UserError(f"special_tokens has a token twice ({', '.join(specials)}); give each once")
    smallest = len(BYTE_TOKENS) + len(specials)
    if vocab_size < smallest:
        raise UserError(
            f"vocab_size is {vocab_size}, but the {len(BYTE_TOKENS)} bytes and {len(specials)} "
            f"special tokens alone need {smallest}; ask for more"
        )
    return specials
