"""The compiled preprocessing of a model as sentences, block by block, for people who want to understand it."""

from collections.abc import Iterator

from shared.encoding.blocks import BlockStep, EncodedBlock
from shared.faults import counted, few

SHOWN_FEATURES = 8  # of a block


def describe_block(block: EncodedBlock, first: int = 0, indent: str = "") -> Iterator[str]:
    """Yield a line for each part of the encoded matrix and each step behind it.

    `first` is the number of the block's first column. A part lists the columns of its features; a step describes its
    result, and whether it is compiled or its own `transform` runs on a plain array.
    """
    start = first
    for part in block.parts:
        yield from describe_block(part, start, indent)
        start += part.width
    if not block.parts:
        names = list(dict.fromkeys(name for features in block.features for name in features))
        last = first + block.width - 1
        columns = f"column {first}" if block.width == 1 else f"columns {first} to {last}"
        yield f"{indent}{columns}: {few(names, SHOWN_FEATURES)} ({counted(len(names), 'feature')})"
        if not block.steps:
            yield f"{indent}  taken as the row has it"
    elif block.steps:
        yield f"{indent}then all of these columns together:"
    for step in block.steps:
        yield f"{indent}  {_described(step)}"


def _described(step: BlockStep) -> str:
    how = "compiled" if step.is_compiled else "the pipeline's own code, on an array"
    return f"{step.transformer} [{how}]: {step.becomes}; {counted(step.width, 'column')}"
