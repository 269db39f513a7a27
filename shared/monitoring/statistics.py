"""The statistics of drift, on counts by bin: plain Python, because a feature has a dozen bins.

References: PSI, Siddiqi (2006), Credit Risk Scorecards, as the Jeffreys divergence of smoothed shares. G-test with the
correction of Williams (1976), Biometrika 63. Benjamini and Hochberg (1995), JRSS B 57.
"""

import math
from collections.abc import Sequence

SMOOTHING = 0.5  # added to each bin that either side fills (Jeffreys' prior)
LEAST_EXPECTED = 10.0  # bins with fewer expected rows are tested together: with 5, twice as many false alarms


def psi(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the population stability index of two counts by bin.

    Bins that are empty on both sides do not count; 0.5 is added to each of the others before shares are taken.
    """
    pairs = [(before, after) for before, after in zip(reference, window, strict=True) if before or after]
    total_before = sum(before for before, _ in pairs) + SMOOTHING * len(pairs)
    total_after = sum(after for _, after in pairs) + SMOOTHING * len(pairs)
    found = 0.0
    for before, after in pairs:
        share_before, share_after = (before + SMOOTHING) / total_before, (after + SMOOTHING) / total_after
        found += (share_after - share_before) * math.log(share_after / share_before)
    return found


def g_test(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the p-value of the likelihood-ratio test that two counts by bin come from one population.

    Bins in which fewer than ten rows are expected on the smaller side are tested as one.
    """
    total_before, total_after = sum(reference), sum(window)
    if not total_before or not total_after:
        return 1.0
    pairs = _pooled(reference, window, min(total_before, total_after) / (total_before + total_after))
    total = total_before + total_after
    statistic = 0.0
    for before, after in pairs:
        share = (before + after) / total
        for observed, expected in ((before, share * total_before), (after, share * total_after)):
            if observed:
                statistic += 2 * observed * math.log(observed / expected)
    degrees = len(pairs) - 1
    if not degrees:
        return 1.0
    rows = total * sum(1 / (before + after) for before, after in pairs) - 1
    columns = total / total_before + total / total_after - 1
    correction = 1 + rows * columns / (6 * total * degrees)
    return chi2_sf(max(statistic, 0.0) / correction, degrees)


def _pooled(reference: Sequence[int], window: Sequence[int], part: float) -> list[tuple[int, int]]:
    pairs = sorted(zip(reference, window, strict=True), key=sum, reverse=True)
    kept = [pair for pair in pairs if sum(pair) * part >= LEAST_EXPECTED]
    few = [pair for pair in pairs[len(kept) :] if sum(pair)]
    if not few:
        return kept
    rest = (sum(before for before, _ in few), sum(after for _, after in few))
    if kept and sum(rest) * part < LEAST_EXPECTED:
        before, after = kept.pop()
        rest = (rest[0] + before, rest[1] + after)
    return [*kept, rest]


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
    before = after = 0
    found = 0.0
    for more_before, more_after in zip(reference, window, strict=True):
        before += more_before
        after += more_after
        found = max(found, abs(before / total_before - after / total_after))
    return found


def false_discovery(p_values: Sequence[float]) -> list[float]:
    """Return n p-values adjusted for the false discovery rate (Benjamini and Hochberg), in their order."""
    count = len(p_values)
    adjusted = [1.0] * count
    least = 1.0
    for rank, place in sorted(enumerate(sorted(range(count), key=lambda place: p_values[place]), 1), reverse=True):
        least = min(least, p_values[place] * count / rank)
        adjusted[place] = least
    return adjusted
