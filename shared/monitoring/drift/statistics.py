"""The statistics of drift, on counts by bin: plain Python, because a feature has a dozen bins.

References: PSI, Siddiqi (2006), Credit Risk Scorecards, as the Jeffreys divergence of smoothed shares. G-test with the
correction of Williams (1976), Biometrika 63. Benjamini and Hochberg (1995), JRSS B 57.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

SMOOTHING = 0.5  # added to each bin that either side fills (Jeffreys' prior)
LEAST_EXPECTED = 10.0  # bins with fewer expected rows are tested together: with 5, twice as many false alarms


def psi(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the population stability index of two counts by bin.

    Bins that are empty on both sides do not count; 0.5 is added to each of the others before shares are taken. A side
    without rows is compared with nothing: 0.
    """
    if not any(reference) or not any(window):
        return 0.0
    pairs = [pair for pair in zip(reference, window, strict=True) if pair[0] or pair[1]]
    total_before, total_after = sum(reference) + SMOOTHING * len(pairs), sum(window) + SMOOTHING * len(pairs)
    index = 0.0
    for before, after in pairs:
        share_before, share_after = (before + SMOOTHING) / total_before, (after + SMOOTHING) / total_after
        index += (share_after - share_before) * math.log(share_after / share_before)
    return index


def g_test(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the p-value of the likelihood-ratio test that two counts by bin come from one population.

    Bins in which fewer than ten rows are expected on the smaller side are tested as one.
    """
    total_before, total_after = sum(reference), sum(window)
    if not total_before or not total_after:
        return 1.0
    total = total_before + total_after
    pairs = _pooled(reference, window, LEAST_EXPECTED * total / min(total_before, total_after))
    degrees = len(pairs) - 1
    if not degrees:
        return 1.0
    sums = inverse = 0.0
    for before, after in pairs:
        expected = (before + after) * total_before / total
        if before:
            sums += before * math.log(before / expected)
        if after:
            sums += after * math.log(after / (before + after - expected))
        inverse += 1 / (before + after)
    columns = total / total_before + total / total_after - 1
    correction = 1 + (total * inverse - 1) * columns / (6 * total * degrees)
    return chi2_sf(max(2 * sums, 0.0) / correction, degrees)


def _pooled(reference: Sequence[int], window: Sequence[int], least: float) -> list[tuple[int, int]]:
    """Return the bins with at least this number of rows on both sides together, and the others as one."""
    kept: list[tuple[int, int]] = []
    rest_before = rest_after = 0
    for pair in zip(reference, window, strict=True):
        if pair[0] + pair[1] >= least:
            kept.append(pair)
        else:
            rest_before += pair[0]
            rest_after += pair[1]
    rest = rest_before + rest_after
    if rest and kept and rest < least:
        before, after = min(kept, key=sum)
        kept.remove((before, after))
        rest_before, rest_after = rest_before + before, rest_after + after
    return [*kept, (rest_before, rest_after)] if rest else kept


def chi2_sf(statistic: float, degrees: int) -> float:
    """Return the probability that a chi-squared variable of some whole degrees of freedom is at least `statistic`.

    The finite sums of Abramowitz and Stegun (1964), 26.4.4 and 26.4.5.
    """
    half = statistic / 2
    if degrees <= 0 or half <= 0:
        return 1.0
    if degrees % 2:
        terms = [
            math.exp((place + 0.5) * math.log(half) - half - math.lgamma(place + 1.5)) for place in range(degrees // 2)
        ]
        return math.fsum([math.erfc(math.sqrt(half)), *terms])
    return math.fsum(math.exp(place * math.log(half) - half - math.lgamma(place + 1)) for place in range(degrees // 2))


def ks_lower_bound(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the largest difference of the two distribution functions at the ends of ordered bins.

    The Kolmogorov-Smirnov statistic of the rows themselves is at least as large.
    """
    total_before, total_after = sum(reference), sum(window)
    if not total_before or not total_after:
        return 0.0
    before, after = accumulate(reference), accumulate(window)
    return max(abs(low / total_before - high / total_after) for low, high in zip(before, after, strict=True))


def false_discovery(p_values: Sequence[float]) -> list[float]:
    """Return n p-values adjusted for the false discovery rate (Benjamini and Hochberg), in their order."""
    count = len(p_values)
    adjusted = [1.0] * count
    least = 1.0
    for rank, place in sorted(enumerate(sorted(range(count), key=lambda place: p_values[place]), 1), reverse=True):
        least = min(least, p_values[place] * count / rank)
        adjusted[place] = least
    return adjusted
